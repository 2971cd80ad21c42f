"""The proxies that are measured, each started for a moment with its upstream at the stand-in.

passthrough runs as it does by default, with a key made through its own API and its ledger in PostgreSQL;
Envoy checks a static key and signs; LiteLLM checks its master key alone, since its virtual keys need a database
client that is downloaded at run time.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from envoy_settings import envoy_settings
from loading import ENDLESS, MODEL, Target
from processes import Cores, free_port, running

MASTER_KEY = "sk-master-key-of-the-benchmark"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDOFTHEBENCHMARK",
    "AWS_SECRET_ACCESS_KEY": "secret/of/the/benchmark",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Stage:
    """What all contenders share: cores, a folder for their files, the stand-in's ports, and PostgreSQL."""

    cores: Cores
    folder: Path
    port: int
    tls_port: int
    certificate: Path
    database_url: str
    database: int

    def upstream(self, *, tls: bool) -> str:
        return f"https://localhost:{self.tls_port}" if tls else f"http://127.0.0.1:{self.port}"


Contender = Callable[[Stage, bool], AbstractContextManager[Target]]


@contextmanager
def direct(stage: Stage, tls: bool) -> Iterator[Target]:  # noqa: ARG001, FBT001  # one interface for all
    """No proxy: what the load and the upstream take by themselves."""
    yield Target(stage.port, "", "none", os.getpid(), stage.port)


@contextmanager
def passthrough(stage: Stage, tls: bool) -> Iterator[Target]:  # noqa: FBT001  # one interface for all
    port = free_port()
    environment = {
        **CREDENTIALS,
        "PASSTHROUGH_MASTER_KEY": MASTER_KEY,
        "PASSTHROUGH_DATA_DIR": str(stage.folder / "passthrough"),
        "DATABASE_URL": stage.database_url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": stage.upstream(tls=tls),
        "PASSTHROUGH_ALLOW_HTTP_UPSTREAM": "true",
        **({"AWS_CA_BUNDLE": str(stage.certificate)} if tls else {}),
    }
    command = [sys.executable, "-m", "passthrough", "serve", "--migrate", "--workers", "1", "--port", str(port)]
    log = stage.folder / "passthrough.log"
    with running(command, port=port, cores=stage.cores.proxy, environment=environment, log=log) as process:
        yield Target(port, "/bedrock", _virtual_key(port), process, stage.port, stage.database)


def _virtual_key(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/key/generate",
        data=json.dumps({"models": ["anthropic.*"], "user_id": "benchmark"}).encode(),
        headers={"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        key: str = json.load(answer)["key"]
        return key


@contextmanager
def bare(stage: Stage, tls: bool) -> Iterator[Target]:  # noqa: ARG001, FBT001  # one interface; plain only
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(port), str(stage.port)]
    log = stage.folder / "bare.log"
    with running(command, port=port, cores=stage.cores.proxy, environment={}, log=log) as process:
        yield Target(port, "/bedrock", "none", process, stage.port)


@contextmanager
def envoy(stage: Stage, tls: bool) -> Iterator[Target]:  # noqa: FBT001  # one interface for all
    found = find_spec("envoy")
    if found is None or found.origin is None:
        raise SystemExit("Envoy is not installed: run with `uv run --group bench`.")
    port, key = free_port(), "sk-key-of-the-benchmark"
    settings = stage.folder / "envoy.json"
    upstream = stage.tls_port if tls else stage.port
    written = envoy_settings(port, upstream, key, certificate=stage.certificate if tls else None)
    settings.write_text(json.dumps(written))
    binary = Path(found.origin).parent / "_bin" / "envoy"
    command = [str(binary), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c", str(settings)]
    log = stage.folder / "envoy.log"
    with running(command, port=port, cores=stage.cores.proxy, environment=CREDENTIALS, log=log) as process:
        yield Target(port, "/bedrock", key, process, stage.port)


@contextmanager
def litellm(stage: Stage, tls: bool) -> Iterator[Target]:  # noqa: ARG001, FBT001  # one interface; plain only
    port = free_port()
    binary = _litellm_binary(stage.folder)
    settings = stage.folder / "litellm.json"
    models = [_litellm_model(unquote(name), stage.upstream(tls=False)) for name in (MODEL, ENDLESS)]
    settings.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": MASTER_KEY}}))
    environment = {**CREDENTIALS, "AWS_BEDROCK_RUNTIME_ENDPOINT": stage.upstream(tls=False)}
    command = [str(binary), "--config", str(settings), "--port", str(port), "--num_workers", "1"]
    log = stage.folder / "litellm.log"
    with running(command, port=port, cores=stage.cores.proxy, environment=environment, log=log) as process:
        target = Target(port, "/bedrock", MASTER_KEY, process, stage.port)
        _first_answer(target)
        yield target


def _litellm_model(name: str, upstream: str) -> dict[str, Any]:
    parameters = {"model": f"bedrock/{name}", "aws_region_name": "us-east-1", "aws_bedrock_runtime_endpoint": upstream}
    return {"model_name": name, "litellm_params": parameters}


def _litellm_binary(folder: Path) -> Path:
    """LiteLLM in an environment of its own, thrown away with the folder."""
    home = folder / "litellm"
    if not home.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(home)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), "litellm[proxy]"]
        subprocess.run(install, check=True)
    return home / "bin" / "litellm"


def _first_answer(target: Target) -> None:
    """Wait for it: LiteLLM loads what a call needs with the first one."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}{target.prefix}/model/{MODEL}/converse",
        data=b'{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}',
        headers={"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
