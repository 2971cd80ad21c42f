"""Kept-alive connections to upstreams, by address.

The pool opens, lends and forgets connections, and is the one clock of the upstream side: a single
timer looks over all connections about once a second, so that no call pays for a timer of its own.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Self

from passthrough.errors import Unavailable
from passthrough.wire.connection import Connection, SilentUpstream
from passthrough.wire.dial import Address, OutboundProxy, dial


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds.

    `answer_seconds` bounds every silence of an upstream, before the head and between two reads: AWS lets
    an inference take 60 minutes (Nova's documentation asks for read_timeout=3600).
    `idle_seconds` stays below what AWS's load balancers keep an idle connection open for (60 s).
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 3600.0
    idle_seconds: float = 50.0
    connections_per_address: int = 16384


@dataclass(slots=True)
class _Host:
    idle: dict[Connection, None] = field(default_factory=dict)  # the one used last stands last
    busy: set[Connection] = field(default_factory=set)
    opening: int = 0

    def count(self) -> int:
        return len(self.idle) + len(self.busy) + self.opening


class Pool:
    """Lends connections. An async context manager: leaving it closes them all.

    A connection goes back by itself when its exchange ended cleanly, and is forgotten when it broke.
    """

    def __init__(
        self, *, tls: ssl.SSLContext, limits: Limits | None = None, proxy: OutboundProxy | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._tls = tls
        self._proxy = proxy
        self._hosts: dict[Address, _Host] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        busy = sum(len(host.busy) for host in self._hosts.values())
        idle = sum(len(host.idle) for host in self._hosts.values())
        return f"<Pool {busy} busy, {idle} idle>"

    async def __aenter__(self) -> Self:
        self._look_over()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for host in self._hosts.values():
            for connection in (*host.idle, *host.busy):
                connection.abort()

    def idle(self, address: Address) -> Connection | None:
        """Lend the idle connection that was used last, where there is one."""
        host = self._hosts.get(address)
        while host is not None and host.idle:
            connection, _ = host.idle.popitem()
            if connection.open:
                host.busy.add(connection)
                return connection
        return None

    async def acquire(self, address: Address, *, fresh: bool = False) -> Connection:
        """An open connection, the most recently used idle one unless `fresh`.

        Raises `Unavailable` when none can be opened within the connect time or the bound is reached.
        """
        if not fresh and (connection := self.idle(address)) is not None:
            return connection
        host = self._hosts.get(address)
        if host is None:
            host = self._hosts[address] = _Host()
        if host.count() >= self._limits.connections_per_address:
            raise Unavailable(
                "The upstream cannot be reached at the moment, try again.",
                cause=f"{host.count()} connections to {address.host}:{address.port} are open: the limit",
            )
        return await self._open(address, host)

    async def _open(self, address: Address, host: _Host) -> Connection:
        loop = asyncio.get_running_loop()

        def protocol() -> Connection:
            return Connection(
                loop=loop,
                released=lambda connection: self._released(host, connection),
                lost=lambda connection: self._lost(host, connection),
            )

        host.opening += 1
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                connection = await dial(address, protocol, tls=self._tls, proxy=self._proxy)
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                "The upstream cannot be reached at the moment, try again.",
                cause=f"cannot connect to {address.host}:{address.port}: {type(error).__name__} {error}",
            ) from error
        finally:
            host.opening -= 1
        host.busy.add(connection)
        return connection

    def _released(self, host: _Host, connection: Connection) -> None:
        host.busy.discard(connection)
        host.idle[connection] = None

    def _lost(self, host: _Host, connection: Connection) -> None:
        host.busy.discard(connection)
        host.idle.pop(connection, None)

    def _look_over(self) -> None:
        """Close what has been idle too long, fail what has been silent too long."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        pace = min(1.0, limits.answer_seconds / 4, limits.idle_seconds / 4)
        self._timer = loop.call_later(pace, self._look_over)  # first, so that no failure below can stop the clock
        now = loop.time()
        for host in self._hosts.values():
            while host.idle and now - (oldest := next(iter(host.idle))).last_activity > limits.idle_seconds:
                del host.idle[oldest]
                oldest.abort()
            silent = [
                connection
                for connection in host.busy
                if not connection.reading_paused and now - connection.last_activity > limits.answer_seconds
            ]
            for connection in silent:
                connection.fail(SilentUpstream(f"the upstream was silent for {limits.answer_seconds:g} seconds"))
