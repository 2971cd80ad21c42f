"""The other exit: a `Refusal` as an answer that boto3, the Anthropic SDKs and the OpenAI SDKs all read.

boto3 reads the code from `x-amzn-ErrorType` or `__type` and the text from `message`; the others map the
status and show `error.message`.
"""

from email.utils import formatdate

import msgspec
from aiohttp import web

from passthrough.errors import Refusal


def refuse(refusal: Refusal, call_id: str) -> web.Response:
    return web.Response(
        status=refusal.status,
        headers=_fields(refusal, call_id),
        body=_document(refusal),
        content_type="application/json",
    )


def last_words(refusal: Refusal, call_id: str) -> bytes:
    """The same answer as bytes, where there is no request that aiohttp could answer; the connection ends with it."""
    answer, body = refuse(refusal, call_id), _document(refusal)
    fields = {
        **answer.headers,
        "Content-Length": len(body),
        "Date": formatdate(usegmt=True),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join((*lines, "", "")).encode() + body


def _fields(refusal: Refusal, call_id: str) -> dict[str, str]:
    return {
        "x-amzn-RequestId": call_id,
        "x-amzn-ErrorType": refusal.code,
        "x-passthrough-call-id": call_id,
        "Server": "passthrough",  # aiohttp would name itself and Python, with their versions
        **refusal.headers,
    }


def _document(refusal: Refusal) -> bytes:
    message = refusal.message.encode("utf-8", "replace").decode()  # what it quotes may be no Unicode
    return msgspec.json.encode(
        {
            "message": message,
            "__type": refusal.code,
            "error": {
                "message": message,
                "type": refusal.code,
                "param": refusal.param,
                "code": str(refusal.status),
            },
        }
    )
