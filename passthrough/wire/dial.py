"""Opening connections: addresses, TLS, and the outbound proxy where one is set."""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from passthrough.errors import UserError
from passthrough.wire.connection import Connection

# A CONNECT answer is a status line and a few fields.
MAX_TUNNEL_HEAD_BYTES = 16 * 1024
# AWS takes up to an hour for an answer, and NAT gateways forget a connection that was silent for 350 s
# (docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html). A peer that is gone is noticed
# after two minutes.
KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
KEEPALIVE_PROBES = 4
NOT_A_PROXY = "HTTPS_PROXY is not of the form http://host:port; correct or unset it."


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens. `tls` is verified against `host`."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A forward proxy for `CONNECT`, from `HTTPS_PROXY`; `bypass` holds the suffixes of `NO_PROXY`."""

    host: str
    port: int
    authorization: str | None
    bypass: tuple[str, ...]

    def serves(self, address: Address) -> bool:
        if not address.tls:
            return False
        return not any(suffix in {"*", address.host} or address.host.endswith("." + suffix) for suffix in self.bypass)


def outbound_proxy(url: str | None, no_proxy: str = "") -> OutboundProxy | None:
    """Read `HTTPS_PROXY` (`http://[user:password@]host:port`) and `NO_PROXY` (comma list of host suffixes).

    Raises `UserError` for what is not such a URL.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or 3128  # squid's
    except ValueError:
        raise UserError(NOT_A_PROXY) from None
    if parts.scheme != "http" or not parts.hostname:
        raise UserError(NOT_A_PROXY)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + b64encode(pair.encode()).decode()
    bypass = tuple(name.strip().lstrip(".").lower() for name in no_proxy.split(",") if name.strip())
    return OutboundProxy(parts.hostname, port, authorization, bypass)


def upstream_tls(ca_bundle: str | None = None) -> ssl.SSLContext:
    """TLS as a client of AWS: certificates and host names checked, HTTP/1.1 only by ALPN.

    `ca_bundle`: a file that replaces the system's roots (`AWS_CA_BUNDLE`); `UserError` when unreadable.
    """
    try:
        context = ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise UserError(f"AWS_CA_BUNDLE cannot be read ({error}); name a readable PEM file.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(
    address: Address,
    protocol: Callable[[], Connection],
    *,
    tls: ssl.SSLContext,
    proxy: OutboundProxy | None,
) -> Connection:
    """Open a connection; the caller bounds the time. Raises OSError (ssl errors are OSErrors too)."""
    loop = asyncio.get_running_loop()
    context = tls if address.tls else None
    if proxy is not None and proxy.serves(address):
        return await _tunnel(loop, address, protocol, tls, proxy)
    transport, connection = await loop.create_connection(
        protocol,
        address.host,
        address.port,
        ssl=context,
        server_hostname=address.host if context else None,
    )
    keep_alive(transport.get_extra_info("socket"))
    return connection


async def _tunnel(
    loop: asyncio.AbstractEventLoop,
    address: Address,
    protocol: Callable[[], Connection],
    tls: ssl.SSLContext,
    proxy: OutboundProxy,
) -> Connection:
    target = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    transport, greeting = await loop.create_connection(_Greeting, proxy.host, proxy.port)
    keep_alive(transport.get_extra_info("socket"))
    try:
        transport.write(head.encode() + b"\r\n")
        await greeting.accepted
        connection = protocol()
        secured = await loop.start_tls(transport, connection, tls, server_hostname=address.host)
        if secured is None:
            raise ConnectionResetError("the outbound proxy closed the connection")  # noqa: TRY301  # same clean-up
    except BaseException:
        transport.abort()
        raise
    connection.connection_made(secured)
    return connection


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel ask after the peer while an answer is awaited."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


class _Greeting(asyncio.Protocol):
    """Waits for the outbound proxy's answer to `CONNECT`."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.accepted.done():
            return
        if b"\r\n\r\n" in self._head:
            status = self._head.split(b" ", 2)[1:2]
            if status == [b"200"]:
                self.accepted.set_result(None)
            else:
                shown = b"".join(status).decode("latin-1")
                self.accepted.set_exception(ConnectionRefusedError(f"the outbound proxy answered {shown}"))
        elif len(self._head) > MAX_TUNNEL_HEAD_BYTES:
            self.accepted.set_exception(ConnectionRefusedError("the outbound proxy's answer is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(exc or ConnectionResetError("closed by the outbound proxy"))
