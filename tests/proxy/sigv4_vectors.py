"""What AWS's own SigV4 test suite says: 38 requests and the signature that each must have.

The facts are those of the 38 `v4` cases of https://github.com/awslabs/aws-c-auth, folder
`tests/aws-signing-test-suite/v4` (the `header-*` files, that is signatures in the Authorization header).
`get-header-value-multiline` is as the suite has it today; until about 2020 a folded line was joined with a comma.
All share one date, region, service and key pair, below; all but two have an empty body.
"""

from dataclasses import dataclass

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
SERVICE = "service"
HOST = "example.amazonaws.com"
TIMESTAMP = 1440938160  # 2015-08-30T12:36:00Z
AMZ_DATE = "20150830T123600Z"

UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SESSION = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
STS_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuw"
    "thAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHN"
    "VXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxB"
    "A=="
)


@dataclass(frozen=True, kw_only=True)
class Vector:
    """One case. `headers` are the signed ones besides Host and X-Amz-Date; `normalized` says how its path is signed."""

    name: str
    signature: str
    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    token: str | None = None
    body: bytes = b""
    normalized: bool = True


def _form(content_type: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", content_type),
        ("Content-Length", "13"),
        ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
    )


def _my1(*values: str) -> tuple[tuple[str, str], ...]:
    return tuple(("My-Header1", value) for value in values)


PLAIN_GET = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
PLAIN_POST = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
POST_QUERY = "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"
EXAMPLE = "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"
SPACE = "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"

VECTORS = (
    Vector(name="get-vanilla", signature=PLAIN_GET),
    Vector(name="get-vanilla-query", signature=PLAIN_GET),
    Vector(name="post-vanilla", method="POST", signature=PLAIN_POST),
    Vector(name="post-header-key-case", method="POST", signature=PLAIN_POST),
    Vector(name="post-sts-header-after", method="POST", signature=PLAIN_POST),
    Vector(
        name="get-vanilla-with-session-token",
        token=SESSION,
        signature="07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    ),
    Vector(
        name="post-sts-header-before",
        method="POST",
        token=STS_TOKEN,
        signature="85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
    Vector(name="post-vanilla-query", method="POST", query="Param1=value1", signature=POST_QUERY),
    Vector(name="post-vanilla-empty-query-value", method="POST", query="Param1=value1", signature=POST_QUERY),
    Vector(
        name="get-vanilla-empty-query-key",
        query="Param1=value1",
        signature="a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    Vector(
        name="get-vanilla-query-order-key-case",
        query="Param2=value2&Param1=value1",
        signature="b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    Vector(
        name="get-vanilla-query-order-encoded",
        query="Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        signature="371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    Vector(
        name="get-vanilla-query-unreserved",
        query=f"{UNRESERVED}={UNRESERVED}",
        signature="9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    Vector(
        name="get-vanilla-utf8-query",
        query="ሴ=bar",
        signature="2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    Vector(
        name="get-unreserved",
        path=f"/{UNRESERVED}",
        signature="07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    Vector(
        name="get-utf8",
        path="/ሴ",
        signature="8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    Vector(name="get-space-normalized", path="/example space/", signature=SPACE),
    Vector(name="get-space-unnormalized", path="/example space/", normalized=False, signature=SPACE),
    Vector(name="get-relative-normalized", path="/example/..", signature=PLAIN_GET),
    Vector(
        name="get-relative-unnormalized",
        path="/example/..",
        normalized=False,
        signature="eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
    ),
    Vector(name="get-relative-relative-normalized", path="/example1/example2/../..", signature=PLAIN_GET),
    Vector(
        name="get-relative-relative-unnormalized",
        path="/example1/example2/../..",
        normalized=False,
        signature="dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b",
    ),
    Vector(name="get-slash-normalized", path="//", signature=PLAIN_GET),
    Vector(
        name="get-slash-unnormalized",
        path="//",
        normalized=False,
        signature="c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e",
    ),
    Vector(name="get-slash-dot-slash-normalized", path="/./", signature=PLAIN_GET),
    Vector(
        name="get-slash-dot-slash-unnormalized",
        path="/./",
        normalized=False,
        signature="68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145",
    ),
    Vector(name="get-slash-pointless-dot-normalized", path="/./example", signature=EXAMPLE),
    Vector(
        name="get-slash-pointless-dot-unnormalized",
        path="/./example",
        normalized=False,
        signature="beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff",
    ),
    Vector(
        name="get-slashes-normalized",
        path="//example//",
        signature="9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    Vector(
        name="get-slashes-unnormalized",
        path="//example//",
        normalized=False,
        signature="87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
    ),
    Vector(
        name="get-header-key-duplicate",
        headers=_my1("value2", "value2", "value1"),
        signature="c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    Vector(
        name="get-header-value-multiline",
        headers=_my1("value1\n  value2\n     value3"),
        signature="cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd",
    ),
    Vector(
        name="get-header-value-order",
        headers=_my1("value4", "value1", "value3", "value2"),
        signature="08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    Vector(
        name="get-header-value-trim",
        headers=(*_my1(" value1"), ("My-Header2", ' "a   b   c"')),
        signature="acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    Vector(
        name="post-header-key-sort",
        method="POST",
        headers=_my1("value1"),
        signature="c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    Vector(
        name="post-header-value-case",
        method="POST",
        headers=_my1("VALUE1"),
        signature="cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    Vector(
        name="post-x-www-form-urlencoded",
        method="POST",
        headers=_form("application/x-www-form-urlencoded"),
        body=b"Param1=value1",
        signature="d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    ),
    Vector(
        name="post-x-www-form-urlencoded-parameters",
        method="POST",
        headers=_form("application/x-www-form-urlencoded; charset=utf-8"),
        body=b"Param1=value1",
        signature="328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
    ),
)
