"""Routing: which targets are refused, so that nobody behind us reads another path than we judged."""

from contextlib import suppress
from time import process_time

import pytest

from passthrough.errors import Refusal
from passthrough.proxy.route import METHODS, route


def refused(method: str, target: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        route(method, target)
    return caught.value


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/bedrock",
        "/bedrock/",
        "/bedrock//model/m/converse",
        "/bedrock-runtime/",
        "/bedrock-runtime//x",
        "/model/m/converse",
        "/bedrock/dream",
        "/bedrock/Model/m/converse",
        "/bedrock/%6Dodel/m/converse",
        "/%62edrock/model/m/converse",
        "/BEDROCK/rerank",
        "/bedrock-agent/agents",
        "/bedrock/foundation-model-availability/m",
        "/bedrock/guardrails",
        "/bedrock/inference-profiles/",
        "/bedrock/foundation-models/m/dream",
        "/bedrock?/model/m/converse",
    ],
)
def test_a_path_of_no_service_is_an_unknown_operation(target: str) -> None:
    refusal = refused("GET", target)
    assert (refusal.status, refusal.code) == (404, "UnknownOperationException")


DOTS = [
    "/..",
    "/.",
    "/%2e%2e",
    "/%2E.",
    "/.%2e",
    "/x%2F..%2Fy",
    "/x%2f%2e%2e",
    "/..%2Fy",
    "/..;a=b",
    "/%2e%2e%3Bx",
    "/x/../y",
    "/./y",
    "/%252e%252e",
    "/%252E.",
    "/x%252f..%252fy",
    "/..%252fy",
    "/%25252e%25252e",
]


UNSAFE = [
    "/\x00",
    "/%00",
    "/%2500",
    "/%7F",
    "/%7f",
    "/\x7f",
    "/%0d%0aX:y",
    "/%1b",
    "/%C2%85",
    "/\\..",
    "/%5C..%5C",
    "/%5c",
    "/%255c",
    "/ ",
    "/\t",
    "/é",
    "/\udcff",
    "/%",
    "/%2",
    "/%zz",
    "/%u002e",
    "/#",
    "/a#b",
    "/%FF",
    "/%C0%AE%C0%AE",
    "/%ED%B0%80",
    "/%" + "25" * 9 + "41",
]


@pytest.mark.parametrize("part", DOTS + UNSAFE)
@pytest.mark.parametrize(
    "around",
    [
        "/bedrock/model{}/converse",
        "/bedrock/model/m{}/invoke",
        "/bedrock{}/model/m/converse",
        "/bedrock/rerank{}",
        "/bedrock/sessions{}/",
        "/bedrock-runtime{}",
        "/bedrock/openai/v1{}",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused(part: str, around: str) -> None:
    refusal = refused("POST", around.replace("{}", part))
    assert (refusal.status, refusal.code) == (400, "ValidationException")


@pytest.mark.parametrize(
    "target", ["", "*", "bedrock/rerank", "http://aws/bedrock/rerank", "host:443", "?", "?/bedrock/rerank"]
)
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    assert refused("POST", target).status == 400


@pytest.mark.parametrize(
    "model", ["a%2541", "a%25", "us%252Eanthropic.x", "arn%253Aaws", "x" * 2049, "%41" * 2049, "x/" * 1024 + "x"]
)
def test_a_model_id_encoded_twice_or_too_long_is_refused(model: str) -> None:
    refusal = refused("POST", f"/bedrock/model/{model}/converse")
    assert (refusal.status, refusal.param) == (400, "modelId")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/model/m/conver%73e"),
        ("POST", "/model/m%2Fconverse"),
        ("POST", "/model%2Fm/converse"),
        ("POST", "/agents/A%2FagentAliases%2FB%2Fsessions%2FS%2Ftext"),  # InvokeInlineAgent or InvokeAgent?
        ("PUT", "/sessions/s%2F"),
        ("GET", "/flows/F/aliases/A/executions/E%2Fevents"),
    ],
)
def test_an_operation_hidden_behind_escapes_is_refused(method: str, path: str) -> None:
    target = f"/bedrock-runtime{path}" if path.startswith("/model") else f"/bedrock{path}"
    assert refused(method, target).status == 400


@pytest.mark.parametrize("verb", ["invoke-with-bidirectional-stream", "invoke-with-bidirectional-stream-websocket"])
@pytest.mark.parametrize(
    "shape",
    ["/bedrock/model/m/{}", "/bedrock-runtime/model/arn:x/y/{}", "/bedrock/model/m/{}/", "/bedrock/model/m%2F{}"],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_bidirectional_streaming_is_refused_in_so_many_words(verb: str, shape: str, method: str) -> None:
    refusal = refused(method, shape.format(verb))
    assert (refusal.status, refusal.code) == (400, "ValidationException")
    assert "not supported" in refusal.message


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "post", "", "BREW"])
def test_a_method_of_no_operation_is_refused_with_those_that_are_allowed(method: str) -> None:
    refusal = refused(method, "/bedrock/model/m/converse")
    assert (refusal.status, refusal.code) == (405, "UnknownOperationException")
    assert set(refusal.headers["Allow"].split(", ")) == METHODS


@pytest.mark.parametrize("query", ["a=b#c", "a b", "a=\x00", "a=\x7f", "a=\udcff", "q" * 20_001])
def test_a_query_that_no_url_can_have_is_refused(query: str) -> None:
    assert refused("GET", f"/bedrock/async-invoke?{query}").status == 400


@pytest.mark.parametrize(
    "target",
    [
        "/bedrock/flows/" + "/executions/".join(["arn:x/aliases/arn:x"] * 600),
        "/bedrock/flows/" + "/aliases/arn:x" * 1400,
        "/bedrock/model/arn:" + "/a" * 9900,
        "/bedrock/model/" + "%25" * 6600,
        "/bedrock/tags/" + "arn:/" * 3900,
    ],
)
def test_a_target_made_to_keep_us_busy_takes_no_time(target: str) -> None:
    begun = process_time()
    with suppress(Refusal):
        route("GET", target)
    assert process_time() - begun < 1  # milliseconds, in truth; a backtracking match would take minutes
