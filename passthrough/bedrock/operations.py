"""Which operations Bedrock has, read from botocore's own service models.

An upgrade of botocore brings AWS's new operations without a change here. What the models say is derived
(service, name, method, labels, streaming, where in the body a model can be named); the little they do not
say, whether a model runs at all and who chooses it, is the two tables below, a reason beside each group.
An operation that neither the shapes nor the tables place is `ModelPlace.UNKNOWN`, which is the safe answer:
a key with a model list may not use it.

Only botocore's data files are read (`botocore.loaders`), once a process.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

from botocore.loaders import Loader

Service = Literal["bedrock-runtime", "bedrock-agent-runtime", "bedrock"]
"""Endpoint prefix of a host; all three sign as `bedrock`."""

Body = bytes | bytearray
"""A request's body; a large one is grown in place and does not change any more once it is handed on."""

BodyPath = tuple[str, ...]
"""Members from the top of a JSON body down; `[]` is every item of a list, `{}` every value of a map."""


class ModelPlace(StrEnum):
    """Where the model that will run is named."""

    PATH = "path"
    BODY = "body"
    AWS = "aws"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one service; `name` is empty for a path that no service model lists.

    `body_models` are the places of the body where a model can be named, `body_resources` those of what has a
    model of its own (an agent, a knowledge base): AWS chooses theirs, as it does for `ModelPlace.AWS`. Both
    can be there whatever `model_place` says: Retrieve, whose knowledge base AWS resolves, takes a reranking
    model too. `duplex` means that the request is an event stream as well as the answer. Of the OpenAI- and
    Anthropic-shaped endpoints `streams` is always False: the body asks and the answer's type tells.
    """

    service: Service
    name: str
    streams: bool
    model_place: ModelPlace
    method: str = ""
    uri: str = ""
    labels: tuple[str, ...] = ()
    has_body: bool = False
    duplex: bool = False
    body_models: tuple[BodyPath, ...] = ()
    body_resources: tuple[BodyPath, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """What the path of a request says; every later phase reads it.

    `path` and `query` are the raw bytes to forward, `labels` the path's labels unquoted once, under
    botocore's member names. `model` is the model id of the path; `resource` the first label, whatever it is.
    `region_hint` is the region of the first ARN among the labels, where an AWS partition lists it.
    """

    operation: Operation
    path: str
    query: str
    labels: Mapping[str, str]
    model: str | None
    resource: str | None
    region_hint: str | None


# AWS resolves the agent, flow or knowledge base of the path, and with it the model that runs.
_DECIDED_BY_AWS: Final = frozenset({"InvokeAgent", "InvokeFlow", "StartFlowExecution", "Retrieve"})

# The model follows from a knowledge base, but its ARN is in the body (`body_resources`), not in the path.
_DECIDED_BY_BODY: Final = frozenset({"GenerateQuery"})

_RUN_NO_MODEL: Final = frozenset(
    # policies evaluated over given text: billed in policy units, by no model id
    {"ApplyGuardrail", "InvokeGuardrailChecks"}
    # state of invocations started elsewhere
    | {"GetAsyncInvoke", "ListAsyncInvokes"}
    | {
        "GetFlowExecution",
        "GetExecutionFlowSnapshot",
        "ListFlowExecutions",
        "ListFlowExecutionEvents",
        "StopFlowExecution",
    }
    # session storage: the client brings the conversation and reads it back
    | {"CreateSession", "GetSession", "UpdateSession", "EndSession", "DeleteSession", "ListSessions"}
    | {"CreateInvocation", "ListInvocations", "PutInvocationStep", "GetInvocationStep", "ListInvocationSteps"}
    # what an agent remembered, read or deleted
    | {"GetAgentMemory", "DeleteAgentMemory"}
    # documents as they were ingested, and who may see them
    | {"GetDocumentContent", "GetIngestedDocumentAcl", "CheckIngestedDocumentAcl"}
    | {"ListTagsForResource", "TagResource", "UntagResource"}
    # the control plane's catalogue
    | {"ListInferenceProfiles", "GetInferenceProfile", "ListFoundationModels", "GetFoundationModel"}
)

# Bedrock's own OpenAI- and Anthropic-shaped endpoints on the runtime host. No service model lists them:
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html and the vendors' API
# references. A path below them that is not here stays unknown, because only of these do we know that the
# body's `model` is the model that runs (a batch, say, names it inside a file).
_OPENAI_SHAPED: Final = (
    ("OpenAIChatCompletions", "POST", "chat/completions"),
    ("OpenAICompletions", "POST", "completions"),
    ("OpenAIEmbeddings", "POST", "embeddings"),
    ("OpenAIResponses", "POST", "responses"),
    ("OpenAIGetResponse", "GET", "responses/{responseId}"),
    ("OpenAIDeleteResponse", "DELETE", "responses/{responseId}"),
    ("OpenAICancelResponse", "POST", "responses/{responseId}/cancel"),
    ("OpenAIListInputItems", "GET", "responses/{responseId}/input_items"),
    ("OpenAIListModels", "GET", "models"),
    ("OpenAIGetModel", "GET", "models/{model}"),
)
_ANTHROPIC_SHAPED: Final = (
    ("AnthropicMessages", "POST", "messages"),
    ("AnthropicCountTokens", "POST", "messages/count_tokens"),
    ("AnthropicListModels", "GET", "models"),
    ("AnthropicGetModel", "GET", "models/{model}"),
)
# AWS's pages of 2026 show the OpenAI shape below `/v1` as well as below `/openai/v1`.
_SHAPED: Final = (
    ("/openai/v1/", _OPENAI_SHAPED),
    ("/v1/", _OPENAI_SHAPED),
    ("/anthropic/v1/", _ANTHROPIC_SHAPED),
)

# Of the control plane, only what clients of the runtime ask of the same base URL (Claude Code does), to read.
_CATALOGUE_SEGMENTS: Final = frozenset({"inference-profiles", "foundation-models"})

_LABEL: Final = re.compile(r"\{(\w+)\+?\}")  # the + of a greedy label says nothing to us: no slash in a label is lost

# How botocore's shapes call a member that names a model: modelId, modelArn, targetModelId, foundationModel,
# modelIdentifier. Their types differ from service to service; the names do not.
_NAMES_A_MODEL: Final = re.compile(r"(?:foundationModel|(?:[mM]odel|inferenceProfile)(?:Id|Arn|Identifier))$")
_NAMES_A_RESOURCE: Final = re.compile(
    r"(?:agent|agentAlias|knowledgeBase|flow|flowAlias|prompt|promptRouter)(?:Id|Arn|Identifier)$"
)


def first_segment(path: str) -> str:
    """`model` of `/model/x/converse`; empty for a path without one."""
    return path[1:].partition("/")[0]


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation that passthrough serves, of all three services."""
    return (*_listed("bedrock-runtime"), *_shaped(), *_listed("bedrock-agent-runtime"), *_catalogue())


@cache
def services() -> Mapping[str, Service]:
    """First segment of a path → the service that it belongs to (the sets are disjoint: a test says so)."""
    return MappingProxyType({first_segment(operation.uri): operation.service for operation in operations()})


def _listed(service: Service) -> list[Operation]:
    model = _service_model(service)
    return [_derive(service, listed, model["shapes"]) for _, listed in sorted(model["operations"].items())]


def _catalogue() -> list[Operation]:
    model = _service_model("bedrock")
    return [
        _derive("bedrock", listed, model["shapes"])
        for _, listed in sorted(model["operations"].items())
        if listed["http"]["method"] == "GET" and first_segment(listed["http"]["requestUri"]) in _CATALOGUE_SEGMENTS
    ]


def _service_model(service: Service) -> Mapping[str, Any]:
    # The builtin data alone: what may run must not depend on a file in somebody's ~/.aws/models.
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    model: Mapping[str, Any] = loader.load_service_model(service, "service-2")
    return model


def _shaped() -> list[Operation]:
    return [
        Operation(
            service="bedrock-runtime",
            name=name,
            streams=False,
            model_place=ModelPlace.BODY if _body_decides(method, tail) else ModelPlace.NONE,
            method=method,
            uri=prefix + tail,
            labels=tuple(_LABEL.findall(tail)),
            has_body=_body_decides(method, tail),
            body_models=(("model",),) if _body_decides(method, tail) else (),
        )
        for prefix, table in _SHAPED
        for name, method, tail in table
    ]


def _body_decides(method: str, tail: str) -> bool:
    # The others read, delete or cancel what a POST made before.
    return method == "POST" and not _LABEL.search(tail)


def _derive(service: Service, listed: Mapping[str, Any], shapes: Mapping[str, Any]) -> Operation:
    name, http = str(listed["name"]), listed["http"]
    labels = tuple(_LABEL.findall(http["requestUri"]))
    shape = shapes[listed["input"]["shape"]] if "input" in listed else {}
    output = shapes[listed["output"]["shape"]] if "output" in listed else {}
    members = tuple(_named_members(shape, shapes))
    models = tuple(path for path in members if _NAMES_A_MODEL.search(path[-1]))
    return Operation(
        service=service,
        name=name,
        streams=_is_event_stream(output, shapes),
        model_place=_place(name, labels, models),
        method=http["method"],
        uri=http["requestUri"],
        labels=labels,
        has_body=bool(_body_members(shape)),
        duplex=_is_event_stream(shape, shapes),
        body_models=models,
        body_resources=tuple(path for path in members if _NAMES_A_RESOURCE.search(path[-1])),
    )


def _place(name: str, labels: tuple[str, ...], models: tuple[BodyPath, ...]) -> ModelPlace:
    if "modelId" in labels:
        return ModelPlace.PATH
    if name in _DECIDED_BY_AWS:
        return ModelPlace.AWS
    # The shapes before the last table: an operation that starts to take a model stops being model-free.
    if models or name in _DECIDED_BY_BODY:
        return ModelPlace.BODY
    return ModelPlace.NONE if name in _RUN_NO_MODEL else ModelPlace.UNKNOWN


def _body_members(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in shape.get("members", {}).items() if "location" not in member}


def _is_event_stream(shape: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    return any(shapes[member["shape"]].get("eventstream") for member in _body_members(shape).values())


def _named_members(
    shape: Mapping[str, Any], shapes: Mapping[str, Any], path: BodyPath = (), above: tuple[int, ...] = ()
) -> Iterator[BodyPath]:
    """Paths of the string members below a shape; a recursive shape (retrieval filters) is entered once."""
    if id(shape) in above:
        return
    above = (*above, id(shape))
    match shape.get("type"):
        case "structure":
            # At the top, what travels in the path, the query or a header is not in the body.
            members = _body_members(shape) if not path else shape["members"]
            for name, member in members.items():
                yield from _named_members(shapes[member["shape"]], shapes, (*path, name), above)
        case "list":
            yield from _named_members(shapes[shape["member"]["shape"]], shapes, (*path, "[]"), above)
        case "map":
            yield from _named_members(shapes[shape["value"]["shape"]], shapes, (*path, "{}"), above)
        case "string" if "enum" not in shape:
            yield path
