"""What goes over the wire, piece by piece, and how it ends: an answer and its faults made into a script.

Pure: `server` plays it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from passthrough.bedrock.eventstream import exception_frame
from passthrough.sandbox.exchange import EVENT_STREAM, Answer, Streamed
from passthrough.sandbox.faults import Plan
from passthrough.sandbox.frames import error_frame, sse

GARBAGE = b"\x00\xffthis is no event stream, no server-sent event and no JSON\xff\x00"
_CHECKSUM_BYTES = 4

Ending = Literal["end", "close", "reset", "stall"]


@dataclass(frozen=True, slots=True)
class Script:
    """`length` is what Content-Length says, None for a chunked body.

    `ending` comes after the last piece: the body's proper end, or the connection closed or reset without it, or
    silence first (`stall`), then closed.
    """

    pieces: Sequence[bytes]
    length: int | None
    ending: Ending = "end"


def write(answer: Answer | Streamed, plan: Plan) -> Script:
    """The script of an answer, faults and all."""
    if isinstance(answer, Answer):
        script = _whole(answer.body, plan)
    else:
        script = _stream(list(answer.pieces), plan, answer.content_type)
    size = plan.split_bytes
    if size is None:
        return script
    joined = b"".join(script.pieces)
    pieces = [joined[at : at + size] for at in range(0, len(joined), size)]
    return Script(pieces, script.length, script.ending)


def _whole(body: bytes, plan: Plan) -> Script:
    half = body[: len(body) // 2]
    if plan.has("clean-cut"):
        return Script([half], len(half))
    if plan.has("garbage"):
        spoilt = half + GARBAGE
        return Script([spoilt], len(spoilt))
    if plan.has("no-terminator"):
        return Script([body], len(body) + 1, "close")
    ending = _ending(plan)
    return Script([body] if ending == "end" else [half], len(body), ending)


def _stream(pieces: list[bytes], plan: Plan, content_type: str) -> Script:
    middle = len(pieces) // 2
    first_half = pieces[:middle]
    if plan.has("exception") or plan.has("error"):
        return Script([*first_half, _trouble(plan, content_type)], None)
    if plan.has("clean-cut"):
        return Script(first_half, None)
    if plan.has("garbage"):
        return Script([*first_half, GARBAGE], None)
    if plan.has("bad-checksum"):
        return Script([*first_half, _flipped(pieces[middle]), *pieces[middle + 1 :]], None)
    if plan.has("cut-mid-frame"):
        return Script([*first_half, pieces[middle][: len(pieces[middle]) // 2]], None, "close")
    if plan.has("no-terminator"):
        return Script(pieces, None, "close")
    ending = _ending(plan)
    return Script(pieces if ending == "end" else first_half, None, ending)


def _ending(plan: Plan) -> Ending:
    if plan.has("stall"):
        return "stall"
    if plan.has("reset"):
        return "reset"
    return "close" if plan.has("cut") or plan.has("cut-mid-frame") else "end"


def _trouble(plan: Plan, content_type: str) -> bytes:
    """An exception or error inside the stream, in the framing of the stream."""
    message = "The sandbox was asked to fail here."
    if content_type != EVENT_STREAM:
        error = {"type": "error", "error": {"type": "api_error", "message": message}}
        return sse(error, name="error")
    if plan.has("exception"):
        return exception_frame(plan.faults["exception"] or "internalServerException", message)
    return error_frame(plan.faults["error"] or "500", message)


def _flipped(frame: bytes) -> bytes:
    """The frame with one bit of its payload changed, the checksum left as it was."""
    at = len(frame) - _CHECKSUM_BYTES - 1
    return frame[:at] + bytes((frame[at] ^ 1,)) + frame[at + 1 :]
