"""The API's own description: `/openapi.json`.

Bodies are parsed and written by our own hands, so the framework does not know
them; each route is described here by the classes of what it takes, gives and
refuses, whose own words are the document's.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from inspect import getdoc
from typing import Any

from fastapi import FastAPI, Response, Security
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from proctor.server.api.generation.idempotency import HEADER, MAX_NAME, REPLAYED, keeps_answers
from proctor.server.auth.authenticator import Access, Authenticator
from proctor.server.config.budgets import AUTO
from proctor.server.config.limits import MIN_REQUEST_SECONDS
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
from proctor.server.generation.base import Channel
from proctor.server.generation.context import FLAGS, NAMES_HEADER, TIMEOUT_HEADER
from proctor.server.schemas import responses
from proctor.server.schemas.completions import CompletionRequest
from proctor.server.schemas.feedback import FeedbackRequest
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.tokenization import DetokenizeRequest, TokenizeRequest

JSON = "application/json"
EVENTS = "text/event-stream"
BODY = "JSON, plain or with `Content-Encoding: gzip`."
METRIC_TEXTS = ("text/plain", "application/openmetrics-text")

ALWAYS = (BadRequest, MethodNotAllowed, RequestTimeout, HeadersTooLarge, InternalError)
"""What every path refuses; the first is for what is no HTTP."""

KEYED = (*ALWAYS, Unauthorized, Unavailable)
"""What a path refuses that needs a key, where keys are asked for."""

WORK = (*KEYED, Forbidden, UnknownModel, BodyTooLarge, UnsupportedEncoding)
"""What a path refuses that takes a body."""

ANSWER = (*WORK, IdempotencyConflict, RateLimited, DeadlineExceeded)
"""What a path refuses that generates."""

HEADERS = {
    "x-request-id": "The request's own header of that name, made safe, or a fresh id.",
    "x-budget-tier": "The tier of the budget; `custom` for a budget of no tier.",
    "x-ignored-fields": "Fields of the request that were passed over, if there are any.",
    "x-cost": "What the answer cost, in the prices' currency; not in streams.",
    REPLAYED: "`true` if the answer was there already; see `Idempotency-Key`.",
    "retry-after": "Seconds after which to try again, if that is worth while.",
    "allow": "The methods that the path takes.",
    "accept-encoding": "How a body may be compressed.",
    "www-authenticate": "`Bearer`: a key goes into the header `Authorization`.",
}

LEFT = tuple(
    f"x-ratelimit-{what}-{rate}"
    for rate in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
HEADERS |= dict.fromkeys(LEFT, "What the key has left, where it has limits; as OpenAI's.")

OWN_HEADERS = {
    401: ("www-authenticate",),
    405: ("allow",),
    415: ("accept-encoding",),
    409: ("retry-after",),
    429: ("retry-after", *LEFT),
    503: ("retry-after",),
}
"""Of errors, by their status."""

REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "An id that the response repeats, as far as it is made of letters, digits and "
    "`._:-`, 128 characters at most.",
    "schema": {"type": "string"},
}
TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "Seconds that the answer may take; the server's `limits.max_request_seconds` "
    "at most.",
    "schema": {"type": "number", "minimum": MIN_REQUEST_SECONDS},
}
EVENT_NAMES = {
    "name": NAMES_HEADER,
    "in": "header",
    "description": "Whether a stream's events have names; for clients that cannot set the field "
    "`event_names`, which goes first.",
    "schema": {"type": "string", "enum": [*FLAGS]},
}
IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "A name of the client's own for this request: sent again under it, the same "
    "body gets the answer that is there, for as long as the server keeps it.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path does.

    Attributes:
        id: a name for it, in code that is made from the description.
        summary: what it does, in a line.
        takes: the body.
        gives: the response, or None where it is metrics.
        streams: the data of each event, where the response can be a stream.
        refuses: the errors that it can answer.
        headers: of the response, beside `x-request-id`.
        access: what a request needs to use it.
    """

    id: str
    summary: str
    takes: type | None = None
    gives: type | None = None
    streams: type | None = None
    refuses: Sequence[type[ApiError]] = ALWAYS
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
            "responses": {200: self._answer(), **_refusals(self.refuses)},
            "openapi_extra": self._asked(),
        }

    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"parameters": [REQUEST_ID]}
        if self.takes is not None:
            asked["requestBody"] = {
                "description": BODY,
                "required": True,
                "content": _content(self.takes),
            }
        if DeadlineExceeded in self.refuses:
            asked["parameters"] = [REQUEST_ID, TIMEOUT]
        if self.streams is not None:
            asked["parameters"] += [EVENT_NAMES, IDEMPOTENCY_KEY]
        return asked

    def _answer(self) -> dict[str, Any]:
        headers = _headers("x-request-id", *self.headers)
        if self.gives is None:
            content = {kind: {"schema": {"type": "string"}} for kind in METRIC_TEXTS}
            return {"description": self.summary, "content": content, "headers": headers}
        content = _content(self.gives)
        if self.streams is not None:
            content[EVENTS] = {"schema": _stream(self.streams)}
        return {"description": getdoc(self.gives), "content": content, "headers": headers}


CHAT = Operation(
    "createChatCompletion",
    "Answer a conversation, thinking within a budget",
    takes=ChatRequest,
    gives=responses.ChatCompletion,
    streams=responses.ChatCompletionChunk,
    refuses=ANSWER,
    headers=("x-budget-tier", "x-cost", "x-ignored-fields", REPLAYED, *LEFT),
)
COMPLETIONS = Operation(
    "createCompletion",
    "Go on from a raw prompt, thinking within a budget if it opens a thinking block",
    takes=CompletionRequest,
    gives=responses.TextCompletion,
    streams=responses.TextCompletionChunk,
    refuses=ANSWER,
    headers=("x-budget-tier", "x-cost", "x-ignored-fields", REPLAYED, *LEFT),
)
ROUTE = Operation(
    "route",
    "Tell what budget a chat request would get, and why; nothing is generated",
    takes=ChatRequest,
    gives=responses.RouteReport,
    refuses=(*WORK, Overloaded, DeadlineExceeded),
    headers=("x-ignored-fields",),
)
FEEDBACK = Operation(
    "giveFeedback",
    "Tell how right an answer was; the ledger keeps it with the request",
    takes=FeedbackRequest,
    gives=responses.Feedback,
    refuses=(*KEYED, Forbidden, NotFound, BodyTooLarge, UnsupportedEncoding),
)
TOKENIZE = Operation(
    "tokenize",
    "Turn a prompt or messages into token ids",
    takes=TokenizeRequest,
    gives=responses.Tokenized,
    refuses=WORK,
    headers=("x-ignored-fields",),
)
DETOKENIZE = Operation(
    "detokenize",
    "Turn token ids into text",
    takes=DetokenizeRequest,
    gives=responses.Detokenized,
    refuses=WORK,
)
TOKENIZER_INFO = Operation(
    "tokenizerInfo",
    "Tell what the tokenizer is set to, its chat template included",
    gives=responses.TokenizerInfo,
    refuses=KEYED,
)
LIST_MODELS = Operation(
    "listModels",
    "List the model served, under each of its names",
    gives=responses.ModelList,
    refuses=KEYED,
)
GET_MODEL = Operation(
    "retrieveModel",
    "Tell of one model",
    gives=responses.ModelCard,
    refuses=(*KEYED, UnknownModel),
)
LIST_TIERS = Operation(
    "listTiers",
    "List the budgets that a request can name, from least to most",
    gives=responses.TierList,
    access=Access.PUBLIC,
)
HEALTH = Operation(
    "health", "Tell whether the process runs", gives=responses.Health, access=Access.PUBLIC
)
READY = Operation(
    "ready",
    "Tell whether the engine can answer",
    gives=responses.Ready,
    refuses=(*ALWAYS, Unavailable),
    access=Access.PUBLIC,
)
VERSION = Operation(
    "version", "Tell the server's version", gives=responses.Version, access=Access.PUBLIC
)
LOAD = Operation(
    "load", "Tell how many requests are being answered", gives=responses.ServerLoad, refuses=KEYED
)
METRICS = Operation(
    "metrics",
    "Tell Prometheus what was counted",
    refuses=(*KEYED, Forbidden),
    access=Access.ADMIN,
)


def describe(
    app: FastAPI, settings: Settings, host: EngineSupervisor
) -> Callable[[], dict[str, Any]]:
    """A function that gives the description of this very server, made when it is asked for."""

    @cache
    def written(vocabulary: int | None) -> dict[str, Any]:
        return _narrowed(document(app), settings, vocabulary)

    def openapi() -> dict[str, Any]:
        vocabulary = host.engine.codec.vocabulary_size if host.up else None
        if app.openapi_schema is None or vocabulary is not None:
            app.openapi_schema = written(vocabulary)
        return app.openapi_schema

    return openapi


def document(app: FastAPI) -> dict[str, Any]:
    """The description of any server: what depends on settings and model, it says in words."""
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema["components"] = {"schemas": deepcopy(_schemas()[1])}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # a bad request is a 400 here
    return schema


def _narrowed(schema: dict[str, Any], settings: Settings, vocabulary: int | None) -> dict[str, Any]:
    """The same, with what this server's settings and its model allow."""
    schemas = schema["components"]["schemas"]
    tiers = [tier.name for tier in settings.tiers]
    for kind, names in ((ChatRequest, [*tiers, AUTO]), (CompletionRequest, tiers)):
        fields = schemas[kind.__name__]["properties"]
        fields["budget_tier"]["anyOf"][0] = {"type": "string", "enum": names}
        fields["n"]["anyOf"][0]["maximum"] = settings.limits.max_choices
    if vocabulary is not None:
        tokens = schemas[DetokenizeRequest.__name__]["properties"]["tokens"]
        tokens["items"] |= {"maximum": vocabulary - 1}
        tokens["items"].pop("exclusiveMaximum", None)
    if not keeps_answers(settings.ledger):
        for path in schema["paths"].values():
            for operation in path.values():
                told = operation.get("parameters", [])
                operation["parameters"] = [each for each in told if each["name"] != HEADER]
    return schema


@cache
def _schemas() -> tuple[dict[type, dict[str, Any]], dict[str, Any]]:
    """The schema of each class, as a reference, and what they refer to."""
    described: list[type] = [
        ChatRequest,
        CompletionRequest,
        TokenizeRequest,
        DetokenizeRequest,
        FeedbackRequest,
    ]
    described += [
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
        responses.TextCompletion,
        responses.TextCompletionChunk,
        responses.TierList,
        responses.Tokenized,
        responses.TokenizerInfo,
        responses.Version,
        responses.ServerLoad,
    ]
    found, schema = TypeAdapter.json_schemas(
        [(kind, "validation", TypeAdapter(kind)) for kind in described],
        ref_template="#/components/schemas/{model}",
    )
    return {kind: found[kind, "validation"] for kind in described}, schema["$defs"]


def _content(kind: type) -> dict[str, Any]:
    return {JSON: {"schema": _schemas()[0][kind]}}


def _stream(chunk: type) -> dict[str, Any]:
    """What each event is, as descriptions before OpenAPI 3.2 have it."""
    told = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"anyOf": [_schemas()[0][chunk], _schemas()[0][responses.Error]]},
    }
    # An event without a name is of the type `message`, as browsers and other readers have it.
    names = [*(channel.value for channel in Channel), "message", "error"]
    name = {"type": "string", "enum": names}
    return {
        "type": "object",
        "description": (
            "A server-sent event. Its name is its channel, `reasoning` or `answer`; a choice's "
            "last one has none, nor have the first one of a chat's choice and the one that tells "
            "what was used. Each has a chunk as its data, but the very last one, which has "
            "`[DONE]`. An error is an event of the name `error`, after which no other comes. No "
            "event has a name where `event_names` is false."
        ),
        "properties": {"event": name, "data": {"anyOf": [{"const": "[DONE]"}, told]}},
        "required": ["data"],
    }


def _refusals(errors: Sequence[type[ApiError]]) -> dict[int | str, dict[str, Any]]:
    told: dict[int | str, dict[str, Any]] = {}
    for error in sorted(errors, key=lambda error: error.status):
        own = OWN_HEADERS.get(error.status, ())
        told[error.status] = {
            "description": getdoc(error),
            "content": _content(responses.Error),
            "headers": _headers("x-request-id", *own),
        }
    return told


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}
