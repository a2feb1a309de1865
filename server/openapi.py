"""The API's own description."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from server.schemas import ChatRequest

REQUEST = "ChatRequest"
BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{REQUEST}"}}},
}
"""The description of a chat's body, which is parsed by our own hands."""


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that gives the description, made when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, models = models_json_schema(
                [(ChatRequest, "validation")], ref_template="#/components/schemas/{model}"
            )
            schema["components"] = {"schemas": models["$defs"]}
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)  # a bad request is a 400 here
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi
