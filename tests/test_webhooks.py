import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from passthrough.policy.allowance_events import Event
from passthrough.policy.allowances import Kind
from passthrough.webhooks import webhook

README = (Path(__file__).parents[1] / "README.md").read_text()
EVENT = Event(
    number=7,
    at=datetime(2026, 2, 18, 13, 20, tzinfo=UTC),
    subject="team",
    name="red",
    kind=Kind.MONEY,
    period="30d",
    model="",
    threshold="75",
    used=Decimal(75 * 10**11),
    most=Decimal(10**13),
    ends_at=datetime(2026, 3, 1, tzinfo=UTC),
)


class Receiver:
    """Takes events, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[str, bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers["X-Passthrough-Signature"], await request.read()))
        return web.Response(status=self.status, headers={"Location": self.url} if self.status == 302 else {})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    opened = Receiver()
    application = web.Application()
    application.router.add_post("/events", opened.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    opened.url = "http://{}:{}/events".format(*runner.addresses[0])
    yield opened
    await runner.cleanup()


async def test_an_event_arrives_signed_so_that_the_receiver_can_check_it(receiver: Receiver) -> None:
    async with webhook(receiver.url, "shared", clock=lambda: 1_771_420_801.7) as send:
        assert await send(EVENT)
    ((signed, body),) = receiver.got
    digest = hmac.new(b"shared", b"1771420801." + body, hashlib.sha256).hexdigest()
    assert signed == f"t=1771420801,v1={digest}"
    assert body == (
        b'{"id": 7, "event": "threshold_crossed", "at": "2026-02-18T13:20:00.000Z", "subject": "team", "name": "red", '
        b'"key_alias": null, "kind": "usd", "threshold": "75", "used": "7.5", "limit": "10", "window": "30d", '
        b'"model": null, "resets_at": "2026-03-01T00:00:00.000Z"}'
    )


async def test_the_readmes_check_takes_what_is_sent_and_nothing_else(receiver: Receiver) -> None:
    section = README.split("\n### The webhook\n", 1)[1].split("\n## ", 1)[0]
    known: dict[str, Any] = {"hashlib": hashlib, "hmac": hmac, "time": time}
    exec(section.split("```python\n", 1)[1].split("```", 1)[0], known)  # noqa: S102  # our own README
    verified = known["verified"]
    async with webhook(receiver.url, "shared") as send:
        assert await send(EVENT)
    async with webhook(receiver.url, "shared", clock=lambda: time.time() - 301) as send:
        assert await send(EVENT)
    (signed, body), (stale, _) = receiver.got
    assert verified("shared", signed, body)
    assert not verified("other", signed, body)
    assert not verified("shared", signed, body + b" ")
    assert not verified("shared", stale, body)
    told = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    assert told == json.loads(body).keys()


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
async def test_whatever_is_no_success_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.status = status
    async with webhook(receiver.url, "shared") as send:
        assert not await send(EVENT)
    assert len(receiver.got) == 1


async def test_a_receiver_that_is_away_is_tried_again() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with webhook(f"http://127.0.0.1:{port}/", "shared") as send:
        assert not await send(EVENT)
        server.close()
        await server.wait_closed()
        assert not await send(EVENT)
