"""The little of the control plane that clients of the runtime ask for: models and inference profiles."""

from typing import Any

from passthrough.errors import Refusal
from passthrough.sandbox import samples
from passthrough.sandbox.exchange import Answer, Asked, json_answer

# Model id → (provider, name, output). Enough to fill a list; every other well-formed id is known too.
MODELS = {
    "anthropic.claude-3-5-sonnet-20241022-v2:0": ("Anthropic", "Claude 3.5 Sonnet v2", "TEXT"),
    "anthropic.claude-3-5-haiku-20241022-v1:0": ("Anthropic", "Claude 3.5 Haiku", "TEXT"),
    "anthropic.claude-sonnet-4-20250514-v1:0": ("Anthropic", "Claude Sonnet 4", "TEXT"),
    "amazon.nova-lite-v1:0": ("Amazon", "Nova Lite", "TEXT"),
    "amazon.nova-pro-v1:0": ("Amazon", "Nova Pro", "TEXT"),
    "amazon.titan-embed-text-v2:0": ("Amazon", "Titan Text Embeddings V2", "EMBEDDING"),
    "cohere.embed-english-v3": ("Cohere", "Embed English", "EMBEDDING"),
    "meta.llama3-1-8b-instruct-v1:0": ("Meta", "Llama 3.1 8B Instruct", "TEXT"),
    "mistral.mistral-7b-instruct-v0:2": ("Mistral AI", "Mistral 7B Instruct", "TEXT"),
}
GEOGRAPHIES = ("us", "eu", "apac", "global", "us-gov", "jp", "au", "ca")
# What every application inference profile of the sandbox runs.
APPLICATION_MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"
_MADE_AT = "2025-01-15T00:00:00Z"


def list_foundation_models(asked: Asked) -> Answer:
    return json_answer({"modelSummaries": [_model(asked, model) for model in MODELS]})


def get_foundation_model(asked: Asked) -> Answer:
    model = asked.labels["modelIdentifier"].rpartition("/")[2]
    if "." not in model:
        raise _not_found()
    return json_answer({"modelDetails": _model(asked, model)})


def list_inference_profiles(asked: Asked) -> Answer:
    names = [f"us.{model}" for model, (provider, _, _) in MODELS.items() if provider in {"Anthropic", "Amazon"}]
    return json_answer({"inferenceProfileSummaries": [_system_profile(asked, name) for name in names]})


def get_inference_profile(asked: Asked) -> Answer:
    identifier = asked.labels["inferenceProfileIdentifier"]
    if "application-inference-profile" in identifier or "." not in identifier:
        return json_answer(_application_profile(asked, identifier.rpartition("/")[2]))
    name = identifier.rpartition("/")[2]
    if name.partition(".")[0] not in GEOGRAPHIES:
        raise _not_found()
    return json_answer(_system_profile(asked, name))


def _not_found() -> Refusal:
    return Refusal(404, "ResourceNotFoundException", "The provided model identifier is invalid.")


def _model(asked: Asked, model: str) -> dict[str, Any]:
    provider, name, output = MODELS.get(model, (model.partition(".")[0].title()[:20], model[:20], "TEXT"))
    return {
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "inputModalities": ["TEXT"],
        "modelArn": _model_arn(asked, model),
        "modelId": model,
        "modelLifecycle": {"status": "ACTIVE"},
        "modelName": name[:20],
        "outputModalities": [output],
        "providerName": provider,
        "responseStreamingSupported": output == "TEXT",
    }


def _model_arn(asked: Asked, model: str) -> str:
    return f"arn:aws:bedrock:{asked.region}::foundation-model/{model}"


def _system_profile(asked: Asked, name: str) -> dict[str, Any]:
    geography, _, model = name.partition(".")
    arn = f"arn:aws:bedrock:{asked.region}:{samples.ACCOUNT}:inference-profile/{name}"
    return {
        **_profile(asked, model),
        "description": f"Routes requests to {model} in {geography}.",
        "inferenceProfileArn": arn,
        "inferenceProfileId": name,
        "inferenceProfileName": f"{geography.upper()} {MODELS.get(model, ('', 'Model'))[1]}",
        "type": "SYSTEM_DEFINED",
    }


def _application_profile(asked: Asked, identifier: str) -> dict[str, Any]:
    arn = f"arn:aws:bedrock:{asked.region}:{samples.ACCOUNT}:application-inference-profile/{identifier}"
    return {
        **_profile(asked, APPLICATION_MODEL),
        "description": "An application inference profile of the sandbox.",
        "inferenceProfileArn": arn,
        "inferenceProfileId": identifier,
        "inferenceProfileName": "sandbox application",
        "type": "APPLICATION",
    }


def _profile(asked: Asked, model: str) -> dict[str, Any]:
    return {
        "createdAt": _MADE_AT,
        "models": [{"modelArn": _model_arn(asked, model)}],
        "status": "ACTIVE",
        "updatedAt": _MADE_AT,
    }
