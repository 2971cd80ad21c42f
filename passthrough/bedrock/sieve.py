"""Keep a few top-level members of a JSON object of any size, holding next to nothing of the rest.

Answers carry their usage as a top-level member that may stand anywhere: before, after or between megabytes of
text, embeddings or base64 images. The sieve takes the object as it streams by and hands out a small object with
the wanted members alone. It follows the structure (strings, escapes, nesting), so that a `"usage"` inside a
text is never mistaken for one; it does not validate: what is no JSON object gives no or fewer members.

The scanning is done by compiled patterns that cross a whole string or a run of numbers in one step.
"""

import re
from collections.abc import Collection

MAX_KEPT_BYTES = 64 * 1024  # all wanted members together; a usage object has about 300 bytes
_MAX_NAME_BYTES = 128

_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NESTED_REST = re.compile(rb'[^"{}\[\]]*+')
_TOP_REST = re.compile(rb'[^"{}\[\],:]*+')
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")
_OPEN_OBJECT = b"{"[0]


class Sieve:
    """Takes an object with `feed`; `object()` is what was kept of it, `closed` whether it came to its end.

    `missed` is True when a wanted member was too large to be kept.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(name.encode() for name in wanted)
        self._kept: dict[bytes, bytes] = {}
        self._depth = 0  # 1 inside the object itself
        self._in_string = False
        self._escaped = False  # a chunk ended with a backslash inside a string
        self._naming = False  # at depth 1, before a colon: the next string is a name
        self._name = bytearray()
        self._value: bytearray | None = None  # the wanted member's value so far
        self._room = MAX_KEPT_BYTES
        self.closed = False
        self.missed = False

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and not self.closed:
            if self._in_string:
                stop = self._cross_string(data, at, end)
            else:
                rest = _TOP_REST if self._depth == 1 else _NESTED_REST
                match = rest.match(data, at)
                stop = match.end() if match else at
                self._keep(data, at, stop)
                if stop < end:
                    self._structure(data, stop)
                    stop += 1
            at = stop

    def object(self) -> bytes:
        """Return the wanted members that came whole, as a JSON object."""
        return b"{" + b",".join(b'"%b":%b' % member for member in self._kept.items()) + b"}"

    def _cross_string(self, data: bytes, at: int, end: int) -> int:
        """Go on behind the closing quote, or to the end of the chunk."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        match = _STRING_REST.match(data, at)
        at = match.end() if match else at
        if at < end and data[at] == _BACKSLASH:  # the pattern stops here only when nothing follows it
            self._escaped = True
            at += 1
        elif at < end:
            self._in_string = False
            at += 1
        self._keep(data, start, at)
        return at

    def _structure(self, data: bytes, at: int) -> None:
        byte = data[at]
        if self._depth == 1 and self._at_top(byte):
            return
        self._keep(data, at, at + 1)
        if byte == _QUOTE:
            self._in_string = True
        elif byte in _OPENING:
            self._depth += 1
            if self._depth == 1:
                self._naming = byte == _OPEN_OBJECT
                self.closed = not self._naming
        elif byte in _CLOSING:
            self._depth -= 1

    def _at_top(self, byte: int) -> bool:
        """Deal with what separates members; False when the byte belongs to a value or a name."""
        if byte == _COLON:
            self._naming = False
            name = bytes(self._name).strip().strip(b'"')
            self._value = bytearray() if name in self._wanted else None
            self._name[:] = name
        elif byte == _COMMA:
            self._end_member()
        elif byte in _CLOSING:
            self._end_member()
            self.closed = True
        else:
            return False
        return True

    def _end_member(self) -> None:
        if self._value is not None:
            self._kept[bytes(self._name)] = bytes(self._value)
            self._room -= len(self._value)
        self._value = None
        self._name.clear()
        self._naming = True

    def _keep(self, data: bytes, start: int, stop: int) -> None:
        if self._naming:
            if len(self._name) < _MAX_NAME_BYTES:
                self._name += data[start : min(stop, start + _MAX_NAME_BYTES)]
        elif self._value is not None:
            if len(self._value) + stop - start > self._room:
                self._value = None
                self.missed = True
            else:
                self._value += data[start:stop]
