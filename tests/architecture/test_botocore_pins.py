"""What we rely on in botocore without its promise: when an upgrade changes it, read it again before trusting it.

Each source is pinned by its SHA-256. On a failure, compare the function between the two versions of botocore,
check the sentence beside it (what we rely on), adapt if it no longer holds, and only then renew the hash.
"""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from botocore.credentials import (
    ConfigProvider,
    Credentials,
    DeferredRefreshableCredentials,
    InstanceMetadataProvider,
    RefreshableCredentials,
    SharedCredentialProvider,
)
from botocore.endpoint_provider import EndpointProvider, RuleSetStandardLibrary
from botocore.session import Session
from botocore.utils import InstanceMetadataFetcher

from passthrough import identities

PINS: dict[Callable[..., Any], tuple[str, str]] = {
    Credentials.__init__: (
        "b8c9622175dbfdea",
        "identities: credentials that never expire have no `_expiry_time`; `method` names the provider",
    ),
    RefreshableCredentials.__init__: (
        "f96b5344637a82e2",
        "identities: `_expiry_time` is an aware datetime, or None for credentials that do not expire",
    ),
    RefreshableCredentials.get_frozen_credentials: (
        "5dacfa2ca8485798",
        "identities: it refreshes first where needed, so that `_expiry_time` read after it belongs to its answer",
    ),
    RefreshableCredentials._refresh: (
        "38283a1900dde4b9",
        "identities: it blocks and may raise; with more than 15 minutes left it does nothing",
    ),
    RefreshableCredentials._publish_refresh: (
        "a451fd831a2a45f3",
        "identities: keys and `_expiry_time` change together",
    ),
    DeferredRefreshableCredentials.__init__: (
        "4a18b62244c7e244",
        "identities: nothing is fetched, and `_expiry_time` is None, before get_frozen_credentials",
    ),
    Session.get_credentials: (
        "29c2fb6b1d233216",
        "identities: None when the chain finds nothing; a new session starts the chain afresh",
    ),
    InstanceMetadataFetcher._evaluate_expiration: (
        "97f0bd2348ec2b24",
        "identities: puts the expiry off when less than 17 to 25 minutes are left (_EXPIRY_IN_DOUBT_SECONDS is more)",
    ),
    EndpointProvider.__init__: (
        "f0f1d8c350222316",
        "endpoints: takes the rule set's and the partitions' data as they were loaded",
    ),
    EndpointProvider.resolve_endpoint: (
        "53da8e6693ef5fb5",
        "endpoints: answers with something that has a `url`, touches no network and no environment",
    ),
    RuleSetStandardLibrary.aws_partition: (
        "ae4b3197e08ebcd1",
        "endpoints: a region that is not listed gets the partition whose regionRegex it matches",
    ),
}


def source_hash(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


@pytest.mark.parametrize("function", PINS, ids=lambda function: function.__qualname__)
def test_what_we_rely_on_in_botocore_is_as_it_was_when_it_was_read(function: Callable[..., Any]) -> None:
    pinned, relied_on = PINS[function]
    assert source_hash(function) == pinned, (
        f"botocore changed {function.__module__}.{function.__qualname__}. Check that this still holds, then renew "
        f"the hash: {relied_on}."
    )


def test_the_providers_are_called_what_we_call_them() -> None:
    assert {SharedCredentialProvider.METHOD, ConfigProvider.METHOD} == identities._FILES
    assert InstanceMetadataProvider.METHOD == identities._INSTANCE
