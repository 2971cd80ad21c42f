"""The server's certificate: renewed files are taken over by new connections, and broken ones by none."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from passthrough.certificates import Certificate
from passthrough.errors import UserError
from tests.fakes.certificates import Authority

LOOK_SECONDS = 0.01


@asynccontextmanager
async def listening(certificate: Certificate) -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context)
    async with server, asyncio.TaskGroup() as group:
        following = group.create_task(certificate.follow(LOOK_SECONDS))
        yield server.sockets[0].getsockname()[1]
        following.cancel()


async def shown(port: int, authority: Authority) -> bytes:
    """The certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.trusting())
    writer.close()
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert isinstance(found, bytes)
    return found


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = Certificate(*authority.issue("127.0.0.1"))
    async with listening(certificate) as port:
        before = await shown(port, authority)
        authority.issue("127.0.0.1")
        async with asyncio.timeout(30):
            while await shown(port, authority) == before:
                pass


@pytest.mark.parametrize("broken", ["a key that does not fit", "no certificate", "no file"])
async def test_a_certificate_that_does_not_serve_leaves_the_former_one(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("127.0.0.1")
    certificate = Certificate(chain, key)
    async with listening(certificate) as port:
        before = await shown(port, authority)
        if broken == "a key that does not fit":
            key.write_bytes(authority.issue("elsewhere.example")[1].read_bytes())
        elif broken == "no certificate":
            chain.write_text("nothing")
        else:
            chain.unlink()
        async with asyncio.timeout(30):
            while not caplog.records:  # noqa: ASYNC110  # a log has no event
                await asyncio.sleep(LOOK_SECONDS)
        assert await shown(port, authority) == before
        authority.issue("127.0.0.1")
        async with asyncio.timeout(30):
            while await shown(port, authority) == before:
                pass
    assert "cannot be used" in caplog.records[0].message


def test_files_that_do_not_serve_are_a_users_mistake(tmp_path: Path) -> None:
    chain, _ = Authority(tmp_path).issue("127.0.0.1")
    for cert, key in ((tmp_path / "nowhere", chain), (chain, chain)):
        with pytest.raises(UserError, match="The TLS certificate or key cannot be used"):
            Certificate(cert, key)


async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    assert Certificate(*Authority(tmp_path).issue("127.0.0.1")).context.minimum_version == ssl.TLSVersion.TLSv1_2
