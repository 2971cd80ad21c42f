"""AWS refuses the proxy's own credentials: the client is told what AWS said, the administrator that it is theirs."""

import pytest

from tests.fakes.calls import ask, ended_rows
from tests.fakes.peer import connect
from tests.fakes.running import Running
from tests.fakes.upstream import Upstream, answer, answering

NOT_THE_PROXYS = answer(b"{}", "x-amzn-ErrorType: AccessDeniedException", status="403 Forbidden")


def refusing(code: str) -> bytes:
    return answer(b"{}", f"x-amzn-ErrorType: {code}:http://internal.amazon.com/", status="403 Forbidden")


@pytest.mark.parametrize("code", ["InvalidSignatureException", "ExpiredTokenException", "UnrecognizedClientException"])
async def test_a_refusal_of_the_signature_is_logged_as_the_proxys_own(
    proxy: Running, upstream: Upstream, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    upstream.script = answering(refusing(code))
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 403
    (row,) = await ended_rows(proxy)
    (said,) = [record for record in caplog.records if "credentials" in record.message]
    assert said.levelname == "ERROR"
    assert (said.__dict__["error_type"], said.__dict__["call_id"]) == (code, str(row["call_id"]))


async def test_what_aws_refuses_to_a_call_is_the_clients_affair(
    proxy: Running, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script = answering(NOT_THE_PROXYS)
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 403
    await ended_rows(proxy)
    assert not [record for record in caplog.records if "credentials" in record.message]
