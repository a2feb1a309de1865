"""The `ToolFormat` implementation over vLLM's tool parsers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager, abstract_parser
from vllm.parser.abstract_parser import Parser
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
from vllm.v1.structured_output.utils import grammar_is_likely_lark

from proctor.server.engines.grammars.complexity import check_complexity
from proctor.server.engines.grammars.xgrammar_schemas import MAX_BYTES as MAX_SCHEMA_BYTES
from proctor.server.engines.tool_calls import BoundTools, CallReader, Constraint, Kind, ToolChoice
from proctor.server.engines.vllm.call_reader import FirstCallReader, Markup, VllmCallReader
from proctor.server.engines.vllm.tool_schemas import ANY_OBJECT, arguments_schema
from proctor.server.errors import UnsupportedRequest

FIELD = "tools"

MAX_BYTES = 4 * MAX_SCHEMA_BYTES
"""Total size of the schemas of a request's tools; 128 tools of 20 parameters take less."""

# vLLM compiles structured output that is combined with tools with xgrammar in this process, which a
# hostile schema can kill. The check of the resulting grammar, in a separate process, covers it.
abstract_parser._xgrammar_supports = lambda structured_outputs: True


class VllmTools:
    """A model's tool call format, defined by one of vLLM's tool parsers."""

    def __init__(self, name: str, tokenizer: Any, *, binds: bool = True) -> None:
        """Look up the parser.

        Args:
            name: the name of vLLM's parser.
            tokenizer: the model's tokenizer.
            binds: whether the engine supports structured output; if not, optional calls are
                parsed without constraining the answer.

        Raises:
            ValueError: if vLLM has no parser of that name, or it does not fit the tokenizer.
        """
        try:
            parser = ParserManager.get_parser(tool_parser_name=name, enable_auto_tools=True)
            if parser is None:
                raise ValueError("it must not be empty")
            instance = parser(tokenizer, [])
        except Exception as error:  # a parser raises any kind
            raise ValueError(f"tool_call_parser '{name}': {error}") from error
        self._parser = parser
        self._tokenizer = tokenizer
        self._binds = binds
        self._special = _special_tokens(tokenizer)
        self._markup = _markup(instance)

    def bind(self, choice: ToolChoice) -> BoundTools:
        constraint = self._constraint(choice)
        # Parsers convert values by the client's own schemas, not by those of the constraint.
        request = self._request(replace(choice, constraint=None), choice.tools)

        def reader() -> CallReader:
            calls = VllmCallReader(
                lambda: self._make(request), request, self._special, self._markup
            )
            return calls if choice.parallel else FirstCallReader(calls)

        return BoundTools(constraint, reader)

    def _constraint(self, choice: ToolChoice) -> Constraint | None:
        """Return the structured output of the answer.

        Raises:
            UnsupportedRequest: if the format cannot be constrained as requested.
        """
        if choice.mode != "auto":
            bound = self._bound(replace(choice, constraint=None))
            if bound is None:
                raise UnsupportedRequest(
                    "tool_choice",
                    "'tool_choice' must be 'auto' or 'none': this model's tool format does not "
                    "support forced calls",
                )
            return bound
        if choice.constraint is not None:
            return self._combine(choice, choice.constraint)
        strict = next((index for index, tool in enumerate(choice.tools) if _is_strict(tool)), None)
        if strict is None and not self._binds:
            return None
        bound = self._bound(choice)
        if bound is None and strict is not None:
            raise UnsupportedRequest(
                f"{FIELD}[{strict}].function.strict",
                "'strict' is not supported: this model's tool format cannot enforce the schema of "
                "a call; leave it out",
            )
        return bound

    def _combine(self, choice: ToolChoice, constraint: Constraint) -> Constraint:
        """Return the structured output of an answer that is either a call or matches `constraint`.

        Raises:
            UnsupportedRequest: if the two cannot be combined.
        """
        field = constraint.field
        refusal = f"'{field}' and '{FIELD}' cannot be combined: "
        check_complexity(constraint)
        if constraint.kind is Kind.GRAMMAR and grammar_is_likely_lark(constraint.value):
            # vLLM would convert it with xgrammar in this process.
            raise UnsupportedRequest(
                field, f"{refusal}with tools, a grammar must be in EBNF, not in Lark"
            )
        try:
            bound = self._bound(choice)
        except UnsupportedRequest as error:
            if error.param != FIELD:  # the tools are invalid by themselves
                raise
            raise UnsupportedRequest(field, f"{refusal}{error}") from None
        if bound is None or bound.kind is not Kind.STRUCTURAL_TAG:
            raise UnsupportedRequest(
                field,
                f"{refusal}xgrammar does not support this value together with this model's tool "
                "format",
            )
        return replace(bound, field=field)

    def _bound(self, choice: ToolChoice) -> Constraint | None:
        """Return the structured output that vLLM derives from the tools, if any.

        Raises:
            UnsupportedRequest: if vLLM rejects them.
        """
        request = self._request(choice, _bound_tools(choice))
        try:
            parser = self._make(request)
            # At other levels, structured output would replace optional calls instead of being an
            # alternative to them.
            parser.tool_strict_level = ToolStrictLevel.FUNCTION
            parser.adjust_request(request)
            return _read_constraint(request.extract_structured_outputs())
        except Exception as error:  # parsers raise many classes for a client's schemas
            raise UnsupportedRequest(FIELD, f"vLLM rejects '{FIELD}': {_reason(error)}") from error

    def _request(self, choice: ToolChoice, tools: Sequence[Any]) -> ChatCompletionRequest:
        """Return the request that vLLM's parsers need, without messages.

        Raises:
            UnsupportedRequest: if vLLM rejects it.
        """
        tool_choice: Any = choice.mode
        if choice.name is not None:
            tool_choice = {"type": "function", "function": {"name": choice.name}}
        fields: dict[str, Any] = {
            "messages": [],
            "tools": [*tools],
            "tool_choice": tool_choice,
            "parallel_tool_calls": choice.parallel,
        }
        constraint = choice.constraint
        try:
            request = ChatCompletionRequest.model_validate(fields)
            if constraint is not None:  # set later, as validation would compile it with xgrammar
                request.structured_outputs = StructuredOutputsParams(
                    **{constraint.kind.value: constraint.value}
                )
            return request
        except Exception as error:  # vLLM's validators raise other classes than pydantic's
            raise UnsupportedRequest(FIELD, f"vLLM rejects '{FIELD}': {_reason(error)}") from error

    def _make(self, request: ChatCompletionRequest) -> Parser:
        tools: list[Any] = [*(request.tools or ())]
        return self._parser(self._tokenizer, tools)


def _markup(parser: Parser) -> Markup:
    """Return the delimiters of calls, as far as the parser defines them."""
    inner = parser.tool_parser
    begin = getattr(inner, "tool_call_start_token", None)
    if isinstance(inner, Hermes2ProToolParser):
        return Markup(begin, inner.tool_call_end_token)
    return Markup(begin if isinstance(begin, str) and begin else None)


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the text of each special token, by id."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token: str(each.content) for token, each in added.items() if each.special}
    ids = getattr(tokenizer, "all_special_ids", ())
    return special | dict(zip(ids, getattr(tokenizer, "all_special_tokens", ()), strict=False))


def _is_strict(tool: Mapping[str, Any]) -> bool:
    return bool(tool["function"].get("strict"))


def _bound_tools(choice: ToolChoice) -> list[dict[str, Any]]:
    """Return the tools with the schemas that constrain their calls.

    Forced and strict calls are constrained to the function's schema, optional ones to any object.

    Raises:
        UnsupportedRequest: if a schema cannot be enforced.
    """
    bound_tools = []
    remaining_bytes = MAX_BYTES
    for index, tool in enumerate(choice.tools):
        function = tool["function"]
        schema: Mapping[str, Any] = ANY_OBJECT
        is_forced = choice.mode == "required" or choice.name == function["name"]
        if is_forced or (choice.mode == "auto" and _is_strict(tool)):
            field = f"{FIELD}[{index}].function.parameters"
            schema = arguments_schema(function.get("parameters"), field)
            remaining_bytes -= len(orjson.dumps(schema))
            if remaining_bytes < 0:
                raise UnsupportedRequest(
                    FIELD,
                    f"the schemas of '{FIELD}' must not be longer than {MAX_BYTES} bytes together, "
                    "without descriptions",
                )
        bound = {"name": function["name"], "parameters": dict(schema), "strict": True}
        bound_tools.append({"type": "function", "function": bound})
    return bound_tools


def _reason(error: Exception) -> str:
    """Return the reason of vLLM's error, without what it adds for its own clients."""
    if isinstance(error, ValidationError):
        return "; ".join(str(each["msg"]) for each in error.errors(include_url=False))
    return Exception.__str__(error)


def _read_constraint(bound: StructuredOutputsParams | None) -> Constraint | None:
    for kind in Kind:
        if bound is not None and (value := getattr(bound, kind.value)) is not None:
            is_tag = kind is Kind.STRUCTURAL_TAG
            return Constraint(kind, _limit_whitespace(value) if is_tag else value, FIELD)
    return None


def _limit_whitespace(structural_tag: str) -> str:
    """Limit whitespace between JSON tokens to one space.

    A confused model could otherwise emit newlines until `max_tokens`.
    """

    def limit(part: Any) -> Any:
        if isinstance(part, list):
            return [limit(each) for each in part]
        if not isinstance(part, dict):
            return part
        if part.get("type") == "json_schema":
            return {**part, "max_whitespace_cnt": 1}
        return {key: limit(each) for key, each in part.items()}

    return json.dumps(limit(json.loads(structural_tag)))
