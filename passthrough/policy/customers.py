"""What holds for the end user of a call, whom a header names: a customer may be blocked, or have a model list."""

from dataclasses import dataclass, replace

from passthrough.policy.keys import VirtualKey


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer who is restricted; the others are nobody's business on the path of a call."""

    user_id: str
    blocked: bool = False
    models: tuple[str, ...] = ()


def bound(key: VirtualKey, customer: Customer | None) -> VirtualKey:
    """Give the key as it is for a call of this customer: what restricts the customer restricts it too."""
    if customer is None or key.is_master:
        return key
    if customer.blocked:
        return replace(key, blocked=True, blocked_by=key.blocked_by or "customer")
    if not customer.models:
        return key
    lists = key.model_lists or ((key.models,) if key.models else ())
    return replace(key, model_lists=(*lists, customer.models))
