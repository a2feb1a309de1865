"""vLLM's tool parsers, behind the seam's `ToolFormat`."""

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
from proctor.server.engines.vllm.call_reader import FirstCall, Markup, ParsedCalls
from proctor.server.engines.vllm.tool_schemas import ANY_OBJECT, arguments_schema
from proctor.server.errors import UnsupportedRequest

FIELD = "tools"

MAX_BYTES = 4 * MAX_SCHEMA_BYTES
"""Of the schemas that calls are bound to, all together; 128 tools of 20 parameters take less."""

# vLLM has xgrammar look a form beside tools through, here in this process, which a hostile one
# ends. Whether the two go together is found out where that does no harm, as for any grammar.
abstract_parser._xgrammar_supports = lambda structured_outputs: True


class VllmTools:
    """How a model writes tool calls, by the name of vLLM's parser."""

    def __init__(self, name: str, tokenizer: Any, *, binds: bool = True) -> None:
        """Look the parser up.

        Args:
            name: of vLLM's parser.
            tokenizer: the model's.
            binds: whether the engine can bind answers; calls that may be made
                are read out of the answer where it cannot.

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
        self._binds = binds
        self._special = _special_tokens(tokenizer)
        self._markup = _markup(parser(tokenizer, []))

    def bind(self, choice: ToolChoice) -> BoundTools:
        constraint = self._constraint(choice)
        # Parsers tell values by the client's own schemas, whatever the arguments are bound to.
        request = self._request(replace(choice, constraint=None), choice.tools)

        def reader() -> CallReader:
            calls = ParsedCalls(lambda: self._make(request), request, self._special, self._markup)
            return calls if choice.parallel else FirstCall(calls)

        return BoundTools(constraint, reader)

    def _constraint(self, choice: ToolChoice) -> Constraint | None:
        """What the answer is bound to.

        Raises:
            Unserved: if it cannot be.
        """
        if choice.mode != "auto":
            bound = self._bound(replace(choice, constraint=None))
            if bound is None:
                raise UnsupportedRequest(
                    "tool_choice",
                    "this model's tool format cannot be made to call: 'tool_choice' is 'auto' or "
                    "'none' here",
                )
            return bound
        if choice.constraint is not None:
            return self._beside(choice, choice.constraint)
        strict = next((at for at, tool in enumerate(choice.tools) if _is_strict(tool)), None)
        if strict is None and not self._binds:
            return None
        bound = self._bound(choice)
        if bound is None and strict is not None:
            raise UnsupportedRequest(
                f"{FIELD}[{strict}].function.strict",
                "this model's tool format cannot hold a call to its schema: leave 'strict' out",
            )
        return bound

    def _beside(self, choice: ToolChoice, constraint: Constraint) -> Constraint:
        """What binds an answer that is a call or keeps to a constraint of the client's own.

        Raises:
            Unserved: if the two do not go together.
        """
        field = constraint.field
        refusal = f"'{field}' and '{FIELD}' do not go together: "
        try:
            check_complexity(constraint)
        except UnsupportedRequest as error:
            raise UnsupportedRequest(error.param, f"{refusal}{error}") from None
        if constraint.kind is Kind.GRAMMAR and grammar_is_likely_lark(constraint.value):
            # vLLM would have xgrammar translate it, in this process.
            raise UnsupportedRequest(
                field, f"{refusal}beside tools a grammar is in EBNF, not in Lark"
            )
        if constraint.kind is Kind.STRUCTURAL_TAG:
            try:
                orjson.loads(constraint.value)
            except orjson.JSONDecodeError as error:
                raise UnsupportedRequest(field, f"'{field}' is not JSON: {error}") from error
        try:
            bound = self._bound(choice)
        except UnsupportedRequest as error:
            if error.param != FIELD:  # the tools alone are at fault
                raise
            raise UnsupportedRequest(field, f"{refusal}{error}") from None
        if bound is None or bound.kind is not Kind.STRUCTURAL_TAG:
            raise UnsupportedRequest(
                field,
                f"{refusal}xgrammar cannot bind an answer to this value beside calls in this "
                "model's tool format",
            )
        return replace(bound, field=field)

    def _bound(self, choice: ToolChoice) -> Constraint | None:
        """What vLLM binds the answer to.

        Raises:
            Unserved: if it refuses to.
        """
        request = self._request(choice, _bound_tools(choice))
        try:
            parser = self._make(request)
            # Or else a form beside calls that may be made binds the answer to itself alone.
            parser.tool_strict_level = ToolStrictLevel.FUNCTION
            parser.adjust_request(request)
            return _read_constraint(request.extract_structured_outputs())
        except Exception as error:  # of many classes, over what a client has sent
            raise UnsupportedRequest(FIELD, f"vLLM refuses '{FIELD}': {_reason(error)}") from error

    def _request(self, choice: ToolChoice, tools: Sequence[Any]) -> ChatCompletionRequest:
        """What vLLM's parsers need of a request: all but its messages.

        Raises:
            Unserved: if vLLM refuses it.
        """
        mode: Any = choice.mode
        if choice.name is not None:
            mode = {"type": "function", "function": {"name": choice.name}}
        given: dict[str, Any] = {
            "messages": [],
            "tools": [*tools],
            "tool_choice": mode,
            "parallel_tool_calls": choice.parallel,
        }
        form = choice.constraint
        try:
            request = ChatCompletionRequest.model_validate(given)
            if form is not None:  # validated, xgrammar would look it through
                request.structured_outputs = StructuredOutputsParams(
                    **{form.kind.value: form.value}
                )
            return request
        except Exception as error:  # pydantic's own, and vLLM's, which pydantic lets pass
            raise UnsupportedRequest(FIELD, f"vLLM refuses '{FIELD}': {_reason(error)}") from error

    def _make(self, request: ChatCompletionRequest) -> Parser:
        tools: list[Any] = [*(request.tools or ())]
        return self._parser(self._tokenizer, tools)


def _markup(parser: Parser) -> Markup:
    """What is known of a parser's format."""
    inner = parser.tool_parser
    begin = getattr(inner, "tool_call_start_token", None)
    if isinstance(inner, Hermes2ProToolParser):
        return Markup(begin, inner.tool_call_end_token)
    return Markup(begin if isinstance(begin, str) and begin else None)


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """The text of each token that is no text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token: str(each.content) for token, each in added.items() if each.special}
    ids = getattr(tokenizer, "all_special_ids", ())
    return special | dict(zip(ids, getattr(tokenizer, "all_special_tokens", ()), strict=False))


def _is_strict(tool: Mapping[str, Any]) -> bool:
    return bool(tool["function"].get("strict"))


def _bound_tools(choice: ToolChoice) -> list[dict[str, Any]]:
    """The tools, with the schemas that their calls are bound to.

    A call that must be made has its function's schema, as has a strict one. One that
    may be made has an object.

    Raises:
        Unserved: if a schema cannot be enforced.
    """
    bound = []
    left = MAX_BYTES
    for at, tool in enumerate(choice.tools):
        function = tool["function"]
        schema: Mapping[str, Any] = ANY_OBJECT
        forced = choice.mode == "required" or choice.name == function["name"]
        if forced or (choice.mode == "auto" and _is_strict(tool)):
            field = f"{FIELD}[{at}].function.parameters"
            schema = arguments_schema(function.get("parameters"), field)
            left -= len(orjson.dumps(schema))
            if left < 0:
                raise UnsupportedRequest(
                    FIELD,
                    f"the schemas that calls of '{FIELD}' are bound to are longer than {MAX_BYTES} "
                    "bytes together, descriptions aside",
                )
        told = {"name": function["name"], "parameters": dict(schema), "strict": True}
        bound.append({"type": "function", "function": told})
    return bound


def _reason(error: Exception) -> str:
    """Why vLLM refuses something, without what it adds for its own clients."""
    if isinstance(error, ValidationError):
        return "; ".join(str(each["msg"]) for each in error.errors(include_url=False))
    return Exception.__str__(error)


def _read_constraint(bound: StructuredOutputsParams | None) -> Constraint | None:
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
