"""Where AWS's Bedrock services live: regions, hosts, and who takes a Bearer token there.

All of it is read from botocore's data files (`partitions.json`, the endpoint rule sets and service models),
so that an upgrade of botocore brings new regions and partitions. Only the data of the installed botocore
counts: a model file in somebody's `~/.aws/models` does not move the upstream.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from botocore.endpoint_provider import EndpointProvider
from botocore.loaders import Loader

from passthrough.bedrock.operations import Service
from passthrough.errors import UserError, invalid

_PORTS = {"https": 443, "http": 80}
# A client may name any region that looks like one of AWS's: bounded, so that nobody fills our memory.
# AWS lists about 45 regions, times three services.
_KEPT_ENDPOINTS = 512


def _loader() -> Loader:
    # A loader keeps whatever it read: one each time, so that the large service models are let go.
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


_PARTITIONS: Mapping[str, Any] = _loader().load_data("partitions")
# "aws-global" and its like are names that SDKs use for services without regions; no host has them.
_PARTITION_OF: Mapping[str, str] = MappingProxyType(
    {
        region: partition["id"]
        for partition in _PARTITIONS["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    }
)
_REGIONS = frozenset(_PARTITION_OF)
# These patterns use `\w` and end in `$`: matched in ASCII and whole, because the name goes into a host.
_REGION_SHAPES = tuple(re.compile(partition["regionRegex"], re.ASCII) for partition in _PARTITIONS["partitions"])
_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Underscores are no host names by RFC 952, but container networks are full of them.
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_BASE_PATH = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")


def is_region(name: str) -> bool:
    """Whether AWS's partitions list this region, as far as the installed botocore knows them."""
    return name in _REGIONS


def region_of_arn(arn: str) -> str | None:
    """Give the region of an ARN (unquoted); None without one, or when the partition does not list it.

    `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, whatever the service: a model can be a SageMaker endpoint.
    """
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn":  # noqa: PLR2004  # the six fields of an ARN, named above
        return None
    partition, region = parts[1], parts[3]
    return region if _PARTITION_OF.get(region) == partition else None


@lru_cache(maxsize=8)
def accepts_bearer(service: Service) -> bool:
    """Whether AWS takes a Bedrock API key as Bearer token there: the service model's `auth` list says so."""
    model = _loader().load_service_model(service, "service-2")
    return "smithy.api#httpBearerAuth" in model["metadata"].get("auth", ())


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go.

    `host` is what is dialled (an IPv6 address without brackets), `host_header` what is sent and signed (with
    brackets, and the port unless it is the scheme's own), `base_path` ("" or "/x") stands before the path.
    """

    scheme: str
    host: str
    port: int
    host_header: str
    base_path: str = ""


class Endpoints:
    """The endpoint of each service and region: the operator's override, else AWS's own host.

    `overrides` are URLs as in `AWS_ENDPOINT_URL_BEDROCK_RUNTIME`; an override serves all regions. Plain http
    would carry prompts and signatures in the clear, so it needs a loopback host or `allow_http`. Raises
    `UserError` for an override that cannot be used.
    """

    def __init__(self, overrides: Mapping[Service, str], *, allow_http: bool = False) -> None:
        self._overrides = {
            service: _parse(url, variable_of(service), allow_http=allow_http) for service, url in overrides.items()
        }
        self._kept: Callable[[Service, str], Endpoint] = lru_cache(maxsize=_KEPT_ENDPOINTS)(self._find)

    def of(self, service: Service, region: str) -> Endpoint:
        """Give the endpoint of a service in a region; raises `Refusal` for what cannot be a region of AWS.

        A region that botocore does not list yet is served if it looks like one of a partition's: AWS adds
        them faster than botocore is upgraded. Anything else is refused, overridden or not: a client may have
        named it, and it would become part of a host name and of a signature.
        """
        return self._kept(service, region)

    def _find(self, service: Service, region: str) -> Endpoint:
        if not (region in _REGIONS or _looks_like_region(region)):
            raise invalid("AWS has no region of that name; name one like us-east-1.")
        override = self._overrides.get(service)
        return override if override is not None else _of_aws(service, region)


def variable_of(service: Service) -> str:
    """Name the environment variable that overrides a service's endpoint, as every AWS SDK names it."""
    return f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"


def _looks_like_region(name: str) -> bool:
    return _HOST_LABEL.fullmatch(name) is not None and any(shape.fullmatch(name) for shape in _REGION_SHAPES)


@lru_cache(maxsize=8)
def _rules(service: Service) -> EndpointProvider:
    return EndpointProvider(_loader().load_service_model(service, "endpoint-rule-set-1"), _PARTITIONS)


def _of_aws(service: Service, region: str) -> Endpoint:
    resolved = _rules(service).resolve_endpoint(Region=region, UseFIPS=False, UseDualStack=False)
    url = urlsplit(resolved.url)
    return _endpoint(url, str(url.hostname))


def _endpoint(url: SplitResult, host: str) -> Endpoint:
    default_port = _PORTS[url.scheme]
    port = url.port or default_port
    bracketed = f"[{host}]" if ":" in host else host
    host_header = bracketed if port == default_port else f"{bracketed}:{port}"
    return Endpoint(url.scheme, host, port, host_header, url.path.rstrip("/"))


def _parse(text: str, variable: str, *, allow_http: bool) -> Endpoint:
    """Read an override. The sentences never repeat the URL: people put passwords into URLs."""
    url, host = _split(text, variable)
    if url.username is not None or url.password is not None:
        raise UserError(f"{variable} contains a user name or password; remove it.")
    if "?" in text or "#" in text:
        raise UserError(f"{variable} contains a query or fragment; end the URL after its path.")
    segments = url.path.lower().replace("%2e", ".").split("/")
    if not _BASE_PATH.fullmatch(url.path) or "." in segments or ".." in segments:
        raise UserError(f"The path in {variable} is not a plain one; percent-encode it, without dot segments.")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise UserError(
            f"{variable} is plain http to another machine; use https, or set PASSTHROUGH_ALLOW_HTTP_UPSTREAM=true."
        )
    return _endpoint(url, host)


def _split(text: str, variable: str) -> tuple[SplitResult, str]:
    wanted = f"{variable} is not a URL; write it like https://host.example or https://host.example:8443/path."
    # urlsplit drops tabs and newlines in silence, and what it drops could hide a different host.
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise UserError(wanted)
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:  # unbalanced brackets, a port that is no number
        raise UserError(wanted) from error
    if url.scheme not in _PORTS:
        raise UserError(f"{variable} must start with https:// (or http:// for this machine).")
    if port == 0 or url.netloc.endswith(":") or not _is_host(host):
        raise UserError(wanted)
    return url, host


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None  # a zone index has no place in a Host header (RFC 6874)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
