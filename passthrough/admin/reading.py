"""Requests read as the types that describe them; what does not fit is a 400 of one sentence that names the field."""

import functools
import operator
import re
import types
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from passthrough.admin.schemas.fields import FORMS, NOTHING, Idle
from passthrough.errors import Refusal, invalid, too_large

MOST_BODY_BYTES: Final = 1024 * 1024  # interface §5

# msgspec's sentences end in a path such as "$.models[0]"; these tell their parts
_FIELD: Final = re.compile(r" - at `(?:key` in `)?\$\.?([^`\[]*)[^`]*`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_FORM: Final = re.compile(r"Expected `str` matching regex (.*)", re.DOTALL)
_FORMS: Final = {repr(pattern): form for pattern, form in FORMS.items()}


async def read_body(request: web.Request, kind: Any) -> Any:  # of the type that is asked for
    """Read the body as `kind`, whatever its content type says; no body is an empty object."""
    if kind is None:
        return None
    if (request.content_length or 0) > MOST_BODY_BYTES:
        raise _large()
    document = bytearray()
    async for chunk in request.content.iter_any():
        document += chunk
        if len(document) > MOST_BODY_BYTES:
            raise _large()
    return decoded(bytes(document) if document.strip() else b"{}", kind)


def decoded(document: bytes, kind: Any) -> Any:  # as above
    """Read JSON as `kind`."""
    try:
        if b"\\u0000" in document:
            _refuse_nul(msgspec.json.decode(document))
        return msgspec.json.decode(document, type=kind, dec_hook=_read_idle)
    except msgspec.ValidationError as error:
        raise _as_refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("The body is not JSON in UTF-8 that we can read: send an object.") from None


def read_query(request: web.Request, kind: Any) -> Any:  # as above
    """Read the query as `kind`; None is an endpoint that has no parameters."""
    given = request.query
    if len(set(given)) != len(given):
        raise invalid("The query names a parameter twice: name it once.")
    if kind is None:
        for name in given:
            raise invalid(f"There is no parameter '{name[:200]}' here: leave it out.", param=name[:200])
        return None
    kinds = _parameters(kind)
    values = {name: _parameter(name, text, kinds.get(name, str)) for name, text in given.items()}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _as_refusal(str(error)) from None


@functools.cache
def _parameters(kind: Any) -> Mapping[str, Any]:
    """The types of a query's parameters. There is no null in a query: `null` is a text there."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: functools.reduce(operator.or_, _alternatives(hint)) for name, hint in hints.items()}


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) not in {types.UnionType, Union}:
        return [hint]
    return [part for part in get_args(hint) if part is not type(None)]


def _parameter(name: str, text: str, kind: Any) -> Any:
    if "\x00" in text:  # PostgreSQL cannot keep, and so not compare it
        raise invalid(f"The parameter '{name[:200]}' holds a NUL character: leave it out.", param=name[:200])
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _as_refusal(f"{error} - at `$.{name}`") from None


def _as_refusal(problem: str) -> Refusal:
    """Turn msgspec's sentence into one that names the field."""
    place = _FIELD.search(problem)
    outer = place[1] if place else ""
    what = problem[: place.start()] if place else problem
    for pattern, sentence in (
        (_UNKNOWN, "There is no field '{}' here: leave it out."),
        (_MISSING, "The field '{}' is missing."),
    ):
        if found := pattern.fullmatch(what):
            name = ".".join(filter(None, (outer, found[1])))[:200]
            return invalid(sentence.format(name), param=name)
    if form := _FORM.fullmatch(what):
        what = f"Expected {_FORMS.get(form[1], 'another form')}"
    if not outer:
        return invalid(f"The request does not fit: {what}.")
    return invalid(f"The field '{outer}' does not fit: {what[:1].lower()}{what[1:]}.", param=outer)


def _read_idle(kind: type, value: Any) -> Any:
    if kind is Idle and any(value == nothing and type(value) is type(nothing) for nothing in NOTHING):
        return Idle()
    raise ValueError("passthrough does not act on it, so it may only be null, empty or false")


def _refuse_nul(value: Any) -> None:
    """PostgreSQL cannot keep a NUL character, in no text and in no JSON."""
    for name, part in value.items() if isinstance(value, dict) else ():
        if _holds_nul(part) or _holds_nul(name):
            shown = name.replace("\x00", "")[:200]
            raise invalid(f"The field '{shown}' holds a NUL character: leave it out.", param=shown)


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\x00" in value
        case list():
            return any(map(_holds_nul, value))
        case dict():
            return any(_holds_nul(part) for item in value.items() for part in item)
        case _:
            return False


def _large() -> Refusal:
    return too_large(f"The body is larger than {MOST_BODY_BYTES} bytes: send less at once.")
