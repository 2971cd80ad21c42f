"""What one client sends does not spoil the rows of others, and does not make its own cheaper."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from passthrough.policy.ledger import Entry, uuid7
from passthrough.storage.database import Database
from passthrough.storage.ledger import Ledger
from tests.fakes.running import running, select

CALLS = 100


def call(number: int, *, metadata: str) -> Entry:
    now = time.time()
    tags = tuple(f"tag-{n}" for n in range(40))
    return Entry(call_id=uuid7(now), started_at=now, key_id="k" * 64, attempt=number, metadata=metadata, tags=tags)


async def test_a_call_that_postgresql_refuses_takes_nothing_from_those_shipped_with_it(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    async with Ledger(tmp_path, database.connect) as ledger:
        for number in range(CALLS):
            ledger.append(call(number, metadata='{"a":"\\u0000"}' if number == 37 else '{"a":"b"}'))
        await ledger.flush(10)
        assert ledger.state().stored_calls == CALLS
        assert ledger.state().rejected_calls == 0
    rows = await select(database_url, "SELECT attempt, metadata, cardinality(tags) AS tags FROM ledger")
    assert len(rows) == CALLS
    for row in rows:
        spoilt = row["attempt"] == 37
        assert (row["metadata"] is None, row["tags"] < 40) == (spoilt, spoilt)


IMAGES = {
    "taskType": "TEXT_IMAGE",
    "textToImageParams": {"text": "a cat"},
    "imageGenerationConfig": {"numberOfImages": 3, "width": 1024, "height": 1024},
}
RERANKER = "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"
RERANK = {
    "queries": [{"type": "TEXT", "textQuery": {"text": "q"}}],
    "sources": [
        {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": "x"}}},
    ],
    "rerankingConfiguration": {
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": RERANKER}},
    },
}
CHAT = {"model": "openai.gpt-oss-20b-1:0", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "document", "model"),
    [
        ("/model/amazon.nova-canvas-v1:0/invoke", IMAGES, "amazon.nova-canvas-v1:0"),
        ("/rerank", RERANK, RERANKER),
        ("/openai/v1/chat/completions", CHAT, CHAT["model"]),
    ],
    ids=["units of a model", "units of an operation", "model in the body"],
)
async def test_no_call_is_for_nothing_because_its_client_sends_the_hash_of_its_body(
    database_url: str, tmp_path: Path, path: str, document: Mapping[str, Any], model: str
) -> None:
    body = json.dumps(document).encode()
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        headers = {"Authorization": f"Bearer {await proxy.key()}", "Content-Length": str(len(body))}

        async def in_two_pieces() -> AsyncIterator[bytes]:
            yield body[:5]
            while not proxy.service.handler.calls:  # noqa: ASYNC110  # the first piece has to be on its way alone
                await asyncio.sleep(0.001)
            yield body[5:]

        for signed in ({}, {"x-amz-content-sha256": sha256(body).hexdigest()}):
            async with session.post(
                proxy.bedrock + path, data=in_two_pieces(), headers={**headers, **signed}
            ) as response:
                assert response.status == 200, await response.text()
        plain, hashed = await proxy.rows()
    assert plain["cost"] > 0
    assert (hashed["cost"], hashed["model"]) == (plain["cost"], model)
