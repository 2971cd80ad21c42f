"""Answers that end as they should not: cut, reset, stalled, or ended too soon."""

import asyncio
import time

import aiohttp
import pytest
from aiohttp import ClientSession

from passthrough.sandbox import Sandbox
from tests.sandbox.faulty import BEARER, BODY, fetch


@pytest.mark.parametrize("path", ["/model/m/converse-stream", "/model/m/converse"])
@pytest.mark.parametrize("fault", ["close-before-answer", "reset-before-answer"])
async def test_a_connection_ends_without_any_answer(
    fault: str, path: str, http: ClientSession, sandbox: Sandbox
) -> None:
    got = await fetch(http, sandbox, fault, path)

    assert got.broken
    assert got.status == 0


@pytest.mark.parametrize("fault", ["cut", "cut-mid-frame", "reset", "no-terminator", "stall=0.05"])
async def test_a_whole_answer_that_is_cut_is_never_complete(fault: str, http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, fault, "/model/m/converse")

    assert got.status == 200
    assert got.broken


async def test_a_stream_that_is_cut_ends_between_two_frames_and_without_an_end(
    http: ClientSession, sandbox: Sandbox
) -> None:
    whole, _ = (await fetch(http, sandbox, "pace=0")).frames()

    got = await fetch(http, sandbox, "cut")

    frames, at_boundary = got.frames()
    assert got.broken
    assert at_boundary
    assert [frame.event_type for frame in frames] == [frame.event_type for frame in whole[: len(whole) // 2]]


async def test_a_stream_is_cut_in_the_middle_of_a_frame(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "cut-mid-frame")

    frames, at_boundary = got.frames()
    assert got.broken
    assert len(frames) > 5
    assert not at_boundary


async def test_a_stream_that_is_reset_is_not_complete(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "reset")

    assert got.broken


async def test_only_the_end_of_the_body_is_missing(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "no-terminator")

    frames, at_boundary = got.frames()
    assert got.broken
    assert at_boundary
    assert frames[-1].event_type == "metadata"


async def test_a_clean_cut_shows_only_in_the_content(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "clean-cut")
    body = await fetch(http, sandbox, "clean-cut", "/model/m/converse")

    frames, at_boundary = got.frames()
    assert not got.broken
    assert at_boundary
    assert frames[-1].event_type == "contentBlockDelta"
    assert not body.broken
    assert not body.raw.endswith(b"}")


async def test_a_stall_sends_half_then_nothing_then_cuts(http: ClientSession, sandbox: Sandbox) -> None:
    started = time.monotonic()

    got = await fetch(http, sandbox, "stall=0.1")

    assert got.broken
    assert len(got.frames()[0]) > 5
    assert time.monotonic() - started >= 0.1


async def test_closing_the_sandbox_ends_a_stall(http: ClientSession) -> None:
    async with Sandbox(pace_seconds=0) as sandbox:
        headers = {**BEARER, "x-sandbox-fault": "stall"}
        response = await http.post(f"{sandbox.url}/model/m/converse-stream", data=BODY, headers=headers)
        await response.content.readany()

    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_a_client_that_leaves_ends_a_delay(http: ClientSession) -> None:
    ended = asyncio.Event()
    complete: list[bool] = []

    def on_end(_: object, whole: bool) -> None:  # noqa: FBT001  # the sandbox's signature
        complete.append(whole)
        ended.set()

    async with Sandbox(on_end=on_end) as sandbox:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await fetch(http, sandbox, "delay=60")
        async with asyncio.timeout(30):
            await ended.wait()

    assert complete == [False]
