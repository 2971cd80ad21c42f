"""The other exit: a `Refusal` as an answer that boto3, the Anthropic SDKs and the OpenAI SDKs all read.

boto3 reads the code from `x-amzn-ErrorType` or `__type` and the text from `message`; the others map the
status and show `error.message`.
"""

import msgspec
from aiohttp import web

from passthrough.errors import Refusal


def refuse(refusal: Refusal, call_id: str) -> web.Response:
    message = refusal.message.encode("utf-8", "replace").decode()  # what it quotes may be no Unicode
    body = {
        "message": message,
        "__type": refusal.code,
        "error": {
            "message": message,
            "type": refusal.code,
            "param": refusal.param,
            "code": str(refusal.status),
        },
    }
    headers = {
        "x-amzn-RequestId": call_id,
        "x-amzn-ErrorType": refusal.code,
        "x-passthrough-call-id": call_id,
        "Server": "passthrough",  # aiohttp would name itself and Python, with their versions
        **refusal.headers,
    }
    return web.Response(
        status=refusal.status,
        headers=headers,
        body=msgspec.json.encode(body),
        content_type="application/json",
    )
