"""From a received request to an answer: find the operation, check who asks, check what is asked, answer.

No I/O: `server` calls it, and does to the connection what the plan says.
"""

import uuid
from collections.abc import Callable, Mapping

import msgspec

from passthrough.errors import Refusal
from passthrough.sandbox import (
    agents,
    anthropic,
    catalogue,
    control,
    converse,
    guardrails,
    inputs,
    invoke,
    knowledge,
    openai,
    responses,
    shapes,
)
from passthrough.sandbox.access import BadBearer, Gate
from passthrough.sandbox.catalogue import Dialect, Target
from passthrough.sandbox.exchange import Answer, Asked, HeaderPairs, Received, Streamed
from passthrough.sandbox.faults import NO_FAULTS, Plan, plan_for
from passthrough.sandbox.tokens import PromptCache

Handler = Callable[[Asked], Answer | Streamed]

# The operations that have a realistic answer; the others are made from their shapes.
HANDLERS: Mapping[str, Handler] = {
    "Converse": converse.converse,
    "ConverseStream": converse.converse_stream,
    "InvokeModel": invoke.invoke_model,
    "InvokeModelWithResponseStream": invoke.invoke_model_with_response_stream,
    "CountTokens": invoke.count_tokens,
    "ApplyGuardrail": guardrails.apply,
    "InvokeGuardrailChecks": guardrails.checks,
    "InvokeAgent": agents.invoke_agent,
    "InvokeInlineAgent": agents.invoke_agent,
    "InvokeFlow": agents.invoke_flow,
    "Retrieve": knowledge.retrieve,
    "RetrieveAndGenerate": knowledge.retrieve_and_generate,
    "RetrieveAndGenerateStream": knowledge.retrieve_and_generate_stream,
    "Rerank": knowledge.rerank,
    "ListFoundationModels": control.list_foundation_models,
    "GetFoundationModel": control.get_foundation_model,
    "ListInferenceProfiles": control.list_inference_profiles,
    "GetInferenceProfile": control.get_inference_profile,
    "Messages": anthropic.messages,
    "CountMessageTokens": anthropic.count_tokens,
    "ChatCompletions": openai.chat_completions,
    "Responses": responses.responses,
    "ListModels": openai.list_models,
    "GetModel": openai.get_model,
}
BIDIRECTIONAL = "InvokeModelWithBidirectionalStream"  # needs HTTP/2, which aiohttp does not speak
# Coral's answer to a path that no service has, whatever the protocol was.
UNKNOWN_OPERATION = {"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"}
HTML = Answer(b"<html><body><h1>502 Bad Gateway</h1></body></html>", 502, (), "text/html")
_ERROR_NAMESPACE = "http://internal.amazon.com/coral/com.amazon.bedrock/"


class Desk:
    """Answers requests; remembers nothing but the prefixes of prompts, for their caching."""

    def __init__(self, gate: Gate, *, clock: Callable[[], float]) -> None:
        self._gate = gate
        self._clock = clock
        self._cache = PromptCache()

    def answer(self, received: Received) -> tuple[Answer | Streamed, Plan]:
        """The answer, with its request id, and what is to be done to the connection meanwhile."""
        request_id = str(uuid.uuid4())
        found = catalogue.find(received.method, received.path)
        if found is None:
            body = msgspec.json.encode(UNKNOWN_OPERATION)
            return Answer(body, status=404, headers=_identified((), request_id)), NO_FAULTS
        target, labels = found
        plan = NO_FAULTS
        try:
            asked = self._ask(received, target, labels, request_id)
            plan = plan_for(asked)
            answer = HTML if plan.has("html") else _answer(asked, plan)
        except Refusal as refusal:
            answer = _refused(refusal, target.dialect)
        except RecursionError:  # JSON nested a thousand levels deep: nobody's prompt
            nested = Refusal(400, "SerializationException", "The request body is nested too deeply.")
            answer = _refused(nested, target.dialect)
        return _with_headers(answer, _identified(answer.headers, request_id)), plan

    def _ask(self, received: Received, target: Target, labels: Mapping[str, str], request_id: str) -> Asked:
        """The request understood; raises `Refusal` when its sender may not call or its body is not JSON."""
        now = self._clock()
        region = self._gate.admit(received, takes_bearer=target.takes_bearer, now=now)
        return Asked(
            received=received,
            name=target.name,
            operation=target.operation,
            labels=labels,
            document=inputs.document_of(received, target.operation),
            region=region,
            request_id=request_id,
            now=now,
            cache=self._cache,
        )


def _answer(asked: Asked, plan: Plan) -> Answer | Streamed:
    operation = asked.operation
    demanded = plan.refusal()
    if demanded is not None:
        raise demanded
    if asked.name == BIDIRECTIONAL:
        raise Refusal(
            400, "ValidationException", "The sandbox does not speak HTTP/2, which bidirectional streams need."
        )
    if operation is not None:
        inputs.check(asked.received, operation, asked.labels, asked.document)
        if plan.has("every-event") and operation.has_event_stream_output:
            return shapes.every_event(asked, operation)
    handler = HANDLERS.get(asked.name)
    if handler is not None:
        return handler(asked)
    if operation is None:
        raise AssertionError(f"{asked.name} has neither a handler nor a shape.")
    return shapes.answer(asked, operation)


def _refused(refusal: Refusal, dialect: Dialect) -> Answer:
    """A refusal in the words of the API that was called; AWS's front end speaks its own everywhere."""
    kind = f"{refusal.code}:{_ERROR_NAMESPACE}"
    body: object = {"Message" if isinstance(refusal, BadBearer) else "message": refusal.message}
    if dialect == "openai" and not _is_front_end(refusal):
        body = openai.error_body(refusal)
    elif dialect == "anthropic" and not _is_front_end(refusal):
        body = anthropic.error_body(refusal)
    headers = (("x-amzn-ErrorType", kind), *refusal.headers.items())
    return Answer(msgspec.json.encode(body), status=refusal.status, headers=headers)


def _is_front_end(refusal: Refusal) -> bool:
    return refusal.status == 403 and refusal.code != "AccessDeniedException"  # noqa: PLR2004  # HTTP's "forbidden"


def _identified(headers: HeaderPairs, request_id: str) -> HeaderPairs:
    return (("x-amzn-RequestId", request_id), *headers)


def _with_headers(answer: Answer | Streamed, headers: HeaderPairs) -> Answer | Streamed:
    if isinstance(answer, Answer):
        return Answer(answer.body, answer.status, headers, answer.content_type)
    return Streamed(answer.pieces, headers, answer.content_type, answer.status)
