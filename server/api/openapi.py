"""`/openapi.json`, the OpenAPI description of the API.

The endpoints parse request bodies and render responses themselves, so that FastAPI does not
know their types. Here each operation declares its request, response and error classes, whose
docstrings are the descriptions in the document.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from inspect import getdoc
from typing import Any

from fastapi import FastAPI, Response, Security
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from proctor.server.api import examples
from proctor.server.api.generation.idempotency import (
    HEADER,
    MAX_KEY_LENGTH,
    REPLAYED_HEADER,
    caches_responses,
)
from proctor.server.auth.authenticator import Access, Authenticator
from proctor.server.channels.deltas import Channel
from proctor.server.config.budgets import AUTO
from proctor.server.config.limits import MIN_REQUEST_SECONDS, SESSION_ID
from proctor.server.config.settings import Settings
from proctor.server.engines.supervisor import EngineSupervisor
from proctor.server.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    Forbidden,
    HeadersTooLarge,
    IdempotencyConflict,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnknownModel,
    UnsupportedEncoding,
)
from proctor.server.generation.context import FLAGS, NAMES_HEADER, TIMEOUT_HEADER
from proctor.server.schemas import responses
from proctor.server.schemas.anthropic import response as anthropic
from proctor.server.schemas.anthropic.request import CountTokensRequest, MessagesRequest
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.feedback import FeedbackRequest
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.openai_responses import response as openai_responses
from proctor.server.schemas.openai_responses.events import EVENTS
from proctor.server.schemas.openai_responses.request import ResponsesRequest
from proctor.server.schemas.sessions import SessionFields
from proctor.server.schemas.tokenization import DetokenizeRequest, TokenizeRequest
from proctor.server.sessions.names import ID_HEADER, LIMIT_HEADERS

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
BODY_DESCRIPTION = "JSON, optionally compressed with `Content-Encoding: gzip`."
METRICS_MEDIA_TYPES = ("text/plain", "application/openmetrics-text")

COMMON_ERRORS = (BadRequest, MethodNotAllowed, RequestTimeout, HeadersTooLarge, InternalError)
"""The errors of every operation. Without a request body, a 400 is for invalid HTTP."""

KEY_ERRORS = (*COMMON_ERRORS, Unauthorized, Unavailable)
"""The errors of operations that require an API key, on servers that have keys."""

BODY_ERRORS = (*KEY_ERRORS, Forbidden, UnknownModel, BodyTooLarge, UnsupportedEncoding)
"""The errors of operations with a request body."""

GENERATION_ERRORS = (*BODY_ERRORS, IdempotencyConflict, RateLimited, DeadlineExceeded)
"""The errors of operations that generate."""

HEADERS = {
    "x-request-id": "The request's `x-request-id` without unsafe characters, or a new ID.",
    "x-budget-tier": "The tier of the budget, or `custom` if the budget does not come from a tier.",
    "x-model": "The model that serves the request, on servers with several models. Characters "
    "outside ASCII are percent-encoded.",
    "x-max-tokens": "The maximum number of tokens in each choice, if it is less than requested.",
    "x-ignored-fields": "The request fields that were ignored, if any.",
    "x-cost": "The cost of the request, in the currency of the server's prices; not in streams.",
    "x-session-id": "The ID of the request's session, if it names one.",
    REPLAYED_HEADER: "`true` if the response is a stored one, by `Idempotency-Key`.",
    "retry-after": "The number of seconds after which to retry, if a retry may succeed.",
    "allow": "The methods that the path supports.",
    "accept-encoding": "The supported content encodings of request bodies.",
    "www-authenticate": "`Bearer`: send an API key in the header `Authorization`.",
}

RATE_LIMIT_HEADERS = tuple(
    f"x-ratelimit-{value}-{unit}"
    for unit in ("requests", "tokens")
    for value in ("limit", "remaining", "reset")
)
HEADERS |= dict.fromkeys(
    RATE_LIMIT_HEADERS,
    "The limit of the API key, if it has one, what remains of it, or the time until it resets, as "
    "in OpenAI's API.",
)

SESSION_HEADERS = tuple(
    f"x-session-{unit}-remaining" for unit in ("thinking", "tokens", "cost", "requests")
)
HEADERS |= dict.fromkeys(
    SESSION_HEADERS,
    "What the session had left of its limit, if it has one, before this request.",
)
HEADERS["x-should-retry"] = "`false` if a retry cannot succeed."

ERROR_HEADERS = {
    401: ("www-authenticate",),
    405: ("allow",),
    415: ("accept-encoding",),
    409: ("retry-after",),
    429: (
        "retry-after",
        "x-should-retry",
        *RATE_LIMIT_HEADERS,
        "x-session-id",
        *SESSION_HEADERS,
    ),
    503: ("retry-after",),
}
"""The headers of error responses, by status."""

GENERATION_HEADERS = (
    "x-budget-tier",
    "x-model",
    "x-cost",
    "x-ignored-fields",
    "x-max-tokens",
    REPLAYED_HEADER,
    *RATE_LIMIT_HEADERS,
    "x-session-id",
    *SESSION_HEADERS,
)

REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "An ID for the request, which the response repeats. Characters other than "
    "letters, digits and `._:-` are removed, and at most 128 are kept.",
    "schema": {"type": "string"},
}
TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "The timeout of the request in seconds, at most the server's "
    "`limits.max_request_seconds`.",
    "schema": {"type": "number", "minimum": MIN_REQUEST_SECONDS},
}
EVENT_NAMES = {
    "name": NAMES_HEADER,
    "in": "header",
    "description": "Whether the events of a stream have names, for clients that cannot set the "
    "field `event_names`, which takes precedence.",
    "schema": {"type": "string", "enum": [*FLAGS]},
}
SESSION = {
    "name": ID_HEADER,
    "in": "header",
    "description": "The session that the request belongs to, as the field `session.id`. The "
    "headers in which Claude Code and Codex send their sessions are read too.",
    "schema": {"type": "string", "pattern": SESSION_ID},
}


def _limit_schema(name: str) -> dict[str, Any]:
    """Return the schema of one of the limits of a session, without that of null."""
    schema: dict[str, Any] = TypeAdapter(SessionFields).json_schema()["properties"][name]
    return next(each for each in schema["anyOf"] if each["type"] != "null")


SESSION_LIMITS = [
    {
        "name": header,
        "in": "header",
        "description": f"A limit of the session, as the field `session.{name}`.",
        "schema": _limit_schema(name),
    }
    for name, header in LIMIT_HEADERS.items()
]
IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "A unique key for the request, chosen by the client. If a request is repeated "
    "with the same key and body, the server returns the stored response, for as long as the "
    "server stores it.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: a method of a path.

    Attributes:
        id: the name of the operation in generated client code.
        summary: a one-line description.
        request: the request model, or None if requests have no body.
        example: a body that can be sent as it is, but for the model; None if there is no such body.
        response: the response model, or None for metrics.
        chunk: the model of the data of each event of a stream of chunks, if there are any.
        events: the models of the data of a stream's events, by the events' names.
        error: the model of an error.
        errors: the possible errors.
        headers: the headers of a successful response, in addition to `x-request-id`.
        access: what the operation requires of a request.
    """

    id: str
    summary: str
    request: type | None = None
    example: Mapping[str, Any] | None = None
    response: type | None = None
    chunk: type | None = None
    events: Mapping[str, type] = field(default_factory=dict)
    error: type = responses.Error
    errors: Sequence[type[ApiError]] = COMMON_ERRORS
    headers: Sequence[str] = ()
    access: Access = Access.USER

    def to_route(self, authenticator: Authenticator) -> dict[str, Any]:
        """Return the arguments of `FastAPI.add_api_route` for a route of this operation."""
        return {
            "dependencies": [Security(authenticator.authorize, scopes=[self.access.value])],
            "operation_id": self.id,
            "summary": self.summary,
            "description": f"{self.summary}.",
            "response_model": None,
            "response_class": Response,
            "responses": {200: self._success(), **_error_responses(self.errors, self.error)},
            "openapi_extra": self._request_extra(),
        }

    def _request_extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"parameters": [REQUEST_ID]}
        if self.request is not None:
            extra["requestBody"] = {
                "description": BODY_DESCRIPTION,
                "required": True,
                "content": _content(self.request),
            }
        if DeadlineExceeded in self.errors:
            extra["parameters"] = [REQUEST_ID, TIMEOUT]
        if self.chunk is not None:
            extra["parameters"] += [EVENT_NAMES]
        if IdempotencyConflict in self.errors:
            extra["parameters"] += [IDEMPOTENCY_KEY, SESSION, *SESSION_LIMITS]
        return extra

    def _success(self) -> dict[str, Any]:
        headers = _headers("x-request-id", *self.headers)
        if self.response is None:
            content = {kind: {"schema": {"type": "string"}} for kind in METRICS_MEDIA_TYPES}
            return {"description": self.summary, "content": content, "headers": headers}
        content = _content(self.response)
        if self.chunk is not None:
            content[EVENT_STREAM] = {"schema": _chunk_schema(self.chunk)}
        if self.events:
            content[EVENT_STREAM] = {"schema": _event_schema(self.events)}
        return {"description": getdoc(self.response), "content": content, "headers": headers}


CHAT = Operation(
    "createChatCompletion",
    "Create a chat completion with a thinking budget",
    request=ChatRequest,
    example=examples.CHAT,
    response=responses.ChatCompletion,
    chunk=responses.ChatCompletionChunk,
    errors=GENERATION_ERRORS,
    headers=GENERATION_HEADERS,
)
COMPLETIONS = Operation(
    "createCompletion",
    "Create a text completion, with a thinking budget if the prompt opens a thinking block",
    request=CompletionRequest,
    example=examples.COMPLETION,
    response=responses.TextCompletion,
    chunk=responses.TextCompletionChunk,
    errors=GENERATION_ERRORS,
    headers=GENERATION_HEADERS,
)
MESSAGES = Operation(
    "createMessage",
    "Create a message with a thinking budget, in the format of Anthropic's API",
    request=MessagesRequest,
    example=examples.ANTHROPIC_MESSAGE,
    response=anthropic.MessageResponse,
    events=anthropic.EVENTS,
    error=anthropic.MessagesError,
    errors=GENERATION_ERRORS,
    headers=GENERATION_HEADERS,
)
RESPONSES = Operation(
    "createResponse",
    "Create a response with a thinking budget, in the format of OpenAI's Responses API",
    request=ResponsesRequest,
    example=examples.RESPONSE,
    response=openai_responses.ResponseObject,
    events=EVENTS,
    errors=GENERATION_ERRORS,
    headers=GENERATION_HEADERS,
)
RESPONSE_ERRORS = (*KEY_ERRORS, NotFound)
GET_RESPONSE = Operation(
    "retrieveResponse",
    "Get a stored response, or resume its stream if it is generated in the background",
    response=openai_responses.ResponseObject,
    events=EVENTS,
    errors=RESPONSE_ERRORS,
)
DELETE_RESPONSE = Operation(
    "deleteResponse",
    "Delete a stored response; if it is being generated, it is cancelled",
    response=openai_responses.DeletedResponse,
    errors=RESPONSE_ERRORS,
)
CANCEL_RESPONSE = Operation(
    "cancelResponse",
    "Cancel a response that is generated in the background",
    response=openai_responses.ResponseObject,
    errors=RESPONSE_ERRORS,
)
RESPONSE_ITEMS = Operation(
    "listResponseItems",
    "List the items of the conversation before a stored response",
    response=openai_responses.ItemList,
    errors=RESPONSE_ERRORS,
)
COUNT_TOKENS = Operation(
    "countMessageTokens",
    "Count the tokens of a prompt, in the format of Anthropic's API",
    request=CountTokensRequest,
    example=examples.COUNT_TOKENS,
    response=anthropic.TokenCount,
    error=anthropic.MessagesError,
    errors=BODY_ERRORS,
    headers=("x-ignored-fields",),
)
ROUTE = Operation(
    "route",
    "Explain the thinking budget that a chat request would get, without generating",
    request=ChatRequest,
    example=examples.ROUTE,
    response=responses.RouteReport,
    errors=(*BODY_ERRORS, Overloaded, DeadlineExceeded),
    headers=("x-ignored-fields",),
)
FEEDBACK = Operation(
    "giveFeedback",
    "Record in the ledger how correct an answer was",
    request=FeedbackRequest,
    response=responses.Feedback,
    errors=(*KEY_ERRORS, Forbidden, NotFound, BodyTooLarge, UnsupportedEncoding),
)
GET_SESSION = Operation(
    "retrieveSession",
    "Get what a session has used, and what is left of its limits",
    response=responses.SessionCard,
    errors=(*KEY_ERRORS, Forbidden, NotFound),
)
TOKENIZE = Operation(
    "tokenize",
    "Convert a prompt or messages to token IDs",
    request=TokenizeRequest,
    example=examples.TOKENIZE,
    response=responses.Tokenized,
    errors=BODY_ERRORS,
    headers=("x-ignored-fields",),
)
DETOKENIZE = Operation(
    "detokenize",
    "Convert token IDs to text",
    request=DetokenizeRequest,
    example=examples.DETOKENIZE,
    response=responses.Detokenized,
    errors=BODY_ERRORS,
)
TOKENIZER_INFO = Operation(
    "tokenizerInfo",
    "Get the tokenizer's configuration, including its chat template",
    response=responses.TokenizerInfo,
    errors=KEY_ERRORS,
)
LIST_MODELS = Operation(
    "listModels",
    "List the model that is served, under each of its names",
    response=responses.ModelList,
    errors=KEY_ERRORS,
)
GET_MODEL = Operation(
    "retrieveModel",
    "Get the model under one of its names",
    response=responses.ModelCard,
    errors=(*KEY_ERRORS, UnknownModel),
)
LIST_TIERS = Operation(
    "listTiers",
    "List the tiers, the named thinking budgets that requests can use",
    response=responses.TierList,
    errors=(*COMMON_ERRORS, UnknownModel, Unavailable),
    access=Access.PUBLIC,
)
HEALTH = Operation(
    "health",
    "Check whether the process runs (liveness)",
    response=responses.Health,
    access=Access.PUBLIC,
)
READY = Operation(
    "ready",
    "Check whether the engine can generate (readiness)",
    response=responses.Ready,
    errors=(*COMMON_ERRORS, Unavailable),
    access=Access.PUBLIC,
)
VERSION = Operation(
    "version", "Get the version of the server", response=responses.Version, access=Access.PUBLIC
)
LOAD = Operation(
    "load",
    "Get the number of requests that are running or waiting",
    response=responses.ServerLoad,
    errors=KEY_ERRORS,
)
METRICS = Operation(
    "metrics",
    "Get metrics in the format of Prometheus or OpenMetrics",
    errors=(*KEY_ERRORS, Forbidden),
    access=Access.ADMIN,
)


EXAMPLES = {
    operation.id: operation.example
    for operation in (
        CHAT,
        COMPLETIONS,
        MESSAGES,
        RESPONSES,
        COUNT_TOKENS,
        ROUTE,
        TOKENIZE,
        DETOKENIZE,
    )
}
"""Examples of bodies, by the ids of their operations."""


def custom_openapi(
    app: FastAPI, settings: Settings, supervisor: EngineSupervisor
) -> Callable[[], dict[str, Any]]:
    """Return the function for `app.openapi`, which builds the document of this server lazily."""

    @cache
    def build(model: str, vocabulary_size: int | None) -> dict[str, Any]:
        schema = _specialize(document(app), settings, vocabulary_size)
        examples.add_examples(schema, EXAMPLES, model)
        return schema

    def openapi() -> dict[str, Any]:
        if supervisor.up:
            engine = supervisor.engine
            app.openapi_schema = build(engine.model.name, engine.codec.vocabulary_size)
        elif app.openapi_schema is None:
            app.openapi_schema = build(settings.model_name, None)
        return app.openapi_schema

    return openapi


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of any server, which does not depend on its settings and model."""
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema["components"] = {"schemas": deepcopy(_schemas()[1])}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # an invalid request is a 400 here
    return schema


def _specialize(
    schema: dict[str, Any], settings: Settings, vocabulary_size: int | None
) -> dict[str, Any]:
    """Restrict the document to what this server's settings and its model allow."""
    schemas = schema["components"]["schemas"]
    all_tiers = [
        *settings.tiers,
        *(tier for model in settings.models for tier in model.tiers or ()),
    ]
    tiers = [*dict.fromkeys(tier.name for tier in all_tiers)]
    for model in (ChatRequest, CompletionRequest, MessagesRequest, ResponsesRequest):
        names = tiers if model is CompletionRequest else [*tiers, AUTO]
        fields = schemas[model.__name__]["properties"]
        fields["budget_tier"]["anyOf"][0] = {"type": "string", "enum": names}
        if "n" in fields:
            fields["n"]["anyOf"][0]["maximum"] = settings.limits.max_choices
    if vocabulary_size is not None and not settings.models:
        tokens = schemas[DetokenizeRequest.__name__]["properties"]["tokens"]
        tokens["items"] |= {"maximum": vocabulary_size - 1}
        tokens["items"].pop("exclusiveMaximum", None)
    if not caches_responses(settings.ledger):
        for path in schema["paths"].values():
            for operation in path.values():
                parameters = operation.get("parameters", [])
                operation["parameters"] = [each for each in parameters if each["name"] != HEADER]
    return schema


@cache
def _schemas() -> tuple[dict[type, dict[str, Any]], dict[str, Any]]:
    """Return a reference to the schema of each class, and the definitions they refer to."""
    models: list[type] = [
        ChatRequest,
        CompletionRequest,
        TokenizeRequest,
        DetokenizeRequest,
        FeedbackRequest,
        MessagesRequest,
        CountTokensRequest,
        ResponsesRequest,
    ]
    models += [
        responses.ChatCompletion,
        responses.ChatCompletionChunk,
        responses.Detokenized,
        responses.Feedback,
        responses.Error,
        responses.Health,
        responses.ModelCard,
        responses.ModelList,
        responses.Ready,
        responses.RouteReport,
        responses.SessionCard,
        responses.TextCompletion,
        responses.TextCompletionChunk,
        responses.TierList,
        responses.Tokenized,
        responses.TokenizerInfo,
        responses.Version,
        responses.ServerLoad,
        anthropic.MessageResponse,
        anthropic.TokenCount,
        anthropic.MessagesError,
        *anthropic.EVENTS.values(),
        openai_responses.ResponseObject,
        openai_responses.DeletedResponse,
        openai_responses.ItemList,
        *EVENTS.values(),
    ]
    models = [*dict.fromkeys(models)]
    references, schema = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models],
        ref_template="#/components/schemas/{model}",
    )
    return {model: references[model, "validation"] for model in models}, schema["$defs"]


def _content(model: type) -> dict[str, Any]:
    return {JSON: {"schema": _schemas()[0][model]}}


def _chunk_schema(chunk: type) -> dict[str, Any]:
    """Return the schema of each event with a chunk, in the way of OpenAPI versions before 3.2."""
    data = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"anyOf": [_schemas()[0][chunk], _schemas()[0][responses.Error]]},
    }
    # In browsers and other SSE clients, an event without a name has the type `message`.
    names = [*(channel.value for channel in Channel), "message", "error"]
    name = {"type": "string", "enum": names}
    return {
        "type": "object",
        "description": (
            "A server-sent event. Its data is a chunk, or `[DONE]` in the last event of the "
            "stream. Events with generated text or tool calls are named after their channel, "
            "`reasoning` or `answer`. Other chunks have no name: those before and after the text "
            "of a choice, the progress of hidden thinking, and the usage. An error is an event "
            "named `error`, and ends the stream. If `event_names` is false, no event has a name."
        ),
        "properties": {"event": name, "data": {"anyOf": [{"const": "[DONE]"}, data]}},
        "required": ["data"],
    }


def _event_schema(events: Mapping[str, type]) -> dict[str, Any]:
    """Return the schema of each event that has a name."""
    models = [_schemas()[0][model] for model in events.values()]
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": models}}
    return {
        "type": "object",
        "description": "A server-sent event, whose name is the `type` in its data. An error is the "
        "event `error` or `response.failed`, and ends the stream.",
        "properties": {"event": {"type": "string", "enum": [*events]}, "data": data},
        "required": ["event", "data"],
    }


def _error_responses(
    errors: Sequence[type[ApiError]], model: type
) -> dict[int | str, dict[str, Any]]:
    described: dict[int | str, dict[str, Any]] = {}
    for error in sorted(errors, key=lambda error: error.status):
        headers = ERROR_HEADERS.get(error.status, ())
        described[error.status] = {
            "description": getdoc(error),
            "content": _content(model),
            "headers": _headers("x-request-id", *headers),
        }
    return described


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}
