"""vLLM's tool parsers, behind the seam's `ToolFormat`."""

import json
from collections.abc import Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMClientError
from vllm.parser import ParserManager
from vllm.parser.abstract_parser import Parser
from vllm.renderers.chat_utils import make_tool_call_id
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

from server.engines.answers import BoundTools, CallDelta, CallReader, Constraint, Kind, ToolChoice
from server.engines.base import Unserved

FIELD = "tools"


class VllmTools:
    """How a model writes tool calls, by the name of vLLM's parser."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        """Look the parser up.

        Raises:
            ValueError: if vLLM has none of that name, or it does not go with the tokenizer.
        """
        try:
            parser = ParserManager.get_parser(
                tool_parser_name=name, enable_auto_tools=True, tokenizer=tokenizer
            )
        except TypeError as error:
            raise ValueError(f"tool_call_parser '{name}': {error}") from error
        if parser is None:
            raise ValueError("tool_call_parser is empty")
        self._parser = parser
        self._tokenizer = tokenizer

    def bind(self, choice: ToolChoice) -> BoundTools:
        """See `ToolFormat`."""
        request = _request(choice)
        parser = self._make(request)
        if choice.constraint is not None:
            # Or else vLLM binds the answer to the form alone, and no tool can ever be called.
            parser.tool_strict_level = ToolStrictLevel.FUNCTION
        try:
            parser.adjust_request(request)
            bound = _constraint(request.extract_structured_outputs())
        except (VLLMClientError, ValueError) as error:
            raise Unserved(FIELD, Exception.__str__(error)) from error
        if choice.constraint and choice.mode == "auto" and not _allows_calls(bound):
            field = choice.constraint.field
            raise Unserved(
                field, f"'{field}' and 'tools' do not go together in this model's tool format"
            )

        def reader(whole: bool) -> CallReader:
            parser = self._make(request)
            reads = WholeReader(parser, request) if whole else DeltaReader(parser, request)
            return reads if choice.parallel else FirstCall(reads)

        return BoundTools(bound, reader)

    def _make(self, request: ChatCompletionRequest) -> Parser:
        tools: list[Any] = [*(request.tools or ())]
        return self._parser(self._tokenizer, tools)


class DeltaReader:
    """Reads an answer as it comes."""

    def __init__(self, parser: Parser, request: ChatCompletionRequest) -> None:
        self._parser = parser
        self._request = request

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        """See `CallReader`."""
        return self._parse(text, token_ids, finished=False)

    def close(self) -> list[str | CallDelta]:
        """See `CallReader`."""
        return self._parse("", (), finished=True)

    def _parse(
        self, text: str, token_ids: Sequence[int], *, finished: bool
    ) -> list[str | CallDelta]:
        delta = self._parser.parse_delta(
            text, [*token_ids], self._request, prompt_token_ids=[], finished=finished
        )
        if delta is None:
            return []
        found: list[str | CallDelta] = [delta.content] if delta.content else []
        for call in delta.tool_calls or []:
            name = call.function.name if call.function else None
            arguments = (call.function.arguments if call.function else None) or ""
            if call.id or name or arguments:
                found.append(CallDelta(call.index, call.id, name, arguments))
        return found


class WholeReader:
    """Reads an answer once it is whole, where a call that is not well formed stays text."""

    def __init__(self, parser: Parser, request: ChatCompletionRequest) -> None:
        self._parser = parser
        self._request = request
        self._texts: list[str] = []
        self._token_ids: list[int] = []

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        """See `CallReader`."""
        self._texts.append(text)
        self._token_ids += token_ids
        return []

    def close(self) -> list[str | CallDelta]:
        """See `CallReader`."""
        _, content, calls = self._parser.parse(
            "".join(self._texts),
            self._request,
            enable_auto_tools=True,
            model_output_token_ids=self._token_ids,
        )
        found: list[str | CallDelta] = [content] if content else []
        for index, call in enumerate(calls or []):
            found.append(
                CallDelta(index, call.id or make_tool_call_id(), call.name, call.arguments)
            )
        return found


class FirstCall:
    """Passes on the first call alone, for a request that wants no parallel ones."""

    def __init__(self, reader: CallReader) -> None:
        self._reader = reader

    def push(self, text: str, token_ids: Sequence[int]) -> list[str | CallDelta]:
        """See `CallReader`."""
        return _first(self._reader.push(text, token_ids))

    def close(self) -> list[str | CallDelta]:
        """See `CallReader`."""
        return _first(self._reader.close())


def _first(found: Sequence[str | CallDelta]) -> list[str | CallDelta]:
    return [item for item in found if isinstance(item, str) or item.index == 0]


def _request(choice: ToolChoice) -> ChatCompletionRequest:
    """What vLLM's parsers need of a request: all but its messages."""
    mode: Any = choice.mode
    if choice.name is not None:
        mode = {"type": "function", "function": {"name": choice.name}}
    given: dict[str, Any] = {
        "messages": [],
        "tools": [*choice.tools],
        "tool_choice": mode,
        "parallel_tool_calls": choice.parallel,
    }
    if choice.constraint is not None:
        given["structured_outputs"] = {choice.constraint.kind.value: choice.constraint.value}
    return ChatCompletionRequest.model_validate(given)


def _allows_calls(bound: Constraint | None) -> bool:
    return bound is None or bound.kind is Kind.STRUCTURAL_TAG


def _constraint(bound: StructuredOutputsParams | None) -> Constraint | None:
    for kind in Kind:
        if bound is not None and (value := getattr(bound, kind.value)) is not None:
            tag = kind is Kind.STRUCTURAL_TAG
            return Constraint(kind, _without_free_whitespace(value) if tag else value, FIELD)
    return None


def _without_free_whitespace(structural_tag: str) -> str:
    """The tag, so that a model that has lost its way cannot break lines until its tokens run out.

    What stands between two tokens of JSON is then a space at most.
    """

    def bounded(part: Any) -> Any:
        if isinstance(part, list):
            return [bounded(each) for each in part]
        if not isinstance(part, dict):
            return part
        if part.get("type") == "json_schema":
            return {**part, "max_whitespace_cnt": 1}
        return {key: bounded(each) for key, each in part.items()}

    return json.dumps(bounded(json.loads(structural_tag)))
