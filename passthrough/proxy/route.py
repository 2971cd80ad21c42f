"""Step 1: method and raw request target → the call that it is, or a refusal.

Two rules. What is forwarded is the raw path, not one byte changed: everything decoded here is for deciding.
And nobody behind us may read another path than we did, because the allow-list was applied to ours: what a
second decoder or a path normaliser would read differently is refused, or stays an unknown operation, which
a restricted key may not use.

A path below a service's first segment that no service model lists is forwarded all the same, since AWS adds
operations faster than botocore is upgraded.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from passthrough.bedrock.endpoints import region_of_arn
from passthrough.bedrock.operations import (
    Call,
    ModelPlace,
    Operation,
    Service,
    first_segment,
    operations,
    services,
)
from passthrough.errors import Refusal, invalid

# HEAD is no operation's method, but harmless; OPTIONS, TRACE, CONNECT and made-up ones are nobody's.
METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"})

# The longest label that botocore's models allow is a document id of 1,825 characters: 16,425 bytes where each
# is three bytes of UTF-8, percent-encoded. Room for that and the rest of its path.
MAX_PATH: Final = 20_000
MAX_QUERY: Final = 20_000  # as much for `nextToken`, whose length the models bound by 2,048 characters
MAX_MODEL_ID: Final = 2048  # botocore: `max` of InvokeModelIdentifier and ConversationalModelId

# Memory: at most 2,048 targets of at most 512 characters, some 5 MB at the very worst; a model's ARN with
# every `:` and `/` encoded is about 150. An endless variety of targets makes the cache useless, not large.
_REMEMBERED: Final = 2048
_REMEMBERED_LENGTH: Final = 512

# Decoding more often than this is nobody's honest path; the bound keeps a path of `%2525…` cheap.
_MAX_DECODINGS: Final = 4

_PREFIXES: Final[Mapping[str, Service | None]] = {
    "bedrock": None,  # the first segment after it tells the service
    "bedrock-runtime": "bedrock-runtime",
    "bedrock-agent-runtime": "bedrock-agent-runtime",
}

_NOT_A_PATH: Final = re.compile(r"[^\x21-\x7e]|[\\#]")
_NOT_A_QUERY: Final = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff#]")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# C0, DEL, C1 and the backslash, which some servers take for a slash.
_NOT_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
# `..;x` too: servlet containers drop what follows the semicolon before they resolve the dots.
_DOT_SEGMENT: Final = re.compile(r"(?:^|/)\.\.?(?:;[^/]*)?(?:/|$)")

_SEGMENT: Final = "[^/]+"
# An ARN whose slashes came unencoded. None has more than six segments
# (`arn:…:flow/F/alias/A/execution/E`); the bound also keeps the match from backtracking without end.
_ARN_START: Final = "arn(?::|%3[Aa])"
_ARN: Final = _ARN_START + "[^/]*(?:/[^/]+){0,7}?"
# A model id is everything up to the verb: clients send ARNs with `/` unencoded, and a custom model's has two.
_MODEL_ID: Final = r"[^/]+(?:/[^/]+)*"


def route(method: str, raw_target: str) -> Call:
    """Say which call a request is.

    `raw_target` is the request target as it came (aiohttp's `raw_path`). Raises `Refusal`: 400 for what is no
    well-formed path or could be read in two ways, 404 for a path of no service, 405 for a method of none.
    """
    path, _, query = raw_target.partition("?")
    call = _remembered(method, path) if len(path) <= _REMEMBERED_LENGTH else _resolve(method, path)
    if not query:
        return call
    if len(query) > MAX_QUERY or _NOT_A_QUERY.search(query):
        raise invalid(
            "The query has a space, a control character, a '#' or invalid UTF-8,"
            f" or more than {MAX_QUERY} characters: percent-encode its values."
        )
    return Call(call.operation, call.path, query, call.labels, call.model, call.resource, call.region_hint)


def _resolve(method: str, target: str) -> Call:
    if method not in METHODS:
        # 405 rather than an unknown path's 404: the path may be right, and browsers' preflights end here.
        raise Refusal(
            405,
            "UnknownOperationException",
            "No operation has this method: use one of those in the Allow header.",
            headers={"Allow": ", ".join(sorted(METHODS))},
        )
    read = _read(target)
    service, path = _destination(method, target)
    read = read[len(target) - len(path) :]  # the prefix is plain ASCII, as long decoded as raw
    _refuse_duplex(read)
    operation, raw_labels = _match(service, method, path)
    if (hidden := _match(service, method, read)[0].name) and hidden != operation.name:
        raise invalid("The path hides an operation behind percent-escapes: encode only what stands for a name.")
    labels = {name: unquote(raw, errors="strict") for name, raw in raw_labels.items()}
    model = labels.get("modelId")
    if model is not None:
        _check_model_id(model)
    return Call(
        operation=operation,
        path=path,
        query="",
        labels=MappingProxyType(labels),
        model=model,
        resource=next(iter(labels.values()), None),
        region_hint=next(filter(None, map(region_of_arn, labels.values())), None),
    )


_remembered = lru_cache(maxsize=_REMEMBERED)(_resolve)


def _read(target: str) -> str:
    """The path decoded once, as AWS will read it; refuses what somebody else might read differently."""
    if not target.startswith("/"):
        raise invalid("The request target must be a path that begins with '/'.")
    if len(target) > MAX_PATH:
        raise invalid(f"The path is longer than {MAX_PATH} characters: no operation has one that long.")
    if _NOT_A_PATH.search(target):
        raise invalid(
            "The path has a space, a control character, a backslash, a '#' or a character outside ASCII:"
            " percent-encode what belongs to a name."
        )
    if _BROKEN_ESCAPE.search(target):
        raise invalid("The path has a '%' that two hexadecimal digits do not follow: write a literal one as %25.")
    try:
        read = unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise invalid("The path is not UTF-8 once its percent-escapes are decoded.") from None
    _refuse_traversal(read)
    return read


def _refuse_traversal(read: str) -> None:
    """Refuse dot segments, backslashes and control characters, now or after further decoding.

    What is encoded twice (`%252e`) is data to whoever decodes once, as AWS's signatures say it does; should
    some server on the way decode twice, it would leave the label that we judged. No name needs it, so: no.
    Other double encodings are let through, since a document id may well be a URL with escapes of its own.
    """
    for _ in range(_MAX_DECODINGS):
        if _NOT_IN_A_NAME.search(read):
            raise invalid("The path has a backslash or a control character in a name, encoded or not.")
        if _DOT_SEGMENT.search(read):
            raise invalid("The path has a '.' or '..' segment, encoded or not: send the path it stands for.")
        further = unquote(read)
        if further == read:
            return
        read = further
    raise invalid(f"The path is percent-encoded more than {_MAX_DECODINGS} times over: encode names once.")


def _destination(method: str, target: str) -> tuple[Service, str]:
    """Service and the path without the prefix that chose it."""
    prefix, _, rest = target[1:].partition("/")
    path = f"/{rest}"
    service = _PREFIXES.get(prefix)
    if service is None and prefix in _PREFIXES:
        service = services().get(first_segment(path))
    if service is None or not first_segment(path):
        raise _no_such_path()
    # Of the control plane nothing but the listed reads: there, an unknown path could change things.
    if service == "bedrock" and not _match(service, method, path)[0].name:
        raise _no_such_path()
    return service, path


def _no_such_path() -> Refusal:
    return Refusal(
        404,
        "UnknownOperationException",
        "No Bedrock operation has this path: it should begin with /bedrock/ and go on as it does at AWS.",
    )


def _refuse_duplex(read: str) -> None:
    # Any method, with or without a trailing slash: AWS would open a session that we cannot relay.
    verb = read.rstrip("/").rpartition("/")[2].removesuffix("-websocket")
    if verb in _DUPLEX_VERBS and read.startswith("/model/"):
        raise invalid(
            "InvokeModelWithBidirectionalStream is not supported by this proxy:"
            " it needs HTTP/2 or a WebSocket in both directions; call Bedrock directly for it."
        )


def _check_model_id(model: str) -> None:
    if len(model) > MAX_MODEL_ID:
        raise invalid(f"The model id is longer than {MAX_MODEL_ID} characters.", param="modelId")
    if "%" in model:
        # No id has one, so this one is encoded twice: who decodes twice would run another than we judged.
        raise invalid("The model id is percent-encoded more than once: encode it once.", param="modelId")


def _match(service: Service, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
    """The operation and its labels, still encoded; for a path that nothing lists, a nameless one."""
    candidates = _PATTERNS.get((service, method, first_segment(path)), ())
    # One segment a label first: only where nothing matches so may slashes belong to an ARN.
    for strict in (True, False):
        for operation, exact, loose in candidates:
            found = (exact if strict else loose).fullmatch(path)
            if found:
                return operation, found.groupdict()
    return Operation(service, "", streams=False, model_place=ModelPlace.UNKNOWN, method=method), _unlisted_model(path)


def _unlisted_model(path: str) -> Mapping[str, str]:
    """`{"modelId": …}` of a path below /model/ whose verb we do not know."""
    if not path.startswith("/model/"):
        return {}
    name = path.removeprefix("/model/").removesuffix("/")
    # An ARN may hold slashes: all but the verb. Any other id is one segment.
    name = name.rpartition("/")[0] or name if re.match(_ARN_START, name) else name.partition("/")[0]
    return {"modelId": name} if name else {}


def _pattern(operation: Operation, label: str) -> re.Pattern[str]:
    def written(name: str) -> str:
        return f"(?P<{name}>{_MODEL_ID if name == 'modelId' else label})"

    literals = re.split(r"\{\w+\+?\}", operation.uri)
    labels = [*map(written, operation.labels), ""]
    return re.compile("".join(re.escape(literal) + name for literal, name in zip(literals, labels, strict=True)))


def _patterns() -> Mapping[tuple[Service, str, str], list[tuple[Operation, re.Pattern[str], re.Pattern[str]]]]:
    table = defaultdict(list)
    # The longest literal text first, so that `…/executions/{e}/events` is tried before `…/executions/{e}`.
    for operation in sorted(operations(), key=lambda each: (each.uri.count("/"), len(each.uri)), reverse=True):
        place = operation.service, operation.method, first_segment(operation.uri)
        table[place].append((operation, _pattern(operation, _SEGMENT), _pattern(operation, f"(?:{_SEGMENT}|{_ARN})")))
    return dict(table)


_PATTERNS: Final = _patterns()
_DUPLEX_VERBS: Final = frozenset(each.uri.rpartition("/")[2] for each in operations() if each.duplex)
