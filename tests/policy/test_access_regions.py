"""`allowed_regions`: where a call goes, and what the ARNs in its path and body name."""

import json
from collections.abc import Callable

import pytest

from passthrough.errors import Refusal
from passthrough.policy import access
from tests.policy.test_access import HAIKU, call, key, refused

EUROPE = {"allowed_regions": ("eu-*",)}
HERE, THERE = (f"arn:aws:bedrock:{region}::foundation-model/{HAIKU}" for region in ("eu-west-1", "us-east-1"))
GENERATE, RERANK, CHAT, INLINE = (
    "/retrieveAndGenerate",
    "/rerank",
    "/openai/v1/chat/completions",
    "/agents/a-session",
)


def generating(model: str) -> str:
    return json.dumps(
        {
            "retrieveAndGenerateConfiguration": {
                "knowledgeBaseConfiguration": {"modelArn": model, "knowledgeBaseId": "K"}
            }
        }
    )


def reranking(model: str) -> str:
    configuration = {"bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": model}}}
    return json.dumps({"rerankingConfiguration": configuration})


def inline(model: str) -> str:
    return json.dumps({"collaborators": [{"foundationModel": HERE}, {"foundationModel": model}]})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, generating),
        (RERANK, reranking),
        (CHAT, lambda model: json.dumps({"model": model})),
        (INLINE, inline),
        ("/async-invoke", lambda model: json.dumps({"modelId": model})),
    ],
    ids=["generate", "rerank", "chat", "inline agent", "async"],
)
@pytest.mark.parametrize("lists", [(), ("*",)], ids=["any model", "listed models"])
def test_an_arn_in_the_body_is_of_an_allowed_region(
    path: str, body: Callable[[str], str], lists: tuple[str, ...]
) -> None:
    holder = key(*lists, **EUROPE)
    assert access.needs_body(holder, call(path))
    for model in (HAIKU, HERE, f"arn:aws:bedrock:::foundation-model/{HAIKU}"):
        assert refused(holder, call(path), body(model).encode()) is None, model
    for model in (
        THERE,
        " " + THERE,
        THERE.replace("arn:", "ARN:"),
        THERE.replace("us-east-1", "EU-WEST-1"),
        THERE.replace("us-east-1", "xx-nowhere-9"),
        "arn:aws:bedrock:eu-west-1",
        "arn:",
    ):
        refusal = refused(holder, call(path), body(model).encode())
        assert refusal is not None, model
        assert refusal.status == 403, model
    assert refused(key(*lists), call(path), body(THERE).encode()) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "a.b", "model": "' + THERE.encode() + b'"}', 400),
        (b'{"Model": "' + THERE.encode() + b'", "model": "a.b"}', 400),
        (b'\xef\xbb\xbf{"model": "' + THERE.encode() + b'"}', 400),
        (b'{"model": ["' + THERE.encode() + b'"]}', 400),
        (b'{"model": "arn\\u003aaws:bedrock:us-east-1::foundation-model/a.b"}', 403),
    ],
    ids=["twice", "by another name", "byte order mark", "in a list", "escaped"],
)
def test_a_region_cannot_be_hidden_in_a_body(body: bytes, status: int) -> None:
    refusal = refused(key(**EUROPE), call(CHAT), body)
    assert refusal is not None
    assert refusal.status == status


def test_a_key_with_regions_alone_need_not_name_a_model() -> None:
    assert refused(key(**EUROPE), call(CHAT), b"{}") is None
    assert refused(key(**EUROPE), call(GENERATE), b"") is None


def test_what_cannot_be_judged_is_not_for_a_key_with_regions() -> None:
    for path in ("/model/x/an-operation-of-tomorrow", "/openai/v1/batches"):
        refusal = refused(key(**EUROPE), call(path))
        assert refusal is not None
        assert "regions" in refusal.message
        assert refused(key(), call(path)) is None
    for name in ("content-encoding", "x-amz-target"):
        with pytest.raises(Refusal):
            access.check_headers(key(**EUROPE), call(CHAT), {name})
    access.check_headers(key(**EUROPE), call(f"/model/{HAIKU}/converse"), {"content-encoding"})


def test_every_arn_of_a_path_is_of_an_allowed_region() -> None:
    holder = key(**EUROPE)
    access.check_region(holder, "eu-west-1", [HERE, "an id"])
    with pytest.raises(Refusal, match="us-east-1"):
        access.check_region(holder, "eu-west-1", [HERE, THERE])
