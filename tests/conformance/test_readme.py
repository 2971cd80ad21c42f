"""The README's recipes, run as they stand there: only addresses and the key are put in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import boto3
import openai
import pytest
from botocore.config import Config
from langchain_aws import ChatBedrockConverse

from tests.conformance.conftest import Wire
from tests.fakes.certificates import Authority
from tests.fakes.running import PATIENCE_SECONDS, Blocking

README = (Path(__file__).parents[2] / "README.md").read_text()
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": [{"text": "Hello"}]}]
REPLY = "This is the passthrough sandbox"


def recipe(heading: str, language: str, which: int = 0) -> str:
    """A block of code below a heading."""
    section = re.split(r"\n##", README.split(f"\n### {heading}\n", 1)[1], maxsplit=1)[0]
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return blocks[which]


def here(text: str, proxy: Blocking, secure: Blocking | None = None) -> str:
    text = text.replace("http://127.0.0.1:4000", proxy.url)
    return text.replace("https://proxy.example", secure.url) if secure else text


def python(text: str, **names: Any) -> dict[str, Any]:
    """Run a recipe; the names that it made."""
    known = {"boto3": boto3, "Config": Config, "os": os, **names}
    exec(text, known)  # noqa: S102  # our own README
    return known


def shell(text: str, proxy: Blocking, key: str) -> str:
    done = subprocess.run(  # noqa: S603  # our own README
        ["bash", "-ec", here(text, proxy)],  # noqa: S607  # whichever bash the reader has
        env={**os.environ, "KEY": key, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["output"]["message"]["content"][0]["text"])


@pytest.mark.parametrize("heading", ["curl", "AWS CLI"])
def test_the_recipes_of_the_shell(heading: str, proxy: Blocking, wire: Wire, key: str) -> None:
    if heading == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert REPLY in shell(recipe(heading, "sh"), proxy, key)
    assert key.encode() not in wire.upstream_bytes


def test_boto3_with_the_key_as_its_access_key_id(proxy: Blocking, wire: Wire, key: str) -> None:
    client = python(here(recipe("boto3", "python"), proxy), KEY=key)["bedrock"]

    assert REPLY in text_of(client.converse(modelId=MODEL, messages=HELLO))

    client.close()
    assert key.encode() not in wire.upstream_bytes


def test_boto3_with_the_key_as_a_bedrock_api_key(
    proxy: Blocking, secure: Blocking, authority: Authority, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "to be restored after the test")
    made = python(here(recipe("boto3", "python", 1), proxy, secure), KEY=key)

    assert REPLY in text_of(made["bedrock"].converse(modelId=MODEL, messages=HELLO))
    assert made["agents"].retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "q"})["retrievalResults"]

    made["bedrock"].close()
    made["agents"].close()


def test_boto3_with_the_key_in_a_header(proxy: Blocking, wire: Wire, key: str) -> None:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=proxy.bedrock,
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",
    )
    python(recipe("boto3", "python", 2), client=client, KEY=key)

    assert REPLY in text_of(client.converse(modelId=MODEL, messages=HELLO))

    client.close()
    assert key.encode() not in wire.upstream_bytes


def test_anthropics_sdk(proxy: Blocking, key: str) -> None:
    text = here(recipe("Anthropic SDK", "python"), proxy)
    with python(text, AnthropicBedrock=anthropic.AnthropicBedrock, KEY=key)["client"] as client:
        message = client.messages.create(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "Hello"}])

    assert REPLY in message.content[0].text


def test_langchain(proxy: Blocking, key: str) -> None:
    model = python(here(recipe("LangChain", "python"), proxy), ChatBedrockConverse=ChatBedrockConverse, KEY=key)[
        "model"
    ]

    assert REPLY in model.invoke("Hello").text

    model.client.close()


def test_openais_sdk(proxy: Blocking, key: str) -> None:
    text = here(recipe("OpenAI SDK", "python"), proxy)
    with python(text, OpenAI=openai.OpenAI, KEY=key)["client"] as client:
        completion = client.chat.completions.create(
            model="openai.gpt-oss-20b-1:0", messages=[{"role": "user", "content": "Hello"}]
        )

    assert REPLY in completion.choices[0].message.content


def test_claude_code_is_given_the_base_url_and_the_key_under_the_names_that_it_reads() -> None:
    given = dict(re.findall(r"export (\w+)=(\S+)", recipe("Claude Code", "sh")))

    assert given == {  # code.claude.com/docs/en/llm-gateway
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": "http://127.0.0.1:4000/bedrock",
        "ANTHROPIC_AUTH_TOKEN": "$KEY",
    }


def test_every_recipe_of_a_client_is_run_here() -> None:
    clients = README.split("\n## Use it from each client\n", 1)[1].split("\n## ", 1)[0]
    headings = set(re.findall(r"^### (.+)$", clients, re.MULTILINE))

    assert headings - {"Where the key may stand", "JavaScript SDK v3"} == {
        "curl",
        "boto3",
        "AWS CLI",
        "Anthropic SDK",
        "Claude Code",
        "LangChain",
        "OpenAI SDK",
    }
