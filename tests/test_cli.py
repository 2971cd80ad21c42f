"""The command line as a shell meets it: one sentence for a mistake, an exit code that scripts can rely on."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from passthrough import __version__
from passthrough.sandbox import DEFAULT_BEARER_TOKEN, DEFAULT_CREDENTIALS, Sandbox
from tests.fakes.upstream import Upstream, answer, answering


def run(*arguments: str, data_dir: Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "passthrough", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**kept, "PASSTHROUGH_DATA_DIR": str(data_dir), "AWS_EC2_METADATA_DISABLED": "true", **(environ or {})},
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("serve", "--bogus"), 2, "No such option"),
        (("bogus",), 2, "No such command"),
        (("serve", "--port", "x"), 2, "--port"),
        (("serve", "--port", "99999"), 1, "--port takes a number from 0 to 65535"),
        (("serve", "--workers", "many"), 1, "--workers takes"),
        (("serve", "--tls-cert", "cert.pem"), 1, "give both"),
        (("serve", "--config", "/nowhere.toml"), 1, "No such file"),
        (("prices",), 2, "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    ended = run(*arguments, data_dir=tmp_path)
    assert ended.returncode == status
    assert ended.stderr.startswith("passthrough: ")
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PASSTHROUGH_MASTER_KEY": ""}, "PASSTHROUGH_MASTER_KEY is not set"),
        ({"PASSTHROUGH_WEBHOOK_URL": "ftp://elsewhere"}, "PASSTHROUGH_WEBHOOK_URL takes an address"),
        ({"PASSTHROUGH_WEBHOOK_URL": "https://elsewhere"}, "PASSTHROUGH_WEBHOOK_SECRET is not set"),
        ({"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "elsewhere"}, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        ({"AWS_CA_BUNDLE": "/nowhere.pem"}, "AWS_CA_BUNDLE cannot be read"),
        ({"HTTPS_PROXY": "socks5://elsewhere"}, "HTTPS_PROXY is not of the form"),
        ({"PASSTHROUGH_DATA_DIR": "/dev/null/data"}, "The data directory /dev/null/data cannot be used"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_a_setting_that_cannot_work_is_one_sentence_before_anything_begins(
    environ: dict[str, str], words: str, tmp_path: Path
) -> None:
    needed = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "PASSTHROUGH_MASTER_KEY": "sk-a-long-random-text"}
    ended = run("serve", "--workers", "2", data_dir=tmp_path, environ={**needed, **environ})
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (1, 1, "")
    assert ended.stderr.startswith("passthrough: ")
    assert words in ended.stderr


async def test_what_turns_out_to_be_wrong_later_is_one_sentence_too(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "journal").touch()  # where a folder belongs
    environ = {"DATABASE_URL": database_url, "PASSTHROUGH_MASTER_KEY": "sk-a-long-random-text"}
    ended = await asyncio.to_thread(run, "serve", "--port", "0", data_dir=tmp_path, environ=environ)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("passthrough: The journal directory ")


def test_a_price_that_cannot_be_is_one_sentence_before_anything_begins(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[prices."some.model"]\ninput = -1\noutput = 1\n')
    environ = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "PASSTHROUGH_MASTER_KEY": "sk-a-long-random-text"}
    ended = run("serve", "--workers", "2", "--config", str(path), data_dir=tmp_path, environ=environ)
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (1, 1, "")
    assert "is no price" in ended.stderr
    found = run("doctor", "--config", str(path), data_dir=tmp_path, environ=environ)
    assert [line for line in found.stdout.splitlines() if "settings:" in line and line.startswith("FAIL")]


def test_a_database_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://nobody:secret-word@127.0.0.1:1/none", "PASSTHROUGH_MASTER_KEY": "sk-x"}
    ended = run("serve", data_dir=tmp_path, environ=environ)
    assert ended.returncode == 1
    assert "The database cannot be reached" in ended.stderr
    assert "secret-word" not in ended.stderr + ended.stdout


def test_a_schema_that_is_behind_is_refused_and_migrated_on_request(postgres: str, tmp_path: Path) -> None:
    asyncio.run(_recreate(postgres, "behind"))
    environ = {"DATABASE_URL": postgres.replace("@/postgres?", "@/behind?"), "PASSTHROUGH_MASTER_KEY": "sk-x"}
    refused = run("serve", data_dir=tmp_path, environ=environ)
    assert refused.returncode == 1
    assert "passthrough migrate" in refused.stderr
    assert run("migrate", data_dir=tmp_path, environ=environ).returncode == 0
    assert run("migrate", data_dir=tmp_path, environ=environ).returncode == 0


async def _recreate(url: str, name: str) -> None:
    import asyncpg  # noqa: PLC0415  # only here

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert run("--version", data_dir=tmp_path).stdout.strip() == __version__


def test_without_a_command_the_commands_are_listed(tmp_path: Path) -> None:
    ended = run(data_dir=tmp_path)
    assert ended.returncode == 0
    for command in ("serve", "migrate", "sandbox", "doctor", "prices"):
        assert command in ended.stdout


def test_a_price_is_shown_with_its_source(tmp_path: Path) -> None:
    ended = run("prices", "us.anthropic.claude-3-haiku-20240307-v1:0", data_dir=tmp_path)
    assert ended.returncode == 0
    assert "0.25 USD per million tokens" in ended.stdout
    unknown = run("prices", "nobody.knows-v1:0", data_dir=tmp_path)
    assert unknown.returncode == 1
    assert "not known" in unknown.stdout


def test_a_price_of_the_settings_file_comes_first_and_stays_exact(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[prices."anthropic.claude-3-haiku-*"]\ninput = 0.1234567890123456789\noutput = 1\n')
    ended = run("prices", "anthropic.claude-3-haiku-20240307-v1:0", "--config", str(path), data_dir=tmp_path)
    assert "0.1234567890123456789 USD" in ended.stdout


async def test_the_doctor_finds_nothing_where_all_is_well(database_url: str, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        environ = {
            "DATABASE_URL": database_url,
            "PASSTHROUGH_MASTER_KEY": "sk-a-long-random-text",
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": DEFAULT_CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": DEFAULT_CREDENTIALS.secret_key,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": sandbox.url,
        }
        ended = await asyncio.to_thread(run, "doctor", data_dir=tmp_path, environ=environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "FAIL" not in ended.stdout
    assert "ok    AWS: it takes the credentials\n" in ended.stdout
    assert DEFAULT_CREDENTIALS.secret_key not in ended.stdout + ended.stderr


KNOWN = {
    "AWS_ACCESS_KEY_ID": DEFAULT_CREDENTIALS.access_key,
    "AWS_SECRET_ACCESS_KEY": DEFAULT_CREDENTIALS.secret_key,
}
AWS_SAYS = {
    "a wrong secret": (
        {**KNOWN, "AWS_SECRET_ACCESS_KEY": "hidden-word"},
        "FAIL  AWS: it does not take the credentials: InvalidSignatureException (The request signature we calculated",
    ),
    "an access key of nobody": (
        {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hidden-word"},
        "FAIL  AWS: it does not take the credentials: UnrecognizedClientException (The security token included",
    ),
    "an API key": ({"AWS_BEARER_TOKEN_BEDROCK": DEFAULT_BEARER_TOKEN}, "ok    AWS: it takes AWS_BEARER_TOKEN_BEDROCK"),
    "an API key of nobody": (
        {**KNOWN, "AWS_BEARER_TOKEN_BEDROCK": "ABSKhidden-word"},
        "FAIL  AWS: it does not take AWS_BEARER_TOKEN_BEDROCK: AccessDeniedException (Authentication failed",
    ),
    "nothing": ({}, "FAIL  AWS: it was not asked, there is nothing to sign with"),
}


@pytest.mark.parametrize("given", AWS_SAYS)
async def test_the_doctor_asks_aws_whether_it_takes_the_credentials(tmp_path: Path, given: str) -> None:
    credentials, expected = AWS_SAYS[given]
    async with Sandbox() as sandbox:
        environ = {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": sandbox.url, **credentials}
        ended = await doctor(tmp_path, environ)
    [line] = [line for line in ended.stdout.splitlines() if " AWS: " in line]
    assert line.startswith(expected)
    assert "hidden-word" not in ended.stdout + ended.stderr


DENIED = b'{"message": "User: arn:aws:iam::1:user/u is not authorized to perform: bedrock:ListAsyncInvokes"}'
OTHER_ANSWERS = [
    ("403 Forbidden", "AccessDeniedException:http://internal", DENIED, "ok    AWS: it takes the credentials"),
    ("403 Forbidden", "ExpiredTokenException", b'{"message": "It ended."}', "FAIL  AWS: it does not take the cre"),
    ("403 Forbidden", "", b"<html></html>", "FAIL  AWS: it does not take the credentials: 403 (without a word)."),
    ("503 Busy", "ServiceUnavailableException", b"{}", "ok    AWS: it answered 503 ServiceUnavailableException, "),
]


@pytest.mark.parametrize(("status", "code", "body", "expected"), OTHER_ANSWERS)
async def test_the_doctor_tells_a_refusal_of_the_credentials_from_other_answers(
    tmp_path: Path, status: str, code: str, body: bytes, expected: str
) -> None:
    script = answering(answer(body, f"x-amzn-ErrorType: {code}", status=status))
    async with Upstream(script) as upstream:
        ended = await doctor(tmp_path, {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": upstream.url, **KNOWN})
    assert expected in ended.stdout
    assert (upstream.requests[-1].method, upstream.requests[-1].target) == ("GET", "/async-invoke?maxResults=1")


async def doctor(tmp_path: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    database = {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    return await asyncio.to_thread(run, "doctor", data_dir=tmp_path, environ={**database, **environ})


def test_the_doctor_names_what_is_missing(tmp_path: Path) -> None:
    ended = run("doctor", data_dir=tmp_path, environ={"DATABASE_URL": "postgresql://127.0.0.1:1/none"})
    assert ended.returncode == 1
    failed = [line.split(":")[0] for line in ended.stdout.splitlines() if line.startswith("FAIL")]
    assert {"FAIL  credentials", "FAIL  region", "FAIL  master key", "FAIL  database"} <= set(failed)


def test_the_doctor_finds_a_master_key_that_can_be_guessed_and_does_not_tell_it(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "PASSTHROUGH_MASTER_KEY": "sk-guess-me-now"}
    ended = run("doctor", data_dir=tmp_path, environ=environ)
    (finding,) = (line for line in ended.stdout.splitlines() if "master key:" in line)
    assert finding.startswith("FAIL")
    assert "shorter than 16 characters" in finding
    assert "guess-me" not in ended.stdout + ended.stderr
    ended = run("doctor", data_dir=tmp_path, environ={**environ, "PASSTHROUGH_MASTER_KEY": "sk-guess-me-now1"})
    assert "shorter" not in ended.stdout
