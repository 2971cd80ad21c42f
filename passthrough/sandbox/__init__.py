"""A Bedrock stand-in: for trying the proxy without an AWS account, for our tests, and for our users' tests.

It verifies every signature from the bytes it received, answers each operation of bedrock-runtime and
bedrock-agent-runtime with a body that AWS's own SDKs accept, streams at the pace of a model, and fails when it is
told to (`faults`). Nothing in it shares code with the proxy's signer or router, so that their mistakes show.

    async with Sandbox() as sandbox:
        client = boto3.client("bedrock-runtime", endpoint_url=sandbox.url, …)
"""

from passthrough.sandbox.access import DEFAULT_BEARER_TOKEN, DEFAULT_CREDENTIALS
from passthrough.sandbox.exchange import Received
from passthrough.sandbox.faults import FAULTS
from passthrough.sandbox.server import Sandbox

__all__ = ["DEFAULT_BEARER_TOKEN", "DEFAULT_CREDENTIALS", "FAULTS", "Received", "Sandbox"]
