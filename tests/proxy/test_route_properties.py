"""Routing, over whatever may come."""

from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from passthrough.bedrock.operations import Operation, operations
from passthrough.errors import Refusal
from passthrough.proxy.route import METHODS, route

PIECES = st.sampled_from(
    [
        "/",
        "bedrock",
        "bedrock-runtime",
        "model",
        "agents",
        "sessions",
        "arn:",
        "arn%3A",
        "converse",
        "aliases",
        "flows",
        "%",
        "%2",
        "%2e",
        "%2F",
        "%5C",
        "%25",
        "..",
        ".",
        "?",
        "#",
        "*",
        ":",
        "é",
        "\udc80",
        "\x00",
        "v1",
        "inference-profiles",
        "x" * 600,
    ]
)


@given(
    st.sampled_from([*sorted(METHODS), "OPTIONS", ""]) | st.text(max_size=4),
    st.text() | st.lists(PIECES).map("".join).map("/bedrock/".__add__),
)
@example("GET", "\ud800")
def test_whatever_comes_is_routed_unchanged_or_refused(method: str, target: str) -> None:
    try:
        call = route(method, target)
    except Refusal:
        return
    path, _, query = target.partition("?")
    assert path.endswith(call.path)
    assert path.removesuffix(call.path) in {"/bedrock", "/bedrock-runtime", "/bedrock-agent-runtime"}
    assert call.query == query


@given(
    st.sampled_from(operations()),
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="\\%"), min_size=1, max_size=40
    ),
)
def test_a_label_quoted_into_a_path_comes_back(operation: Operation, label: str) -> None:
    path = operation.uri
    for name in operation.labels:
        path = path.replace(f"{{{name}}}", quote(label, safe=""))
    prefix = "bedrock" if operation.service == "bedrock" else operation.service
    try:
        call = route(operation.method, f"/{prefix}{path}")
    except Refusal:
        # A label can hide another path, in dots or in slashes, or be an operation's name. Nothing else is refused.
        assert operation.duplex or "/" in label or label.partition(";")[0] in {".", ".."}
        return
    assert call.operation == operation
    assert call.labels == dict.fromkeys(operation.labels, label)
    assert call.path == path
