"""curl and the AWS CLI, in more ways than the README has room for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.eventstream import EventStreamBuffer

from tests.conformance.conftest import Wire
from tests.conformance.judge import signature_of, untouched
from tests.fakes.running import PATIENCE_SECONDS, Blocking

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
CLAUDE = (
    '{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}'
)
HELLO = '{"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}'
JSON = "Content-Type: application/json"
KEYS = {
    "bearer": ["-H", "Authorization: Bearer {key}"],
    "sigv4": ["--aws-sigv4", "aws:amz:us-east-1:bedrock", "--user", "{key}:anything"],
    "basic": ["--user", "me:{key}"],
}


def run(*command: str, **environment: str) -> bytes:
    """Standard output of a command that succeeded."""
    done = subprocess.run(  # noqa: S603  # literal commands
        list(command),
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1", **environment},
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
@pytest.mark.parametrize("place", KEYS)
def test_curl_converses(place: str, proxy: Blocking, wire: Wire, key: str) -> None:
    given = [argument.format(key=key) for argument in KEYS[place]]

    said = run("curl", "-sSf", *given, "-H", JSON, "-d", HELLO, f"{proxy.bedrock}/model/{MODEL}/converse")

    assert json.loads(said)["stopReason"] == "end_turn"
    untouched(wire.exchange)
    signature_of(wire.exchange.forwarded)
    assert key.encode() not in wire.upstream_bytes


@needs_curl
def test_curl_streams(proxy: Blocking, wire: Wire, key: str) -> None:
    url = f"{proxy.bedrock}/model/{MODEL}/converse-stream"

    said = run("curl", "-sSfN", "-H", f"x-api-key: {key}", "-H", JSON, "-d", HELLO, url)

    frames = EventStreamBuffer()
    frames.add_data(said)
    assert [event.headers[":event-type"] for event in frames][-2:] == ["messageStop", "metadata"]
    untouched(wire.exchange)


def test_the_aws_cli_invokes_retrieves_and_reads_refusals(
    proxy: Blocking, wire: Wire, key: str, tmp_path: Path
) -> None:
    aws = str(Path(sys.executable).parent / "aws")
    out = tmp_path / "answer.json"
    known = {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": proxy.bedrock,
        "AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME": proxy.bedrock,
    }

    run(aws, "bedrock-runtime", "invoke-model", "--model-id", MODEL, "--body", CLAUDE, str(out), **known)
    question = "--knowledge-base-id", "KB12345678", "--retrieval-query", '{"text": "q"}'
    found = run(aws, "bedrock-agent-runtime", "retrieve", *question, **known)

    assert json.loads(out.read_bytes())["stop_reason"] == "end_turn"
    assert json.loads(found)["retrievalResults"]
    for exchange in wire.exchanges:
        untouched(exchange)
    assert key.encode() not in wire.upstream_bytes
    with pytest.raises(AssertionError, match=r"UnrecognizedClientException.*The virtual key is not valid"):
        run(aws, "bedrock-runtime", "list-async-invokes", **{**known, "AWS_ACCESS_KEY_ID": "sk-of-nobody"})
