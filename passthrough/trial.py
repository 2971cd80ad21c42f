"""What `serve --sandbox` hands to a newcomer: a virtual key, and calls that work when they are pasted."""

import asyncio
import os
import time
from pathlib import Path

from passthrough.admin.keys import Keys
from passthrough.admin.schemas.keys import GenerateKey
from passthrough.policy.keys import SANDBOX, digest, mint
from passthrough.storage.audit import Actor
from passthrough.storage.database import open_database
from passthrough.storage.key_pages import rows_of

KEY_FILE = "sandbox-key"
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"


def trial_key(data_dir: Path, database_url: str) -> str:
    """The key of the sandbox, made once and kept beside the data (0600): no other server knows it."""
    path = data_dir / KEY_FILE
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = path.read_text().strip() if path.exists() else mint()
    asyncio.run(_ensure(key, database_url))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key)
    return key


async def _ensure(key: str, database_url: str) -> None:
    async with open_database(database_url) as database:
        async with database.begin() as connection:
            if await rows_of(connection, [digest(key)]):
                return
        await Keys(database, time.time).generate(
            GenerateKey(key=key, key_alias=f"sandbox-{digest(key)[:8]}", metadata={SANDBOX: True}),
            Actor("passthrough serve --sandbox", None),
        )


def introduction(key: str, address: str) -> str:
    """Text for the terminal. `address` is scheme, host and port."""
    return f"""
passthrough serves a stand-in for Bedrock at {address}/bedrock: no AWS account is needed, no model is asked.

A virtual key:  {key}

curl:
  curl {address}/bedrock/model/{MODEL}/converse \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": [{{"text": "Hello"}}]}}]}}'

boto3:
  import boto3
  bedrock = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url="{address}/bedrock",
                         aws_access_key_id="{key}", aws_secret_access_key="anything")
  answer = bedrock.converse(modelId="{MODEL}",
                            messages=[{{"role": "user", "content": [{{"text": "Hello"}}]}}])
  print(answer["output"]["message"]["content"][0]["text"])
"""
