"""What binds a request's answer, looked through before anything else is done for it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from proctor.server.engines.base import Engine
from proctor.server.engines.grammars.complexity import check_complexity
from proctor.server.engines.tool_calls import BoundTools, Constraint, ToolChoice, ToolFormat
from proctor.server.errors import BadRequest
from proctor.server.generation.prompt import check_tools
from proctor.server.schemas.generation import ChatRequest

THREADS = 2


@dataclass(frozen=True, slots=True)
class Bound:
    """What a request's answer is bound to.

    Attributes:
        constraint: the tools' form or the client's own; None where the answer is free.
        tools: what may or must be called, or None if nothing may be.
        call_named: whether the function to call was named.
    """

    constraint: Constraint | None = None
    tools: BoundTools | None = None
    call_named: bool = False


class Binder:
    """Finds out what binds answers, in threads that nothing else waits for.

    A large set of tools takes long enough for streams to wait, and so many of them at once
    long enough for whatever shares their threads.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "binder")

    async def bind(self, request: ChatRequest, engine: Engine) -> Bound:
        """See `Bound`.

        Raises:
            BadRequest: if the request's fields contradict each other, or nobody said how the
                model writes calls.
            UnsupportedRequest: if the model cannot be bound so.
        """
        form, choice = request.constraint(), request.resolve_tool_choice()
        if form is None and choice is None:
            return Bound()
        if choice is not None and engine.tools is None:
            raise BadRequest(
                "this server was not told how its model writes tool calls (its setting "
                "tool_call_parser): leave 'tools' out",
                param="tools",
            )
        loop = asyncio.get_running_loop()
        bound = await loop.run_in_executor(self._threads, _bind, form, choice, engine.tools)
        if bound.tools is not None:
            await check_tools(engine.codec)
        return bound


def _bind(form: Constraint | None, choice: ToolChoice | None, tools: ToolFormat | None) -> Bound:
    if choice is None or tools is None:
        if form is not None:
            check_complexity(form)
        return Bound(form)
    bound = tools.bind(choice)
    return Bound(bound.constraint, bound, choice.name is not None)
