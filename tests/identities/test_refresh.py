import asyncio
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from passthrough.identities import Identity, Pace
from tests.fakes.metadata import Keys, MetadataService
from tests.identities.machine import QUICK, SECRET, Log, credentials_of, refusal


async def test_a_start_does_not_wait_long_for_a_slow_metadata_service(instance: MetadataService, log: Log) -> None:
    instance.close_gate()
    async with Identity(pace=Pace(start=0.05)) as identity:
        await instance.asked()
        assert not instance.gate.is_set()  # the start is over although no answer was given
        assert "not ended yet" in refusal(identity).cause
        instance.gate.set()
        await log.says("AWS credentials from iam-role")
        assert identity.current() == credentials_of(instance.keys)


async def test_calls_go_on_with_the_credentials_they_have_while_a_refresh_hangs(
    instance: MetadataService, log: Log
) -> None:
    first = instance.keys = Keys(1, datetime.now(UTC) + timedelta(minutes=20))
    order: list[str] = []
    async with Identity(pace=QUICK) as identity:
        instance.close_gate()
        await instance.asked()
        order.append("refresh begun")
        for _ in range(1000):
            await asyncio.sleep(0)  # a turn of the loop, not a wait
            assert identity.current() == credentials_of(first)
        order.append("a thousand turns served")
        asyncio.get_running_loop().call_soon(order.append, "the loop turns")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        instance.keys = Keys(2)
        looked_up_before = instance.requests["/latest/api/token"]
        order.append("answered")
        log.lines.clear()
        instance.gate.set()
        await log.says("AWS credentials from iam-role")
        assert identity.current() == credentials_of(instance.keys)
    assert order == ["refresh begun", "a thousand turns served", "the loop turns", "answered"]
    assert instance.requests["/latest/api/token"] == looked_up_before  # the one that hung, not a second beside it


async def test_leaving_does_not_wait_for_a_look_up_that_hangs(instance: MetadataService) -> None:
    instance.close_gate()
    async with Identity(pace=Pace(start=0.01)):
        await instance.asked()
    assert not instance.gate.is_set()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(instance: MetadataService) -> None:
    instance.close_gate()
    identity = Identity(pace=Pace(start=60))
    entering = asyncio.create_task(identity.__aenter__())
    await instance.asked()
    assert "identity-default" in {task.get_name() for task in asyncio.all_tasks()}
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert "identity-default" not in {task.get_name() for task in asyncio.all_tasks()}


HANGING_SCRIPT = """
import asyncio
from passthrough.identities import Identity, Pace
async def main():
    async with Identity(pace=Pace(start=0.01)):
        pass
asyncio.run(main())
"""


def test_a_process_ends_although_a_look_up_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "600")
        command = [sys.executable, "-c", HANGING_SCRIPT]
        ended = subprocess.run(command, timeout=60, check=False, capture_output=True)  # noqa: S603  # our own script
    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_rotated_credentials_are_picked_up(instance: MetadataService, log: Log) -> None:
    instance.keys = Keys(1, datetime.now(UTC) + timedelta(minutes=20))
    async with Identity(pace=QUICK) as identity:
        assert identity.current() == credentials_of(instance.keys)
        log.lines.clear()
        instance.keys = Keys(2)
        await log.says("AWS credentials from iam-role")
        assert identity.current() == credentials_of(instance.keys)


async def test_expired_credentials_that_cannot_be_refreshed_are_refused_until_they_can(
    instance: MetadataService, log: Log
) -> None:
    now = [time.time()]
    async with Identity(pace=QUICK, clock=lambda: now[0]) as identity:
        held = identity.current()
        instance.status = 500
        now[0] = instance.keys.expires.timestamp() - 1
        assert identity.current() == held  # to the last second
        await log.says("no AWS credentials were found")
        assert identity.current() == held
        now[0] += 1
        assert "expired; no AWS credentials were found" in refusal(identity).cause
        log.lines.clear()
        instance.keys = Keys(2, instance.keys.expires + timedelta(hours=6))
        instance.status = 200
        await log.says("AWS credentials from iam-role")
        assert identity.current() == credentials_of(instance.keys)


async def test_the_first_call_after_a_machine_slept_wakes_the_look_up(container: MetadataService, log: Log) -> None:
    now = [time.time()]
    sleepy = Pace(start=10.0, recheck=3600.0)  # its timers are of no help here
    async with Identity(pace=sleepy, clock=lambda: now[0]) as identity:
        container.keys = Keys(2, container.keys.expires + timedelta(hours=6))
        now[0] = Keys().expires.timestamp() + 60
        log.lines.clear()
        assert "a new look-up has begun" in refusal(identity).cause
        await log.says("AWS credentials from container-role")
        assert identity.current() == credentials_of(container.keys)


async def test_credentials_that_come_expired_are_not_used(container: MetadataService, log: Log) -> None:
    container.keys = Keys(1, datetime.now(UTC) - timedelta(minutes=1))
    async with Identity(pace=QUICK) as identity:
        assert "expired" in refusal(identity).cause
        assert (await identity.describe()).source is None
        container.keys = Keys(2)
        await log.says("AWS credentials from container-role")
        assert identity.current() == credentials_of(container.keys)


async def test_a_credentials_file_that_appears_and_changes_later_is_found(home: Path, log: Log) -> None:
    def write(access_key: str) -> None:
        (home / "new").write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {SECRET}\n")
        (home / "new").rename(home / "credentials")

    async with Identity(pace=QUICK) as identity:
        assert "no AWS credentials were found; set AWS_ACCESS_KEY_ID" in refusal(identity).cause
        assert "no AWS credentials were found" in ((await identity.describe()).trouble or "")
        write("AKIAFIRST")
        await log.says("from shared-credentials-file, valid until replaced")
        assert identity.current().access_key == "AKIAFIRST"
        log.lines.clear()
        write("AKIASECOND")
        await log.says("from shared-credentials-file")
        assert identity.current().access_key == "AKIASECOND"
