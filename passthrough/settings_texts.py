"""How the text of a setting becomes its value: each function reads one kind, or says what that kind takes.

A value that never could work is refused here, in one sentence at the start, and not by each call. What takes a look at
the machine (does the file exist, does the database answer) is for whoever uses it.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# What HTTP itself has a use for: nobody can put a key there, or no call would arrive whole.
_HTTPS_OWN = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The shape of every region of AWS's partitions: us-east-1, us-gov-west-1, eusc-de-east-1.
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+-[0-9]+")
_SEVERAL_LINES = re.compile(r"[\r\n\0]")


def text(value: str) -> str:
    if not value.strip():
        raise ValueError("a text that is not empty")
    return value


def any_text(value: str) -> str:
    return value


def secret(value: str) -> str:
    """What a client sends in a header, whose ends are stripped on the way."""
    if not value or value != value.strip() or _SEVERAL_LINES.search(value):
        raise ValueError("one line without blanks or a line end around it")
    return value


def token(value: str) -> str:
    """What we send in a header: no line may end in it."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("printable ASCII without blanks or line ends")
    return value


def header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value) or value.lower() in _HTTPS_OWN:
        raise ValueError("the name of a header that HTTP has no use for itself, such as X-Team-Key")
    return value


def region(value: str) -> str:
    if not _REGION.fullmatch(value):
        raise ValueError("a region such as us-east-1")
    return value


def host(value: str) -> str:
    try:
        value.encode("idna")  # as the socket module does
    except UnicodeError:
        value = ""
    if not value or not value.isprintable() or " " in value:
        raise ValueError("an address or a host name")
    return value


def web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # unbalanced brackets, a port that is no number
        whole = False
    if not whole or not value.isprintable() or " " in value:
        raise ValueError("an address such as https://host/path")
    return value


def folder(value: str) -> Path:
    try:
        return Path(text(value)).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # nobody's home, links in a circle, a NUL
        raise ValueError("the path of a folder") from None


def boolean(value: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in known:
        raise ValueError("true or false")
    return known[value.lower()]


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(" or ".join(allowed))
        return value.lower()

    return parse


def number(parse: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            found = parse(value)
        except ValueError:
            found = parse(-1)
        if not least <= found <= most:
            raise ValueError(f"a number from {least:.15g} to {most:.15g}")
        return found

    return read


def workers(value: str) -> float:
    if value.lower() == "auto":
        return len(os.sched_getaffinity(0))
    return number(int, 1, 256)(value)
