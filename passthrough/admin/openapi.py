"""The OpenAPI 3.1 document, made from the endpoints that are served and the types that validate."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from passthrough import __version__
from passthrough.admin.endpoint import Endpoint, ErrorAnswer
from passthrough.admin.schemas.fields import JSON_VALUE, NOTHING, Idle

_TEMPLATE: Final = "#/components/schemas/{name}"
_EVERYBODYS: Final = {
    400: "The request does not fit; the message names the field.",
    401: "No key, or one that does not open anything.",
    403: "The key may not do this.",
    413: "The body is larger than a mebibyte.",
    503: "The database is away at the moment.",
}
_DESCRIPTION: Final = (
    "Keys, their owners, limits and spend. Field names are LiteLLM's; its fields that passthrough does not act on "
    "may be null, empty or false, and are refused otherwise."
)


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Describe all endpoints; JSON that says what is served, no more and no less."""
    endpoints = list(endpoints)
    bodies, queries, answers = (
        [kind for endpoint in endpoints if (kind := getattr(endpoint, part)) is not None]
        for part in ("body", "query", "answer")
    )
    kinds = _distinct([*bodies, *queries, *answers, ErrorAnswer])
    schemas, components = msgspec.json.schema_components(kinds, schema_hook=_idle, ref_template=_TEMPLATE)
    by_kind = list(zip(kinds, (_exact(schema) for schema in schemas), strict=True))
    components = {name: _exact(schema) for name, schema in components.items()}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        described = _operation(endpoint, lambda kind: _of(by_kind, kind), components)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = described
    asked = {_name(_of(by_kind, kind)) for kind in queries}
    components = {name: schema for name, schema in components.items() if name not in asked}
    return {
        "openapi": "3.1.0",
        "info": {"title": "passthrough", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": {**components, "JsonValue": JSON_VALUE},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}],
    }


def _operation(endpoint: Endpoint, schema_of: Any, components: Mapping[str, Any]) -> dict[str, Any]:
    words = re.findall(r"\w+", endpoint.path)
    operation: dict[str, Any] = {
        "operationId": "_".join([endpoint.method.lower(), *words]),
        "tags": [endpoint.tag or next(word for word in words if word != "v2")],
        "summary": endpoint.summary,
        "parameters": [
            *(_path_parameter(name) for name in re.findall(r"\{(\w+)\}", endpoint.path)),
            *(_query_parameters(components[_name(schema_of(endpoint.query))]) if endpoint.query is not None else ()),
        ],
        "responses": _responses(endpoint, schema_of),
    }
    if endpoint.body is not None:
        body = schema_of(endpoint.body)
        required = bool(components[_name(body)].get("required"))
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
    return operation


def _responses(endpoint: Endpoint, schema_of: Any) -> dict[str, Any]:
    content = {"schema": schema_of(endpoint.answer)} if endpoint.answer is not None else {}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": {"application/json": content}}}
    error = {"application/json": {"schema": schema_of(ErrorAnswer)}}
    for status, meaning in sorted({**_EVERYBODYS, **endpoint.refuses}.items()):
        responses[str(status)] = {"description": meaning, "content": error}
    return responses


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[!-.0-~]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(schema: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    required = set(schema.get("required", ()))
    for name, described in schema["properties"].items():
        yield {"name": name, "in": "query", "required": name in required, "schema": _never_null(described)}


def _never_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A query has no null: a parameter that may be null may be left out."""
    alternatives = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    default = {"default": schema["default"]} if schema.get("default") is not None else {}
    if not alternatives:
        if None in schema.get("enum", ()):
            rest["enum"] = [value for value in schema["enum"] if value is not None]
        return {**rest, **default}
    return {**rest, **(alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}), **default}


def _idle(kind: type) -> dict[str, Any]:
    if kind is Idle:
        return {"enum": list(NOTHING), "description": "Not acted on: may only ask for nothing."}
    raise NotImplementedError(kind)


def _exact(schema: Any) -> Any:
    """Say exactly what msgspec says roughly: a decimal goes out as a number, a float without fraction is an integer."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal":
            return {"type": "number"}
        if schema.get("multipleOf") == 1:
            rest = {name: value for name, value in schema.items() if name != "multipleOf"}
            return {**rest, "type": "integer"}
        return {name: _exact(value) for name, value in schema.items()}
    return [_exact(item) for item in schema] if isinstance(schema, list) else schema


def _distinct(kinds: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for kind in kinds:
        if kind not in found:
            found.append(kind)
    return found


def _of(by_kind: list[tuple[Any, Any]], kind: Any) -> dict[str, Any]:
    return dict(next(schema for known, schema in by_kind if known == kind))


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
