"""The OpenAPI document as a page for people: plain HTML, without scripts, that fetches nothing from anywhere."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
details { margin: .4rem 0; padding: .3rem .6rem; border: 1px solid #8886; border-radius: .4rem; }
summary { cursor: pointer; }
code, th { font-family: ui-monospace, monospace; }
summary b { display: inline-block; min-width: 3.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0; border-bottom: 1px solid #8883; }
th { font-weight: normal; white-space: nowrap; }
.idle { opacity: .6; }
"""


def page(document: Mapping[str, Any]) -> bytes:
    """Render the whole document."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(document, method, path, operation))
    info = document["info"]
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in by_tag.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} admin API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        "<p>Send the master key as <code>Authorization: Bearer KEY</code>. The same as a document: "
        f'<a href="openapi.json">openapi.json</a>.</p>{body}</body></html>'
    ).encode()


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    title = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    parts = [f"<details><summary>{title}</summary>"]
    if operation["parameters"]:
        rows = [_row(document, p["name"], p["schema"], required=p["required"]) for p in operation["parameters"]]
        parts.append(f"<h4>Parameters</h4>{_table(rows)}")
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<h4>Body</h4>{_fields(document, schema)}")
    answer = operation["responses"]["200"]["content"]["application/json"].get("schema")
    if answer:
        parts.append(f"<h4>Answer</h4>{_fields(document, answer)}")
    refusals = [
        f"<tr><th>{status}</th><td>{escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
        if status != "200"
    ]
    parts.append(f"<h4>Refusals</h4>{_table(refusals)}</details>")
    return "".join(parts)


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    target = _resolved(document, schema)
    if "properties" not in target:
        return f"<p>{_type(document, schema)}</p>"
    required = set(target.get("required", ()))
    rows = [_row(document, name, field, required=name in required) for name, field in target["properties"].items()]
    return f"<p>{escape(target.get('description', ''))}</p>{_table(rows)}"


def _row(document: Mapping[str, Any], name: str, schema: Mapping[str, Any], *, required: bool) -> str:
    idle = "Not acted on" in str(schema.get("description", ""))
    style = ' class="idle"' if idle else ""
    note = ", required" if required else ""
    return f"<tr{style}><th>{escape(name)}</th><td>{_type(document, schema)}{note}</td></tr>"


def _type(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(document, part) for part in schema["anyOf"])
    if "enum" in schema:
        words = "not acted on: only null, empty or false" if {} in schema["enum"] else None
        return escape(words or " | ".join(map(str, schema["enum"])))
    if "$ref" in schema:
        return f"<i>{escape(str(schema['$ref']).rpartition('/')[2])}</i>"
    if schema.get("type") == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    limits = [f"{word} {schema[name]}" for name, word in _LIMITS if name in schema]
    words = " ".join([str(schema.get("format") or schema.get("type", "anything")), *limits])
    return escape(words)


_LIMITS: Final = (
    ("minimum", "from"),
    ("maximum", "up to"),
    ("minLength", "of at least"),
    ("maxLength", "of at most"),
    ("default", "= "),
)


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][str(schema["$ref"]).rpartition("/")[2]]
    return found


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"
