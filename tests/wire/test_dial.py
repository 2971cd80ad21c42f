"""TLS to upstreams, and the outbound proxy."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from passthrough.errors import Unavailable, UserError
from passthrough.wire.dial import Address, OutboundProxy, outbound_proxy, upstream_tls
from passthrough.wire.pool import Limits
from tests.fakes.certificates import Authority
from tests.fakes.peer import Peer
from tests.fakes.upstream import Incoming, Upstream, answer, answering
from tests.wire.collecting import address, ask_on, opened_pool


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def secured(authority: Authority) -> AsyncIterator[Upstream]:
    async with Upstream(answering(answer(b"secret")), tls=authority.serving("127.0.0.1")) as opened:
        yield opened


async def test_an_upstream_is_reached_over_tls(secured: Upstream, authority: Authority) -> None:
    async with opened_pool(tls=upstream_tls(str(authority.bundle))) as pool:
        for _ in range(2):
            connection = await pool.acquire(address(secured.port, tls=True))
            assert (await ask_on(connection)).body == b"secret"
    assert secured.connections == 1


async def test_the_kernel_asks_after_an_upstream_that_is_silent(upstream: Upstream) -> None:
    """A NAT gateway forgets a connection after 350 s without a packet, and AWS may think for an hour."""
    async with opened_pool() as pool:
        connection = await pool.acquire(address(upstream.port))
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, probes = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * probes <= 120


async def test_only_http_1_1_is_offered(authority: Authority) -> None:
    context = authority.serving("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    async def script(peer: Incoming) -> None:
        chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(answer(b"ok"))(peer)

    async with (
        Upstream(script, tls=context) as upstream,
        opened_pool(tls=upstream_tls(str(authority.bundle))) as pool,
    ):
        await ask_on(await pool.acquire(address(upstream.port, tls=True)))
    assert chosen == ["http/1.1"]


async def test_a_certificate_for_another_host_is_a_503(authority: Authority) -> None:
    async with (
        Upstream(tls=authority.serving("elsewhere.example")) as upstream,
        opened_pool(tls=upstream_tls(str(authority.bundle))) as pool,
    ):
        with pytest.raises(Unavailable) as caught:
            await pool.acquire(address(upstream.port, tls=True))
    assert "certificate" in caught.value.cause.lower()
    assert not upstream.requests


async def test_a_certificate_of_an_unknown_authority_is_a_503(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with (
        Upstream(tls=stranger.serving("127.0.0.1")) as upstream,
        opened_pool(tls=upstream_tls(str(authority.bundle))) as pool,
    ):
        with pytest.raises(Unavailable):
            await pool.acquire(address(upstream.port, tls=True))


async def test_an_upstream_that_speaks_no_tls_is_a_503(upstream: Upstream) -> None:
    async with opened_pool(limits=Limits(connect_seconds=0.3)) as pool:
        with pytest.raises(Unavailable):
            await pool.acquire(address(upstream.port, tls=True))


async def test_an_upstream_that_never_finishes_its_handshake_is_a_503() -> None:
    async def script(peer: Incoming) -> None:
        assert await peer.gone()

    async with Upstream(script) as upstream, opened_pool(limits=Limits(connect_seconds=0.2)) as pool:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(30):
                await pool.acquire(address(upstream.port, tls=True))


async def test_a_bundle_that_cannot_be_read_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="AWS_CA_BUNDLE"):
        upstream_tls("/nowhere/at/all.pem")


class _ForwardProxy(Upstream):
    """Answers `CONNECT` as it is told, and tunnels when that was a 200."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(self._tunnel)
        self._reply = reply

    async def _tunnel(self, peer: Incoming) -> None:
        request = await peer.request()
        await peer.send(self._reply)
        if b" 200 " not in self._reply:
            return
        host, _, port = request.target.rpartition(":")
        far = Peer(*await asyncio.open_connection(host, int(port)))
        async with far, asyncio.TaskGroup() as group:
            group.create_task(_carry(peer, far))
            group.create_task(_carry(far, peer))


async def _carry(source: Peer, target: Peer) -> None:
    while data := await source.some():
        await target.send(data)
    target.cut()


async def test_an_upstream_is_reached_through_an_outbound_proxy(secured: Upstream, authority: Authority) -> None:
    async with _ForwardProxy(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n") as forward:
        proxy = outbound_proxy(f"http://user:p%40ss@127.0.0.1:{forward.port}")
        async with opened_pool(tls=upstream_tls(str(authority.bundle)), proxy=proxy) as pool:
            for _ in range(2):
                connection = await pool.acquire(address(secured.port, tls=True))
                assert (await ask_on(connection)).body == b"secret"
    (request,) = forward.requests
    assert (request.method, request.target) == ("CONNECT", f"127.0.0.1:{secured.port}")
    assert request.value("Host") == f"127.0.0.1:{secured.port}"
    assert request.value("Proxy-Authorization") == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert secured.requests[0].value("Proxy-Authorization") is None


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"\r\n\r\n",
        b"x" * 20_000,
        b"",
    ],
    ids=["unauthorized", "bad gateway", "garbage", "nothing in it", "endless", "no answer"],
)
async def test_an_outbound_proxy_that_does_not_connect_is_a_503(secured: Upstream, reply: bytes) -> None:
    async with _ForwardProxy(reply) as forward:
        proxy = outbound_proxy(f"http://127.0.0.1:{forward.port}")
        async with opened_pool(proxy=proxy, limits=Limits(connect_seconds=3)) as pool:
            with pytest.raises(Unavailable):
                await pool.acquire(address(secured.port, tls=True))
    assert not secured.requests


async def test_an_outbound_proxy_that_says_nothing_is_given_up(secured: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        assert await peer.gone()

    async with Upstream(script) as silent:
        proxy = outbound_proxy(f"http://127.0.0.1:{silent.port}")
        async with opened_pool(proxy=proxy, limits=Limits(connect_seconds=0.2)) as pool:
            with pytest.raises(Unavailable):
                async with asyncio.timeout(30):
                    await pool.acquire(address(secured.port, tls=True))


async def test_the_upstream_behind_an_outbound_proxy_is_verified_too(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with (
        Upstream(tls=stranger.serving("127.0.0.1")) as upstream,
        _ForwardProxy(b"HTTP/1.1 200 OK\r\n\r\n") as forward,
        opened_pool(
            tls=upstream_tls(str(authority.bundle)), proxy=outbound_proxy(f"http://127.0.0.1:{forward.port}")
        ) as pool,
    ):
        with pytest.raises(Unavailable):
            await pool.acquire(address(upstream.port, tls=True))


def test_no_proxy_names_hosts_and_their_subdomains() -> None:
    proxy = outbound_proxy("http://proxy:8080", "localhost, .amazonaws.com ,10.0.0.1")
    assert proxy == OutboundProxy("proxy", 8080, None, ("localhost", "amazonaws.com", "10.0.0.1"))
    assert not proxy.serves(Address("bedrock-runtime.us-east-1.amazonaws.com", 443, tls=True))
    assert not proxy.serves(Address("amazonaws.com", 443, tls=True))
    assert not proxy.serves(Address("localhost", 443, tls=True))
    assert proxy.serves(Address("notamazonaws.com", 443, tls=True))
    assert not proxy.serves(Address("example.com", 80, tls=False))


def test_no_proxy_can_name_everything() -> None:
    proxy = outbound_proxy("http://proxy:8080", "*")
    assert proxy is not None
    assert not proxy.serves(Address("example.com", 443, tls=True))


@pytest.mark.parametrize("url", ["proxy:8080", "https://proxy", "http://", "socks5://proxy:1080", "http://proxy:port"])
def test_an_outbound_proxy_that_is_no_http_url_is_a_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match="HTTPS_PROXY"):
        outbound_proxy(url)
