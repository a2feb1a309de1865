"""Determines the structured output of a request's answer, from its fields and its tools."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from proctor.server.admission.prompt import check_tools
from proctor.server.engines.base import Engine
from proctor.server.engines.grammars.complexity import check_complexity
from proctor.server.engines.tool_calls import BoundTools, Constraint, ToolChoice, ToolFormat
from proctor.server.errors import BadRequest
from proctor.server.schemas.generation import ChatRequest

THREADS = 2


@dataclass(frozen=True, slots=True)
class AnswerBinding:
    """The structured output and the tools of a request's answer.

    Attributes:
        constraint: from the tools or the request's own; None if the answer is free text.
        tools: the tools in the model's format, or None if the model may not call any.
        call_named: whether `tool_choice` names a function.
    """

    constraint: Constraint | None = None
    tools: BoundTools | None = None
    call_named: bool = False


class Binder:
    """Determines answer bindings, in its own thread pool.

    A large set of tools takes long enough to block streams on the event loop, and many of them at
    once would block other users of a shared thread pool.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "binder")

    async def bind(self, request: ChatRequest, engine: Engine) -> AnswerBinding:
        """Return the binding of a request's answer.

        Raises:
            BadRequest: if the request's fields contradict each other, or the server has no tool
                call parser.
            UnsupportedRequest: if the model's tool format does not support the request.
        """
        constraint, choice = request.constraint(), request.resolve_tool_choice()
        if constraint is None and choice is None:
            return AnswerBinding()
        if choice is not None and engine.tools is None:
            raise BadRequest(
                "'tools' is not supported: this server has no tool call parser configured "
                "(setting tool_call_parser); leave it out",
                param="tools",
            )
        loop = asyncio.get_running_loop()
        binding = await loop.run_in_executor(self._threads, _bind, constraint, choice, engine.tools)
        if binding.tools is not None:
            await check_tools(engine.codec)
        return binding


def _bind(
    constraint: Constraint | None, choice: ToolChoice | None, tools: ToolFormat | None
) -> AnswerBinding:
    if choice is None or tools is None:
        if constraint is not None:
            check_complexity(constraint)
        return AnswerBinding(constraint)
    bound = tools.bind(choice)
    return AnswerBinding(bound.constraint, bound, choice.name is not None)
