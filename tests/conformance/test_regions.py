"""To which region a call goes, to which host, and that what was signed is for that host.

A sandbox with the certificates of AWS's hosts stands behind an outbound proxy, so that the real names are used.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from passthrough.sandbox import Received, Sandbox
from tests.conformance.judge import signature_of
from tests.fakes.certificates import Authority
from tests.fakes.outbound import Outbound, serving_any_host
from tests.fakes.running import Blocking, Running, in_thread, running
from tests.fakes.speak import ask
from tests.fakes.tap import Message

DEFAULT = "eu-north-1"
CONVERSE = "POST /bedrock/model/m/converse"
BODY = b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}'


@dataclass
class Abroad(Running):
    """A proxy that knows AWS by AWS's names."""

    outbound: Outbound


@asynccontextmanager
async def abroad(database_url: str, data_dir: Path, authority: Authority) -> AsyncIterator[Abroad]:
    received: list[Received] = []
    tls = serving_any_host(authority)
    async with (
        Sandbox(pace_seconds=0, on_request=received.append, ssl_context=tls) as sandbox,
        Outbound(urlsplit(sandbox.url).port or 0) as outbound,
        running(
            database_url,
            data_dir,
            upstream=sandbox.url,
            runtime_endpoint=None,
            agent_runtime_endpoint=None,
            control_endpoint=None,
            region=DEFAULT,
            https_proxy=outbound.url,
            ca_bundle=str(authority.bundle),
        ) as proxy,
    ):
        known: dict[str, Any] = {**vars(proxy), "sandbox": sandbox, "received": received}
        yield Abroad(**known, outbound=outbound)


@pytest.fixture(scope="module")
def proxy(database_at_head: str, tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Blocking]:
    folder = tmp_path_factory.mktemp("abroad")
    with in_thread(lambda: abroad(database_at_head, folder, authority)) as serving:
        yield serving


@pytest.fixture(scope="module")
def key(proxy: Blocking) -> str:
    return proxy.key()


def signed_for(region: str, *, access_key: str) -> str:
    return (
        f"Authorization: AWS4-HMAC-SHA256 Credential={access_key}/20261121/{region}/bedrock/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    )


def went_to(proxy: Blocking, host: str) -> str:
    """The region that the last call was signed for, by a valid signature for that host."""
    received = proxy.received[-1]
    start = f"{received.method} {received.target} HTTP/1.1".encode()
    message = Message(start, list(received.headers), received.body, chunked=False)
    assert message.values("host") == [host]
    return signature_of(message).region


HOSTS = {
    ("POST /model/m/converse", "us-east-1"): "bedrock-runtime.us-east-1.amazonaws.com",
    ("POST /model/m/converse", "eu-central-2"): "bedrock-runtime.eu-central-2.amazonaws.com",
    ("POST /model/m/converse", "us-gov-west-1"): "bedrock-runtime.us-gov-west-1.amazonaws.com",
    ("POST /model/m/converse", "cn-north-1"): "bedrock-runtime.cn-north-1.amazonaws.com.cn",
    ("POST /model/m/converse", "eusc-de-east-1"): "bedrock-runtime.eusc-de-east-1.amazonaws.eu",
    ("POST /knowledgebases/KB12345678/retrieve", "us-west-2"): "bedrock-agent-runtime.us-west-2.amazonaws.com",
    ("POST /openai/v1/chat/completions", "us-west-2"): "bedrock-runtime.us-west-2.amazonaws.com",
    ("POST /anthropic/v1/messages", "us-west-2"): "bedrock-runtime.us-west-2.amazonaws.com",
    ("GET /inference-profiles?type=SYSTEM_DEFINED", "us-west-2"): "bedrock.us-west-2.amazonaws.com",
    ("GET /foundation-models", "cn-northwest-1"): "bedrock.cn-northwest-1.amazonaws.com.cn",
}


@pytest.mark.parametrize(("line", "region"), HOSTS)
def test_a_call_goes_to_aws_s_own_host_and_is_signed_for_it(line: str, region: str, proxy: Blocking, key: str) -> None:
    assert isinstance(proxy.proxy, Abroad)
    host = HOSTS[line, region]
    proxy.proxy.outbound.asked.clear()

    ask(proxy.url, line.replace(" ", " /bedrock", 1), signed_for(region, access_key=key), body=BODY)

    assert went_to(proxy, host) == region
    assert set(proxy.proxy.outbound.asked) <= {f"{host}:443"}  # none when a connection was at hand
    assert proxy.rows()[-1]["region"] == region


def arn(region: str) -> str:
    return f"arn:aws:bedrock:{region}:123456789012:inference-profile/us.anthropic.claude-3-5-haiku-20241022-v1:0"


def test_the_first_region_that_is_told_counts(proxy: Blocking, key: str) -> None:
    pinned = proxy.key(region="ap-south-1")
    of_header = "x-passthrough-region: sa-east-1"

    def region(model: str, *fields: str) -> str:
        answer = ask(proxy.url, f"POST /bedrock/model/{model}/converse", *fields, body=BODY)
        assert answer.status == 200, answer.body
        said = str(proxy.rows()[-1]["region"])
        assert went_to(proxy, f"bedrock-runtime.{said}.amazonaws.com") == said
        return said

    encoded = quote(arn("eu-west-3"), safe="")
    everything = signed_for("ca-central-1", access_key=pinned), of_header
    assert region(encoded, *everything) == "eu-west-3"
    assert region(arn("eu-west-3"), *everything) == "eu-west-3"
    assert region("m", *everything) == "ap-south-1"
    assert region("m", signed_for("ca-central-1", access_key=key), of_header) == "ca-central-1"
    assert region("m", signed_for("ca-central-1", access_key="dummy"), f"x-api-key: {key}") == "ca-central-1"
    assert region("m", signed_for("mars-north-1", access_key=key), of_header) == "sa-east-1"
    assert region("m", f"Authorization: Bearer {key}", of_header) == "sa-east-1"
    assert region("m", signed_for("mars-north-1", access_key=key)) == DEFAULT
    assert region("m", f"Authorization: Bearer {key}") == DEFAULT


@pytest.mark.parametrize("told", ["mars-north-1", "evil.example", "us-east-1.evil.example", "US-EAST-1", "-"])
def test_a_region_that_is_none_is_refused(told: str, proxy: Blocking, key: str) -> None:
    before = len(proxy.received)

    answer = ask(proxy.url, CONVERSE, f"x-api-key: {key}", f"x-passthrough-region: {told}", body=BODY)

    assert answer.status == 400
    assert len(proxy.received) == before


@pytest.mark.parametrize("region", ["mars-north-1", "evil.example%2F", "", "us-east-1.evil.example"])
def test_an_arn_chooses_no_host_but_aws_s(region: str, proxy: Blocking, key: str) -> None:
    ask(
        proxy.url,
        f"POST /bedrock/model/arn%3Aaws%3Abedrock%3A{region}%3A1%3Aprompt%2Fx/converse",
        f"x-api-key: {key}",
        body=BODY,
    )

    assert went_to(proxy, f"bedrock-runtime.{DEFAULT}.amazonaws.com") == DEFAULT


def test_a_key_stays_in_its_regions(proxy: Blocking) -> None:
    european = proxy.key(allowed_regions=["eu-*"])

    there = ask(proxy.url, CONVERSE, signed_for("eu-west-1", access_key=european), body=BODY)
    elsewhere = ask(proxy.url, CONVERSE, signed_for("us-east-1", access_key=european), body=BODY)
    by_arn = ask(proxy.url, f"POST /bedrock/model/{arn('us-west-2')}/converse", f"x-api-key: {european}", body=BODY)

    assert (there.status, elsewhere.status, by_arn.status) == (200, 403, 403)
    assert elsewhere.value("x-amzn-ErrorType") == "AccessDeniedException"
