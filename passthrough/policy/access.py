"""Whether a key may make a call: its lists of models, operations and regions against what the call names.

Lists bind one by one: the key's own, its user's, its team's; an empty one binds nothing. Where the model is
in the path it is judged unquoted once, geography and ARN resolved. Where it is in the body, the body is read
here as strictly as the strictest reader could: what another parser might read differently is refused. Where
AWS chooses the model, what it chooses by (agent, flow, knowledge base, prompt) has to be listed. What no list
can say anything about is not for keys with a list.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn

from passthrough.bedrock.models import LONGEST_ID, ModelRef, geography, model_ref
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body, BodyPath, Call, ModelPlace, Operation
from passthrough.bedrock.patterns import matches
from passthrough.errors import Refusal, forbidden, invalid
from passthrough.policy.keys import VirtualKey

# LiteLLM's names for groups of routes; all of ours that a key can reach are calls of a model's service.
_EVERY_ROUTE: Final = frozenset({"llm_api_routes", "*"})
# First labels of paths below a resource that has to be listed.
_RESOURCE_LABELS: Final = frozenset({("agentId",), ("flowIdentifier",), ("knowledgeBaseId",)})
# First labels of paths to what calls have left with AWS. It is the account's, so any key can reach any other's: AWS
# knows one caller, us. These have to be listed too, or the operation granted by its name.
_SHARED_LABELS: Final = frozenset({("sessionIdentifier",), ("resourceArn",), ("invocationArn",), ("responseId",)})
_SHARED_LISTS: Final = frozenset({"ListSessions", "ListAsyncInvokes"})
_EVERYTHING: Final = "*"  # what a list of all shows; of patterns only those that cover everything match it
# Going on from a stored answer reads it: https://platform.openai.com/docs/api-reference/responses/create
_STORED_ANSWERS: Final[tuple[BodyPath, ...]] = (("previous_response_id",), ("conversation",))
_ARN_PARTS: Final = 6  # arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE
_KEPT: Final = 1024  # verdicts of a list on a model: keys are many, but they ask for the same few models all day
# Fields by which a server behind us could be told to read another request than the one that was judged. Nobody says
# that AWS's front ends heed them, nobody that they don't; no client of Bedrock sends one.
_REDIRECTING: Final = (
    "x-amz-target",  # names the operation in AWS's JSON protocols, whatever the path is
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
)


def check_operation(key: VirtualKey, call: Call) -> None:
    """Refuse an operation that is not in `allowed_routes`: operation, service, or pattern of a path."""
    if key.allowed_routes and not any(_names_route(route, call) for route in key.allowed_routes):
        raise forbidden(
            f"The virtual key may not use {call.operation.name or call.path}: "
            "ask your administrator to add it to allowed_routes."
        )


def check_region(key: VirtualKey, region: str, named: Iterable[str] = ()) -> None:
    """Refuse a region that is not in `allowed_regions`: where the call goes, and those of ARNs that it names."""
    if not key.allowed_regions:
        return
    for name in named:
        _require_region(key, name)
    if not any(matches(pattern, region) for pattern in key.allowed_regions):
        raise forbidden(
            f"The virtual key may not use the region {region}: ask your administrator to add it to allowed_regions."
        )


def is_listed(key: VirtualKey, model: str) -> bool:
    """Whether every list of the key has the model under the name that it is given; so has a key without lists."""
    return all(_verdict(patterns, model) for patterns in _lists(key))


def needs_body(key: VirtualKey, call: Call) -> bool:
    """Whether the body has to be seen before the call may go up: it can name models, which can be ARNs of a region."""
    operation = call.operation
    if not (key.restricted or key.allowed_regions):
        return False
    return bool(operation.body_models or operation.body_resources) or operation.model_place is ModelPlace.BODY


def check_headers(key: VirtualKey, call: Call, names: Collection[str]) -> None:
    """Refuse header fields that could make another request of the one that is judged; `names` ignores case."""
    if not (key.restricted or key.allowed_routes or key.allowed_regions):
        return
    for name in _REDIRECTING:
        if name in names:
            raise forbidden(f"A virtual key that is limited to certain models, routes or regions may not send {name}.")
    if "content-encoding" in names and needs_body(key, call):
        raise invalid("The body is compressed, so the model it asks for cannot be checked: send it as it is.")


def check_model(key: VirtualKey, call: Call, stands_for: str | None = None) -> None:
    """Refuse what the path alone tells: a model or resource that is not listed, an operation nobody knows.

    `stands_for` is the model that an application inference profile was found to be.
    """
    if key.allowed_regions and call.operation.model_place is ModelPlace.UNKNOWN:
        raise forbidden(
            "The virtual key is limited to certain regions and this operation is not known to tell where its model "
            "runs: use another operation, or a key without allowed_regions."
        )
    if not key.restricted:
        return
    match call.operation.model_place:
        case ModelPlace.PATH:
            if call.model is None:
                _refuse_unknown()
            _require(key, call.model, stands_for)
        case ModelPlace.AWS:
            if call.resource is None:
                _refuse_unknown()
            _require(key, call.resource)
        case ModelPlace.UNKNOWN:
            _refuse_unknown()
        case ModelPlace.BODY | ModelPlace.NONE:
            _check_reached(key, call)


def check_body(key: VirtualKey, call: Call, body: Body) -> None:
    """Refuse a body that names a model or resource not listed or of a region not allowed, or is not to be trusted."""
    if not needs_body(key, call):
        return
    operation = call.operation
    document = _read(body) if body else {}
    named = [value for path in operation.body_models for value in _found(document, path)]
    resources = [value for path in operation.body_resources for value in _found(document, path)]
    for value in (*named, *resources):
        _require(key, value)
        _require_region(key, value)
    if key.restricted and operation.name == "OpenAIResponses" and "OpenAIGetResponse" not in key.allowed_routes:
        for value in (value for path in _STORED_ANSWERS for value in _found(document, path)):
            _require(key, value)
    if key.restricted and operation.model_place is ModelPlace.BODY and not named and not resources:
        raise forbidden(
            "The virtual key is limited to certain models and the body names none: name the model in the body."
        )


def allows(patterns: Sequence[str], model: str) -> bool:
    """Whether one list allows a model or resource; an empty list allows all."""
    return not patterns or any(covers(pattern, model) for pattern in patterns)


_allows = lru_cache(maxsize=_KEPT)(allows)


def covers(pattern: str, model: str) -> bool:
    """Whether a pattern covers a model id: as given, or as the model or profile that the id stands for."""
    reference = model_ref(model)
    return any(matches(pattern, name) for name in _names(model, reference))


def _names(model: str, reference: ModelRef) -> Iterator[str]:
    yield model
    if reference.resolved:
        yield reference.base
        place = geography(model)
        if place is not None:
            yield f"{place}.{reference.base}"


def _require(key: VirtualKey, model: str, stands_for: str | None = None) -> None:
    for patterns in _lists(key):
        if not (_verdict(patterns, model) or (stands_for and allows(patterns, stands_for))):
            raise forbidden(
                f"The virtual key may not use {model}: use a model that is listed for it, or ask your administrator."
            )


def _check_reached(key: VirtualKey, call: Call) -> None:
    """No model runs, but what is read or stopped there is the resource's: documents, memories, conversations."""
    labels = call.operation.labels[:1]
    if call.resource is not None and labels in _RESOURCE_LABELS:
        _require(key, call.resource)
    if labels in _SHARED_LABELS or call.operation.name in _SHARED_LISTS:
        _require_shared(key, call)


def _require_shared(key: VirtualKey, call: Call) -> None:
    """Refuse what may be anybody's, unless every list has it or the route was granted outright."""
    operation = call.operation
    if any(_grants(route, operation) and _names_route(route, call) for route in key.allowed_routes):
        return
    if not is_listed(key, call.resource or _EVERYTHING):
        raise forbidden(
            f"The virtual key is limited to certain models, and what {operation.name} reaches may be anybody's: "
            f"ask your administrator to add it to models, or {operation.name} to allowed_routes."
        )


def _grants(route: str, operation: Operation) -> bool:
    """Whether a route means this operation, not a group that happens to have it: its name, or its path's fixed part."""
    fixed = operation.uri.partition("{")[0].rstrip("/")
    spelt = route.partition(_EVERYTHING)[0].removeprefix("/bedrock")
    return route == operation.name or spelt == fixed or spelt.startswith(fixed + "/")


def _require_region(key: VirtualKey, name: str) -> None:
    """Refuse an ARN of a region that is not allowed; other names are looked for where the call goes."""
    parts = name.strip().split(":", _ARN_PARTS - 1)
    if not key.allowed_regions or parts[0].casefold() != "arn":
        return
    if len(parts) < _ARN_PARTS:
        raise forbidden("The virtual key is limited to certain regions and an ARN tells none: write it in full.")
    if parts[3]:
        check_region(key, parts[3])


def _lists(key: VirtualKey) -> tuple[tuple[str, ...], ...]:
    return key.model_lists or (key.models,)


def _verdict(patterns: tuple[str, ...], model: str) -> bool:
    return _allows(patterns, model) if len(model) <= LONGEST_ID else allows(patterns, model)


def _refuse_unknown() -> NoReturn:
    raise forbidden(
        "The virtual key is limited to certain models and this operation is not known to tell its model: "
        "use another operation, or a key without a model list."
    )


def _names_route(route: str, call: Call) -> bool:
    operation = call.operation
    # an operation that nobody lists has no name, and an empty entry must not name it
    if route in _EVERY_ROUTE or (route and route in {operation.name, operation.service}):
        return True
    # "/bedrock/model/*" as LiteLLM's users write it, or "/model/*"
    return route.startswith("/") and (matches(route, call.path) or matches(route, "/bedrock" + call.path))


def _read(body: Body) -> Any:  # any JSON document
    """Decode JSON that every reader reads alike: UTF-8 without BOM, no key twice, nothing after the end."""
    if is_intricate(body):
        raise invalid("The body has more members than any operation takes: send less at once.")
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_object_without_twins, parse_constant=_refuse_constant
        )
    except Refusal:
        raise
    except (ValueError, RecursionError):
        raise invalid(
            "The body is not plain JSON in UTF-8, so the model it asks for cannot be checked: send plain JSON."
        ) from None


def _object_without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # case folded, because nobody promises that AWS's parser tells `modelArn` from `ModelArn`
    if len({name.casefold() for name, _ in pairs}) != len(pairs):
        raise invalid("The body names a member twice, so readers may differ about it: name it once.")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise invalid(f"The body holds {name}, which is not JSON: send plain JSON.")


def _found(value: Any, path: BodyPath) -> Iterator[str]:  # any JSON value
    """The strings at a path of a document; anything else at its end is refused."""
    if not path:
        if not isinstance(value, str):
            raise invalid("The body names a model by something other than a string: name it by its id or ARN.")
        if len(value) > LONGEST_ID or not value.isprintable():  # lone surrogates are not
            raise invalid("The body names a model by what cannot be an id: name it by its id or ARN.")
        yield value
        return
    for item in _below(value, path[0]):
        if item is not None:
            yield from _found(item, path[1:])


def _below(value: Any, step: str) -> Iterable[Any]:  # any JSON value
    """What one step of a path leads to."""
    if step == "[]" and isinstance(value, list):
        return value
    if not isinstance(value, dict) or step == "[]":
        raise invalid("The body is not shaped as the operation's input is: send what AWS documents.")
    if step == "{}":
        return value.values()
    for name in value:
        if name != step and name.casefold() == step.casefold():
            raise invalid(f"The body has {name} where {step} belongs: write it as AWS does.")
    return (value[step],) if step in value else ()
