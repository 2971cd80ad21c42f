"""A client that asks for a fault and keeps what it got, however it ended."""

import aiohttp
from aiohttp import ClientSession
from yarl import URL

from passthrough.bedrock.eventstream import Frame, FrameDecoder
from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Sandbox

BODY = b'{"messages": [{"role": "user", "content": [{"text": "hello there"}]}]}'
BEARER = {"Authorization": f"Bearer {DEFAULT_BEARER_TOKEN}"}


class Got:
    """What came of an answer, and how it ended."""

    def __init__(self) -> None:
        self.status = 0
        self.raw = b""
        self.chunks: list[int] = []
        self.broken = False

    def frames(self) -> tuple[list[Frame], bool]:
        """The whole frames, and whether the bytes end at a frame's border."""
        decoder = FrameDecoder()
        return decoder.feed(self.raw), decoder.at_boundary


async def fetch(http: ClientSession, sandbox: Sandbox, fault: str, path: str = "/model/m/converse-stream") -> Got:
    got = Got()
    headers = {**BEARER, "x-sandbox-fault": fault}
    try:
        async with http.post(URL(sandbox.url + path, encoded=True), data=BODY, headers=headers) as response:
            got.status = response.status
            async for data, ended in response.content.iter_chunks():
                got.raw += data
                got.chunks += [len(data)] * ended
    except aiohttp.ClientError:
        got.broken = True
    return got
