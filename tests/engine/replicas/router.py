"""A router in front of a replica that knows OpenAI's API only, as Ray Serve and others do."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.engine.gateway import ThreadServer
from tests.server.harness import listening_socket

KNOWN = ("/v1/models", "/v1/completions")
HOP_HEADERS = ("host", "content-length", "transfer-encoding", "connection")


@contextlib.contextmanager
def running_router(replica: str, *, keeps_unknown_fields: bool = True) -> Iterator[str]:
    """Route requests to a replica, and yield the URL of the router.

    Args:
        replica: the base URL of the replica.
        keeps_unknown_fields: whether events pass as they are; otherwise, the record is removed
            from them, as by routers that parse responses.
    """

    async def forward(request: Request) -> Response:
        headers = {
            name: value for name, value in request.headers.items() if name not in HOP_HEADERS
        }
        client = httpx.AsyncClient(base_url=replica, timeout=None)
        sent = client.build_request(
            request.method, request.url.path, content=await request.body(), headers=headers
        )
        response = await client.send(sent, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in response.aiter_raw():
                    yield chunk if keeps_unknown_fields else chunk.replace(b'"proctor"', b'"x"')
            finally:
                await response.aclose()
                await client.aclose()

        return StreamingResponse(
            body(), response.status_code, media_type=response.headers.get("content-type")
        )

    routes = [Route(path, forward, methods=["GET", "POST"]) for path in KNOWN]
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False)
    server = ThreadServer(config)
    with listening_socket() as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
