"""Guardrails: ApplyGuardrail, InvokeGuardrailChecks, and what Converse says when a guardrail intervened.

Every guardrail of the sandbox has one rule, a word policy that blocks `replies.BLOCKED_WORDS`. Usage is counted
as AWS bills it: a text unit for each 1,000 characters begun, for each policy that looked
(https://aws.amazon.com/bedrock/pricing/).
"""

from typing import Any

from passthrough.sandbox.exchange import Answer, Asked, json_answer
from passthrough.sandbox.prompts import as_dict, as_list
from passthrough.sandbox.replies import BLOCKED_WORDS, Reply
from passthrough.sandbox.tokens import TokenUse, text_of

CHARACTERS_PER_UNIT = 1000
BLOCKED_MESSAGE = "Sorry, the sandbox's guardrail does not let this pass."
INTERVENED = "guardrail_intervened"


def units(text: str) -> int:
    return max(1, -(-len(text) // CHARACTERS_PER_UNIT))


def apply(asked: Asked) -> Answer:
    """ApplyGuardrail."""
    text = text_of([as_dict(block).get("text") for block in as_list(asked.document.get("content"))])
    blocked = BLOCKED_WORDS in text
    body = {
        "action": "GUARDRAIL_INTERVENED" if blocked else "NONE",
        "assessments": [assessment(text, asked)],
        "guardrailCoverage": {"textCharacters": {"guarded": len(text), "total": len(text)}},
        "outputs": [{"text": BLOCKED_MESSAGE}] if blocked else [],
        "usage": usage(text),
    }
    if blocked:
        body["actionReason"] = "Guardrail blocked."
    return json_answer(body)


def checks(asked: Asked) -> Answer:
    """InvokeGuardrailChecks: results and usage for the checks that were asked for."""
    text = text_of(asked.document.get("messages"))
    wanted = as_dict(asked.document.get("checks"))
    scored = {
        "contentFilter": [{"category": "VIOLENCE", "severityScore": 0.05}],
        "promptAttack": [{"category": "JAILBREAK", "severityScore": 0.95 if BLOCKED_WORDS in text else 0.02}],
    }
    results: dict[str, Any] = {name: {"results": scored[name]} for name in scored if name in wanted}
    if "sensitiveInformation" in wanted:
        results["sensitiveInformation"] = {"results": []}
    body = {"results": results, "usage": {name: {"textUnits": units(text)} for name in results}}
    return json_answer(body)


def usage(text: str) -> dict[str, int]:
    spent = units(text)
    return {
        "automatedReasoningPolicies": 0,
        "automatedReasoningPolicyUnits": 0,
        "contentPolicyImageUnits": 0,
        "contentPolicyUnits": spent,
        "contextualGroundingPolicyUnits": 0,
        "sensitiveInformationPolicyFreeUnits": 0,
        "sensitiveInformationPolicyUnits": spent,
        "topicPolicyUnits": spent,
        "wordPolicyUnits": spent,
    }


def assessment(text: str, asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "invocationMetrics": {
            "guardrailProcessingLatency": 42,
            "usage": usage(text),
            "guardrailCoverage": {"textCharacters": {"guarded": len(text), "total": len(text)}},
        }
    }
    if BLOCKED_WORDS in text:
        found["wordPolicy"] = {
            "customWords": [{"action": "BLOCKED", "detected": True, "match": BLOCKED_WORDS}],
            "managedWordLists": [],
        }
    identifier = asked.labels.get("guardrailIdentifier")
    if identifier and identifier.isalnum():
        version = asked.labels.get("guardrailVersion", "DRAFT")
        found["appliedGuardrailDetails"] = {
            "guardrailId": identifier,
            "guardrailVersion": version if version.isdecimal() else "DRAFT",
        }
    return found


def blocks(text: str) -> bool:
    return BLOCKED_WORDS in text


def intervened(use: TokenUse) -> Reply:
    """What a model answers that was not asked because the guardrail had blocked the prompt: no tokens."""
    return Reply(BLOCKED_MESSAGE, INTERVENED, use)


def converse_trace(text: str, guardrail: str, asked: Asked) -> dict[str, Any]:
    """`trace.guardrail` of Converse."""
    trace: dict[str, Any] = {"inputAssessment": {guardrail: assessment(text, asked)}}
    if blocks(text):
        trace["modelOutput"] = []
        trace["actionReason"] = "Guardrail blocked."
    return trace
