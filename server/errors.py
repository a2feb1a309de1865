"""The errors of the API, rendered as response bodies or as events of a stream."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from proctor.budget import BudgetError

ErrorType = Literal[
    "invalid_request_error", "rate_limit_error", "insufficient_quota", "server_error"
]
"""OpenAI's error types."""

MAX_REASON_LENGTH = 600
"""Characters of an exception's message that are shown in one line."""

CLIENT_GONE = 499
"""The status of a request whose client disconnected, as in nginx."""

SOON = {"retry-after": "5"}
"""The header of errors that clients should retry soon: the engine or the server is unavailable."""

NO_RETRY = {"x-should-retry": "false"}
"""The header of a 429 that a retry cannot help; OpenAI's and Anthropic's clients then do not."""


class ApiError(Exception):
    """Base class of the errors that clients receive, in the format of OpenAI's API.

    ```
    ApiError
    ├── BadRequest            400  invalid field, named by `param`
    │   ├── ConflictingFields 400  two fields that contradict each other
    │   ├── ContextTooLong    400  more tokens than the context length
    │   └── UnknownResponse   400  unknown `previous_response_id`
    ├── Unauthorized          401  missing or unknown API key
    ├── Forbidden             403  API key without the required permission
    │   └── OriginNotAllowed  403  web page of an origin that is not allowed
    ├── NotFound              404  unknown path or resource
    │   └── UnknownModel      404  unknown model
    ├── MethodNotAllowed      405  method that the path does not support
    ├── RequestTimeout        408  path and headers, or the body, not received in time
    ├── IdempotencyConflict   409  request with the same `Idempotency-Key` still running
    ├── BodyTooLarge          413  body over the size limit
    ├── UnsupportedEncoding   415  unknown content encoding of the body
    ├── HeadersTooLarge       431  path and headers over the size limit
    ├── RateLimited           429  requests or tokens per minute of the API key exceeded
    │   ├── QuotaExceeded     429  spending limit of the API key per day or month exceeded
    │   ├── SessionLimitExceeded  429  limit of the session exceeded
    │   └── Overloaded        429  queue full
    ├── InternalError         500  unexpected error, described in the log
    ├── Unavailable           503  engine loading, failed or dead
    └── DeadlineExceeded      504  timeout of the request or of the server exceeded
    ```

    Rendered as a JSON body with the status before a response has begun, and as a
    server-sent `error` event afterwards.

    Attributes:
        status: the HTTP status code.
        type: OpenAI's error type.
        code: OpenAI's error code, if it has one for the error.
        reason: the label of the error in metrics.
        param: the request field that caused the error.
        headers: additional headers of the response.
    """

    status: ClassVar[int]
    type: ClassVar[ErrorType] = "invalid_request_error"
    code: ClassVar[str | None] = None
    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.headers = dict(headers or {})


class BadRequest(ApiError):
    """A field is invalid."""

    status = 400
    reason = "bad_request"


class ConflictingFields(BadRequest):
    """Two fields contradict each other."""

    def __init__(self, field: str, value: str, other: str, other_value: str) -> None:
        super().__init__(
            f"'{field}' is {value}, but '{other}' is {other_value}: leave one of them out",
            param=field,
        )


class ContextTooLong(BadRequest):
    """Prompt and completion need more tokens than the context length.

    Attributes:
        context: the context length.
        prompt_tokens: the tokens of the prompt, at least, if it is too long by itself.
    """

    code = "context_length_exceeded"
    reason = "context_length"

    def __init__(
        self, context: int, details: str, *, param: str, prompt_tokens: int | None = None
    ) -> None:
        # OpenAI's wording, by which LiteLLM and others detect this error.
        message = f"This model's maximum context length is {context} tokens, {details}"
        super().__init__(message, param=param)
        self.context = context
        self.prompt_tokens = prompt_tokens


class UnknownResponse(BadRequest):
    """The response that a request continues does not exist, or has expired."""

    code = "previous_response_not_found"


class Unauthorized(ApiError):
    """The API key is missing or unknown."""

    status = 401
    code = "invalid_api_key"
    reason = "key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": "Bearer"})


class Forbidden(ApiError):
    """The API key lacks the required permission."""

    status = 403
    code = "insufficient_permissions"
    reason = "forbidden"


class OriginNotAllowed(Forbidden):
    """The request comes from a web page whose origin is not allowed."""

    code = "origin_not_allowed"
    reason = "origin"


class NotFound(ApiError):
    """The path, or the resource that the request names, does not exist."""

    status = 404
    reason = "not_found"


class UnknownModel(NotFound):
    """The model does not exist."""

    code = "model_not_found"
    reason = "unknown_model"


class MethodNotAllowed(ApiError):
    """The path does not support the method."""

    status = 405
    reason = "method"


class RequestTimeout(ApiError):
    """Path and headers, or the body, were not received in time."""

    status = 408
    reason = "request_timeout"


class IdempotencyConflict(ApiError):
    """A request with the same `Idempotency-Key` is still running."""

    status = 409
    code = "idempotency_key_in_use"
    reason = "in_use"


class BodyTooLarge(ApiError):
    """The body exceeds the size limit."""

    status = 413
    reason = "body_too_large"


class UnsupportedEncoding(ApiError):
    """The `Content-Encoding` of the body is not supported."""

    status = 415
    reason = "encoding"


class HeadersTooLarge(ApiError):
    """Path and headers exceed the size limit."""

    status = 431
    reason = "head_too_large"


class RateLimited(ApiError):
    """The API key's requests or tokens per minute are exceeded."""

    status = 429
    type: ClassVar[ErrorType] = "rate_limit_error"
    code = "rate_limit_exceeded"
    reason = "rate"


class QuotaExceeded(RateLimited):
    """The API key's spending limit per day or month is exceeded."""

    type: ClassVar[ErrorType] = "insufficient_quota"
    code = "insufficient_quota"
    reason = "quota"


class SessionLimitExceeded(RateLimited):
    """A limit of the session is exceeded.

    Attributes:
        limit: which one, a closed set of labels in metrics.
    """

    code = "session_limit_exceeded"
    reason = "session"

    def __init__(
        self, limit: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, headers=headers)
        self.limit = limit


class Overloaded(RateLimited):
    """The queue of requests waiting for the engine is full."""

    reason = "overloaded"


class InternalError(ApiError):
    """An unexpected error."""

    status = 500
    type: ClassVar[ErrorType] = "server_error"
    reason = "internal"


class Unavailable(ApiError):
    """The engine is loading, has failed, or has died."""

    status = 503
    type: ClassVar[ErrorType] = "server_error"
    reason = "unavailable"


class DeadlineExceeded(ApiError):
    """The timeout of the request, or the server's own, is exceeded."""

    status = 504
    type: ClassVar[ErrorType] = "server_error"
    code = "timeout"
    reason = "deadline"


def as_api_error(error: Exception) -> ApiError:
    """Convert any exception to the error that a client receives.

    The messages of unexpected exceptions are not sent to clients.
    """
    match error:
        case ApiError():
            return error
        case BudgetError() | UnsupportedRequest():
            return BadRequest(str(error), param=error.param)
        case EngineUnavailable():
            return Unavailable(str(error), headers=SOON)
        case _:
            return InternalError("Internal server error. See the server's log for details.")


def in_one_line(error: BaseException) -> str:
    """Return what an exception says, for a message of one line: at least its type."""
    text = " ".join(str(error).split())[:MAX_REASON_LENGTH]
    if isinstance(error, ValueError | OSError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class EngineUnavailable(RuntimeError):
    """The engine is loading, has failed, or has died, as the message says."""


class UnsupportedRequest(ValueError):
    """The engine does not support the request.

    Attributes:
        param: the field that is not supported.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
