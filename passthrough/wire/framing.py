"""What the head of an answer says about its body's end, and how large a head may be."""

from passthrough.errors import UpstreamFailure

# AWS's own heads stay under 4 KiB; the largest documented limit of a common server is Envoy's 60 KiB.
MAX_HEAD_BYTES = 64 * 1024

Headers = list[tuple[bytes, bytes]]


def ends_with_the_connection(headers: Headers) -> bool:
    """Whether the body ends where the connection does (RFC 9112 §6.3, rule 8).

    Raises `UpstreamFailure` for a transfer coding that was not offered: its bytes would pass for the body's.
    """
    delimited = False
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            delimited = True
        elif lowered == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise UpstreamFailure("the upstream used a transfer coding that was not offered")
            delimited = True
    return not delimited


def size_of(headers: Headers) -> int:
    """Bytes of the fields as they stood on the wire, separators included."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def too_large() -> UpstreamFailure:
    return UpstreamFailure(f"the head of the upstream's answer exceeds {MAX_HEAD_BYTES} bytes")
