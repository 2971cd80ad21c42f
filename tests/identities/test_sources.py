import asyncio
import hashlib
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from passthrough.identities import FixedIdentity, Identity
from passthrough.policy.credentials import Credentials
from tests.fakes.metadata import MetadataService
from tests.identities.machine import QUICK, SECRET, Log, credentials_of, process, refusal


async def test_the_environment_gives_credentials_that_never_expire(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    async with Identity(bearer="a-bedrock-key") as identity:
        assert identity.current() == Credentials("AKIAIOSFODNN7EXAMPLE", SECRET, None)
        described = await identity.describe()
        everything = f"{described} {identity!r} {identity.current()!r} {log.lines}"
    assert (described.identity, described.source, described.access_key) == ("default", "env", "…MPLE")
    assert (described.expires_at, described.region, described.trouble) == (None, "eu-west-3", None)
    assert (identity.bearer, described.bearer) == ("a-bedrock-key", True)
    assert SECRET not in everything
    assert "a-bedrock-key" not in everything


async def test_a_named_profile_wins_over_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (home / "credentials").write_text(
        f"[work]\naws_access_key_id = AKIAOFPROFILE\naws_secret_access_key = {SECRET}\naws_session_token = tok\n"
    )
    async with Identity("work", profile="work") as identity:
        assert identity.current() == Credentials("AKIAOFPROFILE", SECRET, "tok")
        assert (await identity.describe()).source == "shared-credentials-file"


async def test_a_role_is_assumed_with_the_keys_of_another_profile(
    home: Path, service: MetadataService, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    (home / "credentials").write_text(f"[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = {SECRET}\n")
    (home / "config").write_text("[profile work]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
    async with Identity(region="eu-west-1", pace=QUICK) as identity:
        assert identity.current() == credentials_of(service.keys)
        described = await identity.describe()
    assert described.source == "assume-role"
    assert described.expires_at == service.keys.expires.timestamp()
    text = "\n".join(log.lines)
    assert "assume-role" in text
    for secret in (SECRET, service.keys.secret_key, service.keys.token):
        assert secret not in text  # although everything was at DEBUG


async def test_a_web_identity_token_gives_credentials(
    home: Path, service: MetadataService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text("a-web-identity-token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
    async with Identity(region="eu-west-1", pace=QUICK) as identity:
        assert identity.current() == credentials_of(service.keys)
        assert (await identity.describe()).source == "assume-role-with-web-identity"


async def test_a_container_gives_credentials(container: MetadataService) -> None:
    async with Identity(pace=QUICK) as identity:
        assert identity.current() == credentials_of(container.keys)
        described = await identity.describe()
    assert described.source == "container-role"
    assert described.expires_at == container.keys.expires.timestamp()


async def test_a_process_gives_credentials(home: Path) -> None:
    members = {"Version": 1, "AccessKeyId": "AKIAOFPROCESS", "SecretAccessKey": SECRET}
    process(home, f"print(json.dumps({members}))")
    async with Identity(pace=QUICK) as identity:
        assert identity.current() == Credentials("AKIAOFPROCESS", SECRET, None)
        assert (await identity.describe()).source == "custom-process"


SSO_SCRIPT = """
import asyncio, sys
from passthrough.identities import Identity
async def main():
    async with Identity() as identity:
        print(identity.current().access_key, (await identity.describe()).source)
asyncio.run(main())
"""


async def test_a_single_sign_on_gives_credentials(home: Path, service: MetadataService) -> None:
    start = "https://example.awsapps.com/start"
    cache = home / ".aws" / "sso" / "cache"  # botocore reads HOME when it is imported: hence a process of its own
    cache.mkdir(parents=True)
    name = hashlib.sha1(start.encode(), usedforsecurity=False).hexdigest()
    (cache / f"{name}.json").write_text(json.dumps({"accessToken": "sso-token", "expiresAt": "2099-01-01T00:00:00Z"}))
    (home / "config").write_text(
        f"[default]\nsso_start_url = {start}\nsso_region = eu-west-1\n"
        "sso_account_id = 123456789012\nsso_role_name = r\nregion = eu-west-1\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SSO_SCRIPT, stdout=subprocess.PIPE, env=os.environ | {"AWS_ENDPOINT_URL_SSO": service.url}
    )
    output, _ = await child.communicate()
    assert output.decode().split() == [service.keys.access_key, "sso"]


async def test_a_profile_that_does_not_exist_is_named_in_the_log_alone(log: Log) -> None:
    async with Identity("work", profile="nowhere", pace=QUICK) as identity:
        assert "nowhere" in refusal(identity).cause
        assert "nowhere" not in refusal(identity).message
    assert "identity work" in await log.says("nowhere")


async def test_half_a_pair_of_keys_is_said_to_be_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    async with Identity(pace=QUICK) as identity:
        assert "AWS_SECRET_ACCESS_KEY" in refusal(identity).cause


async def test_what_a_failing_process_prints_is_told_without_its_secrets(home: Path, log: Log) -> None:
    process(
        home, f"sys.exit('the vault at /var/run/secrets/vault.example said no to {SECRET} eyJhbGciOiJub25lIn0.e30.x')"
    )
    async with Identity(pace=QUICK) as identity:
        cause = refusal(identity).cause
        described = await identity.describe()
    assert "the vault at /var/run/secrets/vault.example said no to [removed] [removed]" in cause
    everything = f"{cause} {described} {log.lines}"
    assert SECRET not in everything
    assert "eyJhb" not in everything


async def test_nor_does_botocore_log_what_a_process_prints_when_it_fails_to_refresh(home: Path, log: Log) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()  # so near that botocore refreshes it at once
    members = {"Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": SECRET, "SessionToken": "t", "Expiration": soon}
    process(
        home,
        f"import os, pathlib\nfirst = pathlib.Path({str(home / 'ran')!r})\n"
        f"if first.exists(): sys.exit('no {SECRET}')\nfirst.touch()\nprint(json.dumps({members}))",
    )
    async with Identity(pace=QUICK) as identity:
        assert "no [removed]" in refusal(identity).cause
    assert SECRET not in "\n".join(log.lines)


async def test_the_same_trouble_is_a_warning_once(log: Log) -> None:
    warnings: list[logging.LogRecord] = []

    class Warnings(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record)

    handler = Warnings(logging.WARNING)
    logging.getLogger("passthrough.identities").addHandler(handler)
    async with Identity(pace=QUICK):
        log.lines.clear()
        await log.says("no AWS credentials were found")  # a second time, at DEBUG
    logging.getLogger("passthrough.identities").removeHandler(handler)
    assert len(warnings) == 1


def test_a_fixed_identity_gives_what_it_was_given() -> None:
    keys = Credentials("AKIA", "secret", "token")
    identity = FixedIdentity("sandbox", keys, bearer="")
    assert identity.current() is keys
    assert identity.bearer is None
    assert repr(identity) == "<FixedIdentity sandbox>"
