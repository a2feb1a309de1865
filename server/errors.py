"""What goes wrong, once, for bodies and for events alike."""

from collections.abc import Mapping
from typing import Any, ClassVar

from proctor.budget import BudgetError

SOON = {"retry-after": "5"}
"""When to try again what failed because the engine, or the server, is not there."""


class ApiError(Exception):
    """An error that a client is told about, in OpenAI's shape.

    ```
    ApiError
    ├── BadRequest            400  a field is wrong; `param` names it
    │   └── ContextTooLong    400  more tokens than the context holds
    ├── Unauthorized          401  no key, or none that is known
    ├── Forbidden             403  the key does not open this
    │   └── ForeignPage       403  a web page that the operator has not allowed
    ├── NotFound              404  no such path
    │   └── UnknownModel      404  no such model
    ├── MethodNotAllowed      405  a path that takes other methods
    ├── RequestTimeout        408  path and headers, or the body, did not come in time
    ├── InUse                 409  a request of the same `Idempotency-Key` is running
    ├── BodyTooLarge          413  more bytes than the limit
    ├── UnsupportedEncoding   415  a body in an encoding that is not known
    ├── HeadTooLarge          431  more bytes of path and headers than the limit
    ├── RateLimited           429  the key's requests or tokens of this minute are used up
    │   ├── QuotaExceeded     429  the key's money of this day or month is spent
    │   └── Overloaded        429  too many requests are waiting
    ├── InternalError         500  a fault of ours; the log has it
    ├── Unavailable           503  the engine cannot answer, now or any more
    └── DeadlineExceeded      504  the time that was given is over
    ```

    Before a response has begun it is drawn as a JSON body with its status,
    afterwards as a server-sent `error` event.

    Attributes:
        status: the HTTP status.
        type: OpenAI's class of error.
        code: OpenAI's code, where it has one.
        reason: the label under which metrics count it.
        param: the request's field at fault.
        headers: what the response carries besides.
    """

    status: ClassVar[int]
    type: ClassVar[str] = "invalid_request_error"
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

    def to_json(self) -> dict[str, Any]:
        """OpenAI's error object, in its envelope."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class BadRequest(ApiError):
    """A field is wrong."""

    status = 400
    reason = "bad_request"


class ContextTooLong(BadRequest):
    """Prompt and completion need more tokens than the context holds."""

    code = "context_length_exceeded"
    reason = "context_length"

    def __init__(self, context: int, what: str, *, param: str) -> None:
        # OpenAI's words, by which LiteLLM and others know this error from other bad requests.
        message = f"this model's maximum context length is {context} tokens, {what}"
        super().__init__(message, param=param)


class Unauthorized(ApiError):
    """The request has no key, or one that is not known."""

    status = 401
    code = "invalid_api_key"
    reason = "key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": "Bearer"})


class Forbidden(ApiError):
    """The key does not open this."""

    status = 403
    code = "insufficient_permissions"
    reason = "forbidden"


class OriginNotAllowed(Forbidden):
    """The request comes from a web page that may not use the server."""

    code = "origin_not_allowed"
    reason = "origin"


class NotFound(ApiError):
    """There is nothing at this path."""

    status = 404
    reason = "not_found"


class UnknownModel(NotFound):
    """The model named is not the one served."""

    code = "model_not_found"
    reason = "unknown_model"


class MethodNotAllowed(ApiError):
    """The path takes other methods."""

    status = 405
    reason = "method"


class RequestTimeout(ApiError):
    """Path and headers, or the body, did not come in time."""

    status = 408
    reason = "request_timeout"


class IdempotencyConflict(ApiError):
    """A request of the same `Idempotency-Key` is running."""

    status = 409
    code = "idempotency_key_in_use"
    reason = "in_use"


class BodyTooLarge(ApiError):
    """The body is over the limit of bytes."""

    status = 413
    reason = "body_too_large"


class UnsupportedEncoding(ApiError):
    """The body comes in a `Content-Encoding` that is not known."""

    status = 415
    reason = "encoding"


class HeadersTooLarge(ApiError):
    """Path and headers are over the limit of bytes."""

    status = 431
    reason = "head_too_large"


class RateLimited(ApiError):
    """The key's requests or tokens of this minute are used up."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    reason = "rate"


class QuotaExceeded(RateLimited):
    """The key's money of this day or month is spent."""

    type = "insufficient_quota"
    code = "insufficient_quota"
    reason = "quota"


class Overloaded(RateLimited):
    """Too many requests are waiting for the engine."""

    reason = "overloaded"


class InternalError(ApiError):
    """A fault of ours."""

    status = 500
    type = "server_error"
    reason = "internal"


class Unavailable(ApiError):
    """The engine is loading, has failed, or has died."""

    status = 503
    type = "server_error"
    reason = "unavailable"


class DeadlineExceeded(ApiError):
    """The time is over that the request, or the operator, has given it."""

    status = 504
    type = "server_error"
    code = "timeout"
    reason = "deadline"


def as_api_error(error: Exception) -> ApiError:
    """What to tell a client about any exception; texts of unforeseen ones are kept back."""
    match error:
        case ApiError():
            return error
        case BudgetError() | UnsupportedRequest():
            return BadRequest(str(error), param=error.param)
        case EngineUnavailable():
            return Unavailable(str(error), headers=SOON)
        case _:
            return InternalError("the server failed to answer; its log says why")


class EngineUnavailable(RuntimeError):
    """The engine is loading, has failed, or has died; the message says which."""


class UnsupportedRequest(ValueError):
    """A request that this engine cannot serve as it is.

    Attributes:
        param: the field at fault.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
