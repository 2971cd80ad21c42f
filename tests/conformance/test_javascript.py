"""AWS's SDK for JavaScript, by the README's recipe. Needs node, and npm with a registry; skipped without."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Wire
from tests.conformance.judge import signature_of, untouched
from tests.conformance.test_readme import REPLY, here, recipe
from tests.fakes.running import Blocking

INSTALL_SECONDS = 60.0  # some five where the registry is near
PACKAGES = ("@aws-sdk/client-bedrock-runtime", "@aws-sdk/client-bedrock-agent-runtime", "@smithy/node-http-handler")
PROLOGUE = """
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand }
  from "@aws-sdk/client-bedrock-runtime";
import { BedrockAgentRuntimeClient, RetrieveCommand, InvokeAgentCommand }
  from "@aws-sdk/client-bedrock-agent-runtime";
import { NodeHttpHandler } from "@smithy/node-http-handler";
const KEY = process.argv[2];
"""
CALLS = """
const modelId = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc";
const messages = [{ role: "user", content: [{ text: "Hello" }] }];
const whole = await client.send(new ConverseCommand({ modelId, messages }));
let streamed = "";
for await (const event of (await client.send(new ConverseStreamCommand({ modelId, messages }))).stream)
  streamed += event.contentBlockDelta?.delta?.text ?? "";
const invoked = await client.send(new InvokeModelCommand({
  modelId: "sandbox.echo", contentType: "text/plain", body: "ä",
}));
const agents = new BedrockAgentRuntimeClient({
  ...{ region: "us-east-1", endpoint: await client.config.endpoint(), credentials: client.config.credentials },
  requestHandler: new NodeHttpHandler(),
});
const found = await agents.send(new RetrieveCommand({
  knowledgeBaseId: "KB12345678", retrievalQuery: { text: "q" },
}));
let completed = 0;
for await (const event of (await agents.send(new InvokeAgentCommand({
  agentId: "AGENT12345", agentAliasId: "TSTALIASID", sessionId: "s1", inputText: "hi",
}))).completion) completed += event.chunk?.bytes?.length ?? 0;
console.log(JSON.stringify({
  whole: whole.output.message.content[0].text, streamed, echoed: new TextDecoder().decode(invoked.body),
  results: found.retrievalResults.length, completed,
}));
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK in it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "package.json").write_text('{"type": "module"}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=10000", *PACKAGES]
    try:
        done = subprocess.run(  # noqa: S603  # literal names
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry is too slow")
    if done.returncode:
        pytest.skip(f"npm cannot install the SDK: {done.stderr[-200:]}")
    return folder


def test_the_javascript_sdk_invokes_and_streams(project: Path, proxy: Blocking, wire: Wire, key: str) -> None:
    script = project / "recipe.js"
    script.write_text(PROLOGUE + here(recipe("JavaScript SDK v3", "js"), proxy) + CALLS)

    done = subprocess.run(  # noqa: S603  # our own script
        ["node", str(script), key],  # noqa: S607  # whichever node there is
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["whole"].startswith(REPLY)
    assert said["streamed"] == said["whole"]
    assert said["echoed"] == "ä"
    assert said["results"] > 0
    assert said["completed"] > 0
    assert len(wire.exchanges) == 5
    for exchange in wire.exchanges:
        untouched(exchange)
        # it sends the hash of its body, which goes up and is signed
        assert "x-amz-content-sha256" in signature_of(exchange.forwarded).headers
    assert key.encode() not in wire.upstream_bytes
