"""Knowledge bases: Retrieve, RetrieveAndGenerate(Stream), Rerank. None of them reports tokens, as on AWS."""

from typing import Any

from passthrough.errors import invalid
from passthrough.sandbox import prompts, samples
from passthrough.sandbox.exchange import Answer, Asked, Streamed, json_answer
from passthrough.sandbox.frames import event
from passthrough.sandbox.prompts import as_dict, as_limit, as_list
from passthrough.sandbox.replies import Reply, reply_to
from passthrough.sandbox.shapes import output_headers
from passthrough.sandbox.tokens import text_of
from passthrough.sandbox.vectors import relevances

_DEFAULT_RESULTS, _MAX_RESULTS = (
    5,
    100,
)  # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_KnowledgeBaseVectorSearchConfiguration.html
_LOCATION = {"type": "S3", "s3Location": {"uri": "s3://sandbox-bucket/document.txt"}}
_FACT = "The passthrough sandbox verifies signatures and makes its answers up."


def retrieve(asked: Asked) -> Answer:
    query = text_of(asked.document.get("retrievalQuery"))
    configuration = as_dict(asked.document.get("retrievalConfiguration"))
    search = next((as_dict(value) for value in configuration.values()), {})
    wanted = min(as_limit(search.get("numberOfResults")) or _DEFAULT_RESULTS, _MAX_RESULTS)
    results = [_passage(at, query) | {"score": round(0.9 - 0.5 * at / wanted, 4)} for at in range(wanted)]
    return json_answer({"guardrailAction": "NONE", "retrievalResults": results})


def retrieve_and_generate(asked: Asked) -> Answer:
    reply = _reply(asked)
    body = {
        "citations": [_citation(reply)],
        "output": {"text": reply.text},
        "sessionId": asked.document.get("sessionId", samples.UUID),
    }
    return json_answer(body)


def retrieve_and_generate_stream(asked: Asked) -> Streamed:
    reply = _reply(asked)
    pieces = [event("output", {"text": text}) for text in reply.deltas]
    citation = _citation(reply)
    # The deprecated `citation` doubles the two members beside it, in AWS's answers too.
    pieces.append(event("citation", {"citation": citation, **citation}))
    headers = output_headers(asked, asked.operation) if asked.operation is not None else ()
    return Streamed(pieces, headers)


def rerank(asked: Asked) -> Answer:
    sources = [
        as_dict(as_dict(source).get("inlineDocumentSource")) for source in as_list(asked.document.get("sources"))
    ]
    query = text_of(asked.document.get("queries"))
    configuration = as_dict(as_dict(asked.document.get("rerankingConfiguration")).get("bedrockRerankingConfiguration"))
    if not as_dict(configuration.get("modelConfiguration")).get("modelArn"):
        raise invalid("The modelArn of the reranking configuration is missing.")
    ranked = relevances(query, [text_of(source) for source in sources])
    top = as_limit(configuration.get("numberOfResults")) or len(ranked)
    results = [{"index": at, "relevanceScore": score} for at, score in ranked[:top]]
    return json_answer({"results": results})


def _reply(asked: Asked) -> Reply:
    return reply_to(prompts.of_text(asked, text_of(asked.document.get("input")), None))


def _passage(at: int, query: str) -> dict[str, Any]:
    return {
        "content": {"text": f"{_FACT} Passage {at + 1} about “{query[:80]}”.", "type": "TEXT"},
        "location": _LOCATION,
        "metadata": {
            "x-amz-bedrock-kb-source-uri": "s3://sandbox-bucket/document.txt",
            "x-amz-bedrock-kb-chunk-id": f"1%3A0%3Asandbox{at}",
            "x-amz-bedrock-kb-data-source-id": "DS12345678",
        },
    }


def _citation(reply: Reply) -> dict[str, Any]:
    span = {"start": 0, "end": max(0, len(reply.text) - 1)}
    return {
        "generatedResponsePart": {"textResponsePart": {"text": reply.text, "span": span}},
        "retrievedReferences": [_passage(0, reply.text)],
    }
