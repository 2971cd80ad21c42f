"""Requests to sign: one that says what matters in a test, and all that clients may send, for Hypothesis."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import strategies as st

from passthrough.policy.credentials import Credentials
from passthrough.proxy.sign import canonical_query


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be signed; `headers` are those that belong into the signature."""

    method: str = "POST"
    path: str = "/model/a%3A0/converse"
    query: str = ""
    host: str = "bedrock-runtime.us-east-1.amazonaws.com"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b"{}"
    credentials: Credentials = field(default_factory=lambda: Credentials("AKIDEXAMPLE", "made-up"))
    region: str = "us-east-1"
    timestamp: int = 1_800_000_000

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def when(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp, UTC)


def readable_by_the_crt(target: str) -> bool:
    """Say whether the CRT takes the target for a path: it takes what stands before `:/` for a scheme."""
    return ":/" not in target


TEXT = st.text(st.characters(exclude_characters="#&?", exclude_categories=("Cc", "Cs")), max_size=8)
ESCAPE = st.builds(lambda byte, style: f"%{byte:{style}}", st.integers(0, 255), st.sampled_from(["02x", "02X"]))
SEGMENT = st.lists(
    st.one_of(
        st.sampled_from(
            ["model", "a%3A0", "a%3a0", "a:0", "arn%3Aaws%2Fx", "~*'()!;,=+@$&", "%2e%2e", "%", "%zz", " "]
        ),
        ESCAPE,
        TEXT.map(lambda text: text.replace("/", "")),
    ),
    max_size=3,
).map("".join)
PATHS = (
    st.lists(st.one_of(SEGMENT, st.sampled_from(["", ".", "..", "..."])), max_size=5)
    .map(lambda segments: "/" + "/".join(segments))
    .filter(readable_by_the_crt)
)

QUERY_PIECE = st.lists(st.one_of(st.sampled_from(list("aZ09-._~+:/?;,@!$'()*")), ESCAPE, TEXT), max_size=4).map(
    lambda pieces: re.sub("%(?![0-9A-Fa-f]{2})", "", "".join(pieces))  # CRT refuses a % that starts no escape
)
QUERIES = (
    st.lists(
        st.one_of(
            st.tuples(QUERY_PIECE.map(lambda name: name.replace("=", "")), QUERY_PIECE).map("=".join),
            QUERY_PIECE,
        ),
        max_size=4,
    )
    .map("&".join)
    .filter(readable_by_the_crt)
)

# What the header of a request may hold, less what botocore takes for white space and AWS does not.
FIELD_TEXT = st.text(
    st.one_of(st.characters(min_codepoint=0x21, max_codepoint=0x7E), st.sampled_from(" \té😀")), max_size=12
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([
            "Content-Type",
            "X-Amzn-Bedrock-Trace",
            "x-amzn-bedrock-trace",
            "X-Amzn-Bedrock-GuardrailIdentifier",
            "x-amz-source-arn",
            "x-amz-source",
            "X-Amz-User-Agent",
        ]),
        FIELD_TEXT,
    ),
    max_size=5,
)  # fmt: skip
SECRET = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=50)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    path=PATHS,
    query=QUERIES.map(canonical_query),
    host=st.sampled_from(["bedrock-runtime.us-east-1.amazonaws.com", "127.0.0.1:8080", "localhost"]),
    headers=HEADERS,
    body=st.binary(max_size=20),
    credentials=st.builds(Credentials, st.sampled_from(["AKIDEXAMPLE", "ASIA2"]), SECRET, st.none() | SECRET),
    region=st.sampled_from(["us-east-1", "eu-central-1", "us-gov-west-1"]),
    timestamp=st.integers(1_000_000_000, 4_000_000_000) | st.integers(1_799_999_990, 1_800_000_010),
)
