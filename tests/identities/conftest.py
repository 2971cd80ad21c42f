import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.metadata import MetadataService
from tests.identities.machine import Log


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    handler, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any AWS credentials."""
    for name in os.environ:
        if name.startswith(("AWS_", "BOTO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
async def service() -> AsyncIterator[MetadataService]:
    async with MetadataService() as running:
        yield running


@pytest.fixture
def instance(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> MetadataService:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "30")  # what holds an answer here is the gate, not the clock
    return service


@pytest.fixture
def container(service: MetadataService, monkeypatch: pytest.MonkeyPatch) -> MetadataService:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token")
    return service
