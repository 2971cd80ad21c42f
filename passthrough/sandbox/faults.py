"""How the sandbox is told to fail: by the header `x-sandbox-fault`, or by a name that contains `sandbox.FAULT`.

The header takes one fault or several: `x-sandbox-fault: delay=1.5, throttle`. Where a client cannot set a header,
an identifier does (a model, agent, knowledge base, guardrail, flow… id in the path or as `modelId`/`model` in the
body): `us.anthropic.sandbox.throttle-v1:0`, `sandbox.delay-1.5`, `sandbox.exception-modelStreamErrorException`.

Faults come after the signature was checked: who may not call gets AWS's 403, not the fault. Those of a stream
strike after half of its frames (`HALF`); a whole answer is treated as a stream of one piece.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from passthrough.errors import Refusal
from passthrough.sandbox.exchange import Asked

HEADER = "x-sandbox-fault"
MAX_WAIT_SECONDS = 120.0  # nobody leaves a sandbox hanging for longer, whatever a header says
_DEFAULT_WAIT_SECONDS = 60.0  # botocore's read timeout: a stall of this length is seen by every SDK


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table: an error to answer with, or something the server does to the connection."""

    says: str
    status: int = 0
    code: str = ""
    message: str = ""
    takes: str = ""  # what stands after the "=", in words; "" when nothing does


def _error(status: int, code: str, message: str) -> Fault:
    return Fault(f"answers {status} {code}", status, code, message)


FAULTS: Mapping[str, Fault] = {
    # answers
    "throttle": _error(429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "not-ready": _error(429, "ModelNotReadyException", "Model is not ready for inference. Wait and try again."),
    "500": _error(
        500, "InternalServerException", "The system encountered an unexpected error during processing. Try again."
    ),
    "502": _error(502, "BadGatewayException", "There was an issue with a dependency due to a server issue. Retry."),
    "503": _error(503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
    "424": _error(424, "ModelErrorException", "The model returned the following errors: sandbox."),
    "408": _error(408, "ModelTimeoutException", "Model has timed out in processing the request. Try again."),
    "403": _error(403, "AccessDeniedException", "You don't have access to the model with the specified model ID."),
    "404": _error(404, "ResourceNotFoundException", "Could not resolve the resource from the provided identifier."),
    "400": _error(400, "ValidationException", "The provided model identifier is invalid."),
    "quota": _error(400, "ServiceQuotaExceededException", "Your request exceeds the service quota for your account."),
    "html": Fault("answers 502 with an HTML page, as a load balancer does", 502),
    # time
    "delay": Fault("waits before answering", takes="seconds"),
    "pace": Fault("waits that long between two pieces of a stream instead of the usual pace", takes="seconds"),
    "stall": Fault(
        "sends half of the answer, then nothing; the connection is cut after that time", takes="seconds (60)"
    ),
    # the connection
    "close-before-answer": Fault("reads the request and closes the connection"),
    "reset-before-answer": Fault("reads the request and resets the connection"),
    "cut": Fault("closes the connection after half of the answer, between two frames"),
    "cut-mid-frame": Fault("closes the connection in the middle of a frame"),
    "reset": Fault("resets the connection after half of the answer"),
    "no-terminator": Fault("sends everything but the end of the chunked body, then closes the connection"),
    # what is sent
    "clean-cut": Fault("ends the body properly after half of the frames: a cut that only the content shows"),
    "exception": Fault("sends an exception frame after half of the frames", takes="name (internalServerException)"),
    "error": Fault("sends an error frame (`:message-type: error`) after half of the frames", takes="code (500)"),
    "garbage": Fault("sends bytes that are no event stream, no SSE and no JSON instead of the second half"),
    "bad-checksum": Fault("flips a bit in the payload of the middle frame"),
    "split": Fault("sends the body in chunks of that many bytes, across the borders of frames", takes="bytes"),
    "every-event": Fault("streams every event type that the operation's shape has, once"),
}

_NAMES = "|".join(re.escape(name) for name in sorted(FAULTS, key=len, reverse=True))
_IN_HEADER = re.compile(rf"({_NAMES})(?:=([^,\s]+))?")
_IN_IDENTIFIER = re.compile(rf"(?<![a-z0-9])sandbox\.({_NAMES})(?:[=-]([A-Za-z0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of one request, by name; the value is what stood after the "=" ("" if nothing)."""

    faults: Mapping[str, str]

    def has(self, name: str) -> bool:
        return name in self.faults

    def seconds(self, name: str, default: float) -> float:
        return _seconds(self.faults.get(name, ""), default)

    @property
    def stall_seconds(self) -> float:
        return self.seconds("stall", _DEFAULT_WAIT_SECONDS)

    @property
    def split_bytes(self) -> int | None:
        value = self.faults.get("split")
        return None if value is None else max(1, int(_seconds(value, 7)))

    def refusal(self) -> Refusal | None:
        """The error to answer with, if one of the faults is an error."""
        for name in self.faults:
            fault = FAULTS[name]
            if fault.code:
                return Refusal(fault.status, fault.code, fault.message)
        return None


NO_FAULTS = Plan({})


def plan_for(asked: Asked) -> Plan:
    """What the request asks for; an unknown name in the header is a `ValidationException` that names the faults."""
    asked_for: dict[str, str] = {}
    for named in _identifiers(asked):
        asked_for.update(_IN_IDENTIFIER.findall(named))
    header = asked.received.header(HEADER)
    for part in (header or "").split(","):
        if part.strip():
            match = _IN_HEADER.fullmatch(part.strip())
            if match is None:
                raise Refusal(
                    400,
                    "ValidationException",
                    f"{HEADER} has no fault '{part.strip()}'. Use one of: {', '.join(FAULTS)}.",
                )
            asked_for[match[1]] = match[2] or ""
    return Plan(asked_for) if asked_for else NO_FAULTS


def _identifiers(asked: Asked) -> Iterable[str]:
    yield from asked.labels.values()
    for name in ("modelId", "model", "modelArn", "foundationModel", "targetModelId"):
        value = asked.document.get(name)
        if isinstance(value, str):
            yield value


def _seconds(value: str, default: float) -> float:
    """A number from a header: nothing negative, nothing endless, the default for what is no number."""
    try:
        seconds = float(value) if value else default
    except ValueError:
        return default
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS) if seconds == seconds else default  # noqa: PLR0124  # NaN is not itself
