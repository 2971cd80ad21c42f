"""Nothing that we add to a request upstream can end one of its lines; nothing that we answer tells too much."""

from pathlib import Path

import pytest
from aiohttp import ClientSession

from passthrough.errors import Unavailable, UserError
from passthrough.identities import Identity, Pace
from passthrough.settings import load
from tests.fakes.running import running

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize("token", ["a-key\n", "a-key\r\nX-Evil: 1", "a key", "a\u00a0key", "a\x00"])
def test_an_api_key_that_could_end_its_line_is_no_setting(token: str) -> None:
    with pytest.raises(UserError, match="AWS_BEARER_TOKEN_BEDROCK") as refused:
        load(environ={"AWS_BEARER_TOKEN_BEDROCK": token})
    assert token not in str(refused.value)
    assert load(environ={"AWS_BEARER_TOKEN_BEDROCK": "ABSK-a/b+c=="}).bearer == "ABSK-a/b+c=="


@pytest.mark.parametrize(("name", "value"), [("AWS_SESSION_TOKEN", "a\nb"), ("AWS_ACCESS_KEY_ID", "AKIA\r\nX-Evil: 1")])
async def test_credentials_that_could_end_a_line_are_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv(name, value)
    async with Identity(pace=Pace(start=10.0)) as identity:
        with pytest.raises(Unavailable):
            identity.current()
    assert "line end" in caplog.text
    assert "X-Evil" not in caplog.text


async def test_no_answer_of_ours_tells_the_versions_of_what_serves(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        for path in ("/health/liveliness", "/metrics", "/docs", "/key/list", "/nowhere", "/bedrock/nowhere"):
            async with session.get(proxy.url + path) as response:
                assert response.headers["Server"] == "passthrough", path
