"""Every way in which a call ends other than well, and whose it was.

    Exception
    ├── Refusal            we say no: bad key, not allowed, over a limit, too large
    │   └── Unavailable    we would, but cannot now: no credentials, database or upstream out of reach
    ├── UpstreamFailure    they failed: cut, garbage, no answer in time
    ├── ClientGone         nobody is listening any more
    └── UserError          a mistake on the command line or in the settings: one sentence, no traceback

A `Refusal` is a value too: it knows the HTTP status and the AWS exception code with which it is
answered (protocol: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html and the
error shapes of botocore's service models).
"""

from collections.abc import Mapping

RETRY_SECONDS = "2"  # longer than the SDKs' own first waits: what is away is back in seconds, or in minutes


class Refusal(Exception):  # noqa: N818  # it is a decision, not an error of ours
    """We decline the call.

    `status` is the HTTP status, `code` the AWS exception name, `message` one sentence for the user;
    `headers` are added to the answer (`Retry-After`, `RateLimit`, …); `param` names the offending field
    in the admin API's error shape.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers: Mapping[str, str] = headers or {}
        self.param = param


class Unavailable(Refusal):
    """We would serve the call but cannot at the moment: 503 `ServiceUnavailableException`, with a `Retry-After`.

    `cause` is for the log alone; the answer never carries it.
    """

    def __init__(self, message: str, *, cause: str = "") -> None:
        super().__init__(503, "ServiceUnavailableException", message, headers={"Retry-After": RETRY_SECONDS})
        self.cause = cause or message


class UpstreamFailure(Exception):  # noqa: N818  # named for whose it is
    """The upstream failed us after it was reached: it cut, stalled or sent what is not HTTP."""


class ClientGone(Exception):  # noqa: N818  # named for whose it is
    """The client closed its connection before the answer was complete."""


class UserError(Exception):
    """A mistake of the person at the command line: the message is one sentence that says what to do."""


def alone(error: BaseException) -> BaseException:
    """Return the one exception that groups of one stand around, as task groups put them; else what was given."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def unauthenticated(message: str) -> Refusal:
    return Refusal(401, "UnrecognizedClientException", message)


def forbidden(message: str) -> Refusal:
    return Refusal(403, "AccessDeniedException", message)


def invalid(message: str, *, param: str | None = None) -> Refusal:
    return Refusal(400, "ValidationException", message, param=param)


def too_large(message: str) -> Refusal:
    return Refusal(413, "ValidationException", message)
