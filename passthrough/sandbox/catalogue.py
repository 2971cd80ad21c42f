"""Which operation is this? Matched from the raw path against botocore's models, independently of our own router.

A mistake in `bedrock.operations` or `proxy.route` must not be forgiven by a sandbox that makes the same one, so
this file knows nothing of them.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

Dialect = Literal["aws", "openai", "anthropic"]  # how errors are shaped

RUNTIME = "bedrock-runtime"
AGENTS = "bedrock-agent-runtime"
CONTROL = "bedrock"
# The read-only part of the control plane that clients of the runtime ask for on the same base URL.
_CONTROL_OPERATIONS = ("ListInferenceProfiles", "GetInferenceProfile", "ListFoundationModels", "GetFoundationModel")
# Bedrock's own OpenAI- and Anthropic-shaped endpoints, which no service model lists.
_UNLISTED: tuple[tuple[str, str, str, Dialect], ...] = (
    ("POST", "/openai/v1/chat/completions", "ChatCompletions", "openai"),
    ("POST", "/openai/v1/responses", "Responses", "openai"),
    ("GET", "/openai/v1/models", "ListModels", "openai"),
    ("GET", "/openai/v1/models/{modelId}", "GetModel", "openai"),
    ("POST", "/anthropic/v1/messages", "Messages", "anthropic"),
    ("POST", "/anthropic/v1/messages/count_tokens", "CountMessageTokens", "anthropic"),
)
# Here an ARN's slashes may come literally: these labels reach as far as they can.
_GREEDY = frozenset({"model", "guardrail", "async-invoke", "tags", "inference-profiles", "foundation-models", "openai"})


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint; `operation` is None where no service model lists it."""

    name: str
    service: str
    takes_bearer: bool
    operation: OperationModel | None
    dialect: Dialect
    pattern: re.Pattern[str]
    greedy: re.Pattern[str]


def find(method: str, path: str) -> tuple[Target, Mapping[str, str]] | None:
    """The endpoint and its labels, unquoted once; None when there is none. `path` is raw."""
    candidates = _targets().get((method, path.split("/")[1] if path.startswith("/") else ""), ())
    for way in ("pattern", "greedy"):
        for target in candidates:
            match = getattr(target, way).fullmatch(path)
            if match is not None:
                return target, {name: unquote(value) for name, value in match.groupdict().items()}
    return None


def load() -> None:
    """Reads botocore's models (0.1 s), so that the first request need not wait for it."""
    _targets()


@lru_cache(maxsize=1)
def _targets() -> Mapping[tuple[str, str], list[Target]]:
    """All endpoints by method and first path segment, those with the most literal text first."""
    found: dict[tuple[str, str], list[Target]] = defaultdict(list)
    for method, uri, target in (*_listed(), *_unlisted()):
        found[method, uri.split("/")[1]].append(target)
    for targets in found.values():
        targets.sort(key=lambda target: -len(re.sub(r"\(.*?\)", "", target.pattern.pattern)))
    return found


def _listed() -> Iterator[tuple[str, str, Target]]:
    for service in (RUNTIME, AGENTS, CONTROL):
        model = service_model(service)
        names = _CONTROL_OPERATIONS if service == CONTROL else model.operation_names
        takes_bearer = "smithy.api#httpBearerAuth" in model.metadata.get("auth", ())
        for name in names:
            operation = model.operation_model(name)
            uri = operation.http["requestUri"].partition("?")[0]
            target = Target(name, service, takes_bearer, operation, "aws", *_patterns(uri))
            yield operation.http["method"], uri, target


def _unlisted() -> Iterator[tuple[str, str, Target]]:
    for method, uri, name, dialect in _UNLISTED:
        yield method, uri, Target(name, RUNTIME, True, None, dialect, *_patterns(uri))  # noqa: FBT003  # a row of a table


def _patterns(uri: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The template as it is, and with labels that may hold literal slashes where that is tolerated."""
    escaped = re.sub(r"\\\{(\w+)(?:\\\+)?\\\}", r"{\1}", re.escape(uri))
    strict = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", escaped)
    tolerant = re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", escaped)
    return re.compile(strict), re.compile(tolerant if uri.split("/")[1] in _GREEDY else strict)


@lru_cache(maxsize=4)
def service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)
