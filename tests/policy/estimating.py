"""Bounds of calls: what tests of estimates ask for."""

import json
from typing import Any

from passthrough.bedrock.operations import Call
from passthrough.bedrock.prices import PriceBook
from passthrough.policy.estimates import Bound, Estimates
from passthrough.policy.ledger import Entry
from passthrough.proxy.route import route

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
BOOK = PriceBook()
ESTIMATES = Estimates(BOOK, {})


def calling(model: str, operation: str = "converse") -> Call:
    return route("POST", f"/bedrock/model/{model}/{operation}")


def entry_for(model: str | None, **fields: Any) -> Entry:
    return Entry(call_id="", started_at=1.77e9, model=model, region="us-east-1", **fields)


def bound(model: str, body: object, operation: str = "converse", estimates: Estimates = ESTIMATES) -> Bound:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return estimates.bound(calling(model, operation), entry_for(model), raw, len(raw), money=True)
