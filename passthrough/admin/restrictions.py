"""Whether what a row restricts makes sense: a restriction that can never match is a typing error, and is refused."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from passthrough.bedrock.endpoints import is_region
from passthrough.bedrock.operations import operations
from passthrough.errors import invalid

_GROUPS: Final = frozenset({"llm_api_routes", "*"})  # LiteLLM's groups that a key of ours can ask for


def check_restrictions(row: Mapping[str, Any]) -> None:
    """Raise a 400 that names the field for what is unknown or does not go together; `row` is the whole row."""
    _check_routes(row.get("allowed_routes", ()))
    _check_regions(row)
    if row.get("auto_rotate") and row.get("rotation_interval") is None:
        raise invalid("auto_rotate needs a rotation_interval, such as 90d.", param="rotation_interval")
    if (row.get("temp_budget_increase") is None) != (row.get("temp_budget_expiry") is None):
        raise invalid(
            "temp_budget_increase and temp_budget_expiry go together: give both or neither.",
            param="temp_budget_expiry",
        )
    if "all-team-models" in row.get("models", ()) and row.get("team_id") is None:
        raise invalid("The model list 'all-team-models' needs a team_id.", param="models")


def _check_routes(routes: Iterable[str]) -> None:
    known = _GROUPS | {name for operation in operations() for name in (operation.name, operation.service)}
    for route in routes:
        if not route.startswith("/") and route not in known:
            raise invalid(
                f"allowed_routes holds {route}, which is no operation, service or path: "
                "write one such as Converse, bedrock-runtime or /model/*.",
                param="allowed_routes",
            )


def _check_regions(row: Mapping[str, Any]) -> None:
    for pattern in row.get("allowed_regions", ()):
        if "*" not in pattern and not is_region(pattern):
            raise invalid(
                f"allowed_regions holds {pattern}, which is no region of AWS: write one such as eu-west-1 or eu-*.",
                param="allowed_regions",
            )
    region = row.get("region")
    if region is not None and not is_region(region):
        raise invalid(f"The region {region} is none of AWS: write one such as eu-west-1.", param="region")
