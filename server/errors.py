"""One tree of errors. The same body serves HTTP replies and SSE error frames.

    ApiError
    ├── BadRequest            400 invalid_request_error
    │   ├── UnsupportedParameter   code unsupported_parameter
    │   ├── ContextLengthExceeded  code context_length_exceeded
    │   ├── InvalidImage           code one of ImageCode
    │   ├── InvalidVideo           the same with `video` in place of `image`
    │   ├── InvalidFile            the same with `file`
    │   └── CrashesEngine          422, code request_crashes_engine
    ├── Unauthorized          401 authentication_error
    ├── Forbidden             403 permission_error
    ├── NotFound              404 not_found_error
    │   └── ModelNotFound          code model_not_found
    ├── MethodNotAllowed      405 invalid_request_error
    ├── RequestTimeout        408 timeout_error
    ├── BodyTooLarge          413 invalid_request_error
    ├── ContentCodingUnknown  415 invalid_request_error
    ├── HeadTooLarge          431 invalid_request_error
    ├── TransferCodingUnknown 501 invalid_request_error
    ├── RateLimited           429 rate_limit_error, retryable, with Retry-After
    ├── InternalError         500 server_error
    ├── DeadlineExceeded      504 timeout_error, not worth a retry: the time that the client gave is over
    └── Unavailable           503 server_error, retryable, with Retry-After
        ├── Overloaded             code overloaded
        │   ├── TooManyBodies          code overloaded
        │   └── TooManyConnections     code too_many_connections
        ├── EngineNotReady         code engine_not_ready
        ├── EngineDied             code engine_died
        └── Draining               code draining

Status, type and code follow the OpenAI API, so that SDKs raise the exception their users expect.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast

MAX_RETRY_AFTER_S = 60
"""OpenAI's SDKs follow Retry-After up to a minute; a longer wait they take for no advice at all."""

ImageCode = Literal[
    "invalid_image",
    "invalid_image_format",
    "invalid_base64_image",
    "invalid_image_url",
    "image_too_large",
    "image_too_small",
    "image_parse_error",
    "image_file_too_large",
    "unsupported_image_media_type",
    "empty_image_file",
    "failed_to_download_image",
    "image_file_not_found",
]
"""The image error codes of the OpenAI SDK's own enum."""


class ApiError(Exception):
    """An error that a client is told about."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retry_after: int | None = None
    """Seconds after which trying again makes sense; None where nothing is known of that."""
    should_retry: ClassVar[bool | None] = None
    """What SDKs are told about trying again; None leaves them to their habits, which the status decides."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code

    closes: ClassVar[bool] = False
    """Whether the connection ends with the reply, since the rest of a body would still be coming."""

    def body(self) -> dict[str, object]:
        """The OpenAI error object: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """What SDKs and balancers read to decide whether to try again; nothing where their own habits are right."""
        headers = {"connection": "close"} if self.closes else {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class UnsupportedParameter(BadRequest):
    default_code = "unsupported_parameter"


class ContextLengthExceeded(BadRequest):
    default_code = "context_length_exceeded"


def too_long(limit: int, finding: str, advice: str) -> ContextLengthExceeded:
    """The error for what does not fit into the model's context of `limit` tokens, in OpenAI's words."""
    return ContextLengthExceeded(
        f"This model's maximum context length is {limit} tokens. However, {finding}. {advice} "
        "(context_length_exceeded)",
        param="messages",
    )


def surely_too_long(limit: int, least: int) -> ContextLengthExceeded:
    """The error for texts that were not counted to their end, since `least` of their tokens are too many already."""
    return too_long(limit, f"your messages have more than {least} tokens", "Please shorten them.")


class InvalidImage(BadRequest):
    """A picture that cannot be fetched, decoded or accepted."""

    default_code = "invalid_image"

    def __init__(self, message: str, *, code: ImageCode, param: str | None = None) -> None:
        super().__init__(message, param=param, code=code)


class InvalidVideo(BadRequest):
    """A clip that cannot be fetched, decoded or accepted; codes are those of pictures, with `video` for `image`."""

    default_code = "invalid_video"


class InvalidFile(BadRequest):
    """A document that cannot be fetched, read or accepted; codes are those of pictures, with `file` for `image`."""

    default_code = "invalid_file"


class CrashesEngine(BadRequest):
    """A request that was in the engine when it died, twice; nobody shall run it a third time."""

    status = 422
    default_code = "request_crashes_engine"
    should_retry = False


MediaKind = Literal["image", "video", "file"]


def invalid_media(kind: MediaKind, message: str, *, code: ImageCode, param: str | None = None) -> BadRequest:
    """The error for a picture, clip or document, from the code that a picture would get."""
    if kind == "image":
        return InvalidImage(message, code=code, param=param)
    error = InvalidVideo if kind == "video" else InvalidFile
    return error(message, code=code.replace("image_file", "image").replace("image", kind), param=param)


def as_kind(error: BadRequest, kind: MediaKind) -> BadRequest:
    """The error of a picture, which is part of a clip or document here, as the error of that; another as it is."""
    if not isinstance(error, InvalidImage):
        return error
    code = cast("ImageCode", error.code)
    return invalid_media(kind, error.message, code=code, param=error.param)


class Unauthorized(ApiError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        """With the scheme, as RFC 9110 (11.6.1) wants it in a 401."""
        return {**super().headers(), "www-authenticate": "Bearer"}


class Forbidden(ApiError):
    status = 403
    type = "permission_error"
    default_code = "forbidden"


class NotFound(ApiError):
    status = 404
    type = "not_found_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    type = "invalid_request_error"
    default_code = "model_not_found"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeout(ApiError):
    status = 408
    type = "timeout_error"
    default_code = "request_timeout"
    closes = True


class BodyTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"
    closes = True


class ContentCodingUnknown(ApiError):
    """A body that is compressed in a way that nobody here can undo."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_content_encoding"
    closes = True


class HeadTooLarge(ApiError):
    status = 431
    type = "invalid_request_error"
    default_code = "invalid_http"
    closes = True


class TransferCodingUnknown(ApiError):
    """RFC 9112, 6.1."""

    status = 501
    type = "invalid_request_error"
    default_code = "invalid_http"
    closes = True


class RateLimited(ApiError):
    """A key has used up what it may."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retry_after = 1
    should_retry = True


class InternalError(ApiError):
    default_code = "internal_error"


class DeadlineExceeded(ApiError):
    """The time is over that the client, or the operator, gave a request."""

    status = 504
    type = "timeout_error"
    default_code = "deadline_exceeded"
    should_retry = False


class Unavailable(ApiError):
    status = 503
    default_code = "unavailable"
    retry_after = 1
    should_retry = True


class Overloaded(Unavailable):
    default_code = "overloaded"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 0.0) -> None:
        """`retry_after_s`: when there may be room, as far as that is known; the client is told whole seconds."""
        super().__init__(message, code=code)
        self.retry_after = min(MAX_RETRY_AFTER_S, max(1, math.ceil(retry_after_s)))


class TooManyBodies(Overloaded):
    """No memory for another request body."""

    default_code = "overloaded"
    closes = True


class TooManyConnections(Overloaded):
    """No room for another connection."""

    default_code = "too_many_connections"
    closes = True


class EngineNotReady(Unavailable):
    default_code = "engine_not_ready"
    retry_after = 5


class EngineDied(Unavailable):
    default_code = "engine_died"
    retry_after = 5


class Draining(Unavailable):
    default_code = "draining"

    def __init__(
        self,
        message: str = "The server is shutting down; please send the request again.",
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough to be passed on."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
