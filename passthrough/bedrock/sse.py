"""Server-sent events, as Bedrock's OpenAI- and Anthropic-shaped endpoints stream them.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html. Both vendors write each event's
data on one `data:` line, and their data names its own type, so lines are all that is looked at.
"""

MAX_LINE_BYTES = 1024 * 1024  # the Responses API repeats the whole answer in its last event


class WholeLines:
    """Takes bytes as they come and gives back those that end in a line's end, keeping the rest for later.

    `missed` is True once a line was too long to be kept.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._skipping = False  # inside a line that was too long
        self.missed = False

    @property
    def at_boundary(self) -> bool:
        return not self._held and not self._skipping

    def feed(self, data: bytes) -> bytes:
        """Return the lines that `data` completes, several or none."""
        if data.endswith(b"\n") and not self._held and not self._skipping:
            return data
        end = data.rfind(b"\n") + 1
        whole = self._completed(data[:end]) if end else b""
        self._hold(data[end:])
        return whole

    def _completed(self, data: bytes) -> bytes:
        if self._skipping:
            self._skipping = False
            return data[data.index(b"\n") + 1 :]
        whole = bytes(self._held) + data
        self._held.clear()
        return whole

    def _hold(self, rest: bytes) -> None:
        if self._skipping or len(self._held) + len(rest) > MAX_LINE_BYTES:
            self._held.clear()
            self._skipping = self.missed = True
        else:
            self._held += rest


def data_of(lines: bytes) -> list[bytes]:
    """Return the data of each `data:` line."""
    return [line[5:].strip() for line in lines.splitlines() if line.startswith(b"data:")]
