"""A pace that is kept without a timer: so many at once, then so many a second."""


class TokenBucket:
    """Starts full. `now` is in seconds of any clock that never steps back."""

    def __init__(self, *, at_once: int, a_second: float, now: float) -> None:
        self._at_once = at_once
        self._a_second = a_second
        self._room = float(at_once)
        self._at = now

    def take(self, now: float, *, leaving: int = 0) -> bool:
        """Whether there is room for one more that leaves as much as `leaving` to others; takes it then."""
        self._room = min(self._at_once, self._room + (now - self._at) * self._a_second)
        self._at = now
        if self._room < 1 + leaving:
            return False
        self._room -= 1
        return True
