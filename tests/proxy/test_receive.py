"""A body that is still on its way when its client's connection ends."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from passthrough.errors import ClientGone
from passthrough.proxy.receive import Receive


async def test_a_client_that_went_before_its_body_was_asked_for_has_gone_and_is_no_mistake_of_ours() -> None:
    unconnected = BaseProtocol(asyncio.get_running_loop())
    body = StreamReader(unconnected, limit=1024)
    body.feed_data(b"half of ")
    request = make_mocked_request("POST", "/", {"Content-Length": "16"}, payload=body)
    request._protocol = unconnected
    receive = Receive(max_bytes=1024, buffered_bytes=1024, stall_seconds=1)
    with pytest.raises(ClientGone):
        await receive(request, whole=True)
