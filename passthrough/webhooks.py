"""Tells another service of events, signed. Whoever calls this has no call of a client waiting behind it."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import aiohttp

from passthrough.policy.allowance_events import SIGNATURE_HEADER, Event, signature

_log = logging.getLogger(__name__)

_SECONDS: Final = 10.0  # a receiver that takes longer is tried again later


@asynccontextmanager
async def webhook(
    url: str, secret: str, *, clock: Callable[[], float] = time.time
) -> AsyncIterator[Callable[[Event], Awaitable[bool]]]:
    """Own a client; yields what delivers an event, and says whether it was accepted (any 2xx)."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:

        async def send(event: Event) -> bool:
            body = event.body()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "passthrough",
                SIGNATURE_HEADER: signature(secret, int(clock()), body),
            }
            try:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    accepted = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
                    reason = f"it answered {answer.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                accepted, reason = False, f"{type(error).__name__}: {error}"
            if not accepted:
                _log.warning("the webhook did not accept an event, it is tried again", extra={"cause": reason})
            return accepted

        yield send
