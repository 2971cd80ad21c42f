"""A sandbox for each test, and real boto3 clients that call it."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiohttp import ClientSession, DummyCookieJar
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from passthrough.sandbox import Received, Sandbox
from tests.sandbox.client import make_client

Clients = Callable[..., Any]


@pytest.fixture
def journal() -> list[Received]:
    """Every request that the sandbox of this test received."""
    return []


@pytest.fixture
async def sandbox(journal: list[Received]) -> AsyncIterator[Sandbox]:
    async with Sandbox(pace_seconds=0, on_request=journal.append) as opened:
        yield opened


@pytest.fixture(scope="session")
def session() -> boto3.session.Session:
    """One for all tests: it keeps the service models, which take most of a client's making."""
    return boto3.session.Session()


@pytest.fixture
def clients(session: boto3.session.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Makes boto3 clients (`make_client` without its session) that do not retry."""
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    opened: list[Any] = []

    def client(*arguments: Any, **settings: Any) -> Any:
        opened.append(make_client(session, *arguments, **settings))
        return opened[-1]

    yield client
    for made in opened:
        made.close()


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    """For requests that no SDK would make."""
    async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that trusts itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
