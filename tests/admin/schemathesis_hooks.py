"""What schemathesis asks of us beyond its own checks.

Its own `positive_data_acceptance` wants every request that fits the document to succeed. Ours may be refused for a
rule that a document cannot say (an alias is taken, a budget is in use), but never because it does not fit.
"""

import re

import schemathesis
from schemathesis.generation import GenerationMode

_DOES_NOT_FIT = re.compile(r"does not fit|There is no (field|parameter)|is missing|not JSON|NUL character")


@schemathesis.check
def fits_what_is_described(ctx, response, case) -> None:  # noqa: ARG001  # the interface of a check
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or response.status_code != 400:
        return
    message = response.json()["error"]["message"]
    assert not _DOES_NOT_FIT.search(message), f"what fits the document was refused: {message}"
