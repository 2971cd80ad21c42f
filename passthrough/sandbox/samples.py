"""Realistic values for what botocore's shapes leave open, by the name of the member and by pattern.

Templates are filled with {region}, {account}, {sessionId} and what else the request named.
"""

from collections.abc import Mapping

ACCOUNT = "123456789012"
UUID = "5a1d8c5e-0b7f-4c53-9b06-6f2a1c9e4d21"
_ARN = "arn:aws:bedrock:{region}:{account}"

# Where a member of that name is found, it has this value (if its shape allows it).
BY_MEMBER: Mapping[str, str] = {
    "sessionId": "{sessionId}",
    "sessionArn": _ARN + ":session/{sessionId}",
    "invocationId": UUID,
    "invocationStepId": "9c6f3a1e-2d4b-4e8a-8f17-3b5d7e9a0c42",
    "traceId": "3f1c9a7e-0",
    "agentId": "AGENT12345",
    "agentAliasId": "TSTALIASID",
    "agentAliasArn": _ARN + ":agent-alias/AGENT12345/TSTALIASID",
    "agentCollaboratorAliasArn": _ARN + ":agent-alias/AGENT67890/TSTALIASID",
    "agentCollaboratorName": "collaborator",
    "collaboratorName": "collaborator",
    "agentVersion": "1",
    "flowVersion": "1",
    "flowIdentifier": "FLOW123456",
    "flowAliasIdentifier": "TSTALIASID",
    "executionId": "11f2c9d4-5e6a-47b8-9c0d-1e2f3a4b5c6d",
    "executionArn": _ARN + ":flow/FLOW123456/alias/ALIAS12345/execution/11f2c9d4-5e6a-47b8-9c0d-1e2f3a4b5c6d",
    "executionRoleArn": "arn:aws:iam::{account}:role/service-role/AmazonBedrockExecutionRoleForFlows_SANDBOX",
    "customerEncryptionKeyArn": "arn:aws:kms:{region}:{account}:key/" + UUID,
    "encryptionKeyArn": "arn:aws:kms:{region}:{account}:key/" + UUID,
    "kmsKeyId": "arn:aws:kms:{region}:{account}:key/" + UUID,
    "invocationArn": _ARN + ":async-invoke/abcdef012345",
    "modelArn": "arn:aws:bedrock:{region}::foundation-model/amazon.nova-reel-v1:0",
    "modelId": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "foundationModel": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "invokedModelId": "arn:aws:bedrock:{region}::foundation-model/anthropic.claude-3-5-sonnet-20241022-v2:0",
    "guardrailId": "abc123def456",
    "guardrailArn": _ARN + ":guardrail/abc123def456",
    "guardrailVersion": "1",
    "policyVersionArn": _ARN + ":automated-reasoning-policy/abc123def456:1",
    "knowledgeBaseId": "KB12345678",
    "memoryId": "memory-1",
    "contentType": "application/json",
    "mimeType": "text/plain",
    "presignedUrl": "https://sandbox.s3.{region}.amazonaws.com/document.txt?X-Amz-Signature=sandbox",
    "url": "https://example.com/document.html",
    "uri": "s3://sandbox-bucket/document.txt",
    "s3Uri": "s3://sandbox-bucket/output/",
    "bucketOwner": ACCOUNT,
    "text": "This is the passthrough sandbox: no model was asked.",
    "query": "SELECT name FROM sandbox",
    "sql": "SELECT name FROM sandbox",
    "type": "text/plain",
    "verb": "GET",
    "httpMethod": "GET",
    "apiPath": "/sandbox",
    "actionGroup": "sandbox-actions",
    "actionGroupName": "sandbox-actions",
    "function": "look_up",
    "nodeName": "FlowOutput",
    "nodeOutputName": "document",
    "nodeInputName": "document",
    "inputFieldName": "document",
    "outputFieldName": "document",
    "expression": "$.data",
    "regex": "[0-9]+",
    "toolUseId": "tooluse_sandbox000000000000",
    "clientRequestToken": UUID,
    "inferenceProfileName": "US Anthropic Claude 3.5 Sonnet v2",
    "providerName": "Anthropic",
    "modelName": "Claude 3.5 Sonnet v2",
}

# Where the name says nothing, the first of these that the pattern and the lengths allow.
BY_PATTERN: tuple[str, ...] = (
    "sandbox",
    UUID,
    "1",
    "a1b2c3d4e5f6",
    ACCOUNT,
    _ARN + ":async-invoke/abcdef012345",
    _ARN + ":guardrail/abc123def456",
    _ARN + ":session/" + UUID,
    _ARN + ":flow/FLOW123456/alias/ALIAS12345",
    "arn:aws:bedrock:{region}::foundation-model/amazon.nova-lite-v1:0",
    "arn:aws:iam::{account}:role/sandbox",
    "arn:aws:kms:{region}:{account}:key/" + UUID,
    "s3://sandbox-bucket/document.txt",
)

INTEGERS: Mapping[str, int] = {
    "latencyMs": 432,
    "totalTimeMs": 432,
    "operationTotalTimeMs": 432,
    "inputTokens": 12,
    "outputTokens": 34,
    "totalTokens": 46,
    "httpStatusCode": 200,
    "documentContentLength": 1024,
    "start": 0,
    "startIndex": 0,
    "end": 12,
    "endIndex": 12,
    "endOffset": 12,
    "maximumLength": 2048,
    "topK": 50,
    "index": 0,
}

# Of an enumeration the first of these that it has, so that things went well; else its first value.
CHEERFUL = ("Completed", "Succeeded", "SUCCEEDED", "SUCCESS", "NONE", "ACTIVE", "end_turn", "assistant", "default")

# Where an operation is done to bring about another state.
BY_OPERATION: Mapping[str, Mapping[str, str]] = {
    "EndSession": {"sessionStatus": "ENDED"},
    "StopFlowExecution": {"status": "Aborted"},
}

# Members that say something went wrong, or that there is another page: only where they are required.
UNWELCOME = frozenset(
    {"nextToken", "failureMessage", "failureReason", "failureTrace", "errors", "errorCode", "executionError"}
)
