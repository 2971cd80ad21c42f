"""Envoy as a proxy of the same kind: a key is checked, the prefix removed, the request signed, the answer relayed.

Facts behind it: `aws_request_signing` has to be an upstream filter, since one of the listener signs before the
router rewrites the path; both buffer limits have to be raised, because signing buffers the body; what Envoy adds
(`x-envoy-*`, `x-request-id`) is neither sent nor signed; access logs and statistics sinks are off, as by default.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/aws_request_signing_filter
"""

from pathlib import Path
from typing import Any

BUFFER_BYTES = 32 * 1024 * 1024
HOST = "bedrock-runtime.us-east-1.amazonaws.com"
_HTTP = "envoy.extensions.filters.http"
_NETWORK = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def _filter(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": _typed(kind, **fields)}


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_settings(port: int, upstream: int, key: str, *, certificate: Path | None) -> dict[str, Any]:
    """Return the bootstrap configuration. `certificate`: what signs the upstream's, when it speaks TLS."""
    return {"static_resources": {"listeners": [_listener(port, key)], "clusters": [_cluster(upstream, certificate)]}}


def _listener(port: int, key: str) -> dict[str, Any]:
    keys = _filter(
        "envoy.filters.http.api_key_auth",
        f"{_HTTP}.api_key_auth.v3.ApiKeyAuth",
        credentials=[{"key": key, "client": "benchmark"}],
        key_sources=[{"header": "Authorization"}, {"header": "x-api-key"}],
        forwarding={"header": "x-client-id", "hide_credentials": True},
    )
    host = {
        "name": "all",
        "domains": ["*"],
        "request_headers_to_remove": [
            "x-client-id",
            "x-forwarded-proto",
            "x-request-id",
            "x-envoy-expected-rq-timeout-ms",
        ],
        "routes": [
            {
                "match": {"prefix": "/bedrock/"},
                "route": {
                    "cluster": "bedrock",
                    "prefix_rewrite": "/",
                    "timeout": "0s",
                    "host_rewrite_literal": HOST,
                },
            }
        ],
    }
    manager = _filter(
        "envoy.filters.network.http_connection_manager",
        _NETWORK,
        stat_prefix="in",
        stream_idle_timeout="0s",
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        http_filters=[keys, _filter("envoy.filters.http.router", f"{_HTTP}.router.v3.Router")],
        route_config={"virtual_hosts": [host]},
    )
    return {
        "name": "bedrock",
        "address": _socket(port),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [{"filters": [manager]}],
    }


def _cluster(port: int, certificate: Path | None) -> dict[str, Any]:
    signing = _filter(
        "envoy.filters.http.aws_request_signing",
        f"{_HTTP}.aws_request_signing.v3.AwsRequestSigning",
        service_name="bedrock",
        region="us-east-1",
        use_unsigned_payload=False,
        match_excluded_headers=[
            {"prefix": "x-envoy"},
            {"prefix": "x-forwarded"},
            {"exact": "x-amzn-trace-id"},
            {"exact": "x-request-id"},
        ],
    )
    options = _typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http_protocol_options": {}},
        http_filters=[
            signing,
            _filter("envoy.filters.http.upstream_codec", f"{_HTTP}.upstream_codec.v3.UpstreamCodec"),
        ],
    )
    return {
        "name": "bedrock",
        "type": "STATIC",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        # the default of 1,024 requests at once is a circuit breaker's, not a capacity
        "circuit_breakers": {"thresholds": [{"max_connections": 65536, "max_requests": 65536}]},
        "load_assignment": {
            "cluster_name": "bedrock",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        **({"transport_socket": _tls(certificate)} if certificate else {}),
    }


def _tls(certificate: Path) -> dict[str, Any]:
    return _filter(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni="localhost",
        common_tls_context={
            "validation_context": {
                "trusted_ca": {"filename": str(certificate)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
            }
        },
    )
