"""AWS credentials as a value: what an identity hands out and what a call is signed with.

It lives here, below both, because `identities` makes it and `proxy` uses it, and neither imports the other.
"""

from dataclasses import dataclass, field

from passthrough.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Credentials:
    """One generation of an identity's AWS credentials.

    A refresh makes a new value; it never changes this one, so that a call is signed with a key and a token
    that belong together. `token` is the session token of temporary credentials, None for long-lived ones.
    The repr names the access key, which is no secret (it stands in every signed request), and nothing else:
    values end up in tracebacks and logs.

    Raises `Unavailable` for what cannot stand in a header, such as a line end read along with a token from a
    file. It is refused here because later on, an encoding error would carry the secret it could not encode.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value in (
            ("access key", self.access_key),
            ("secret key", self.secret_key),
            ("session token", self.token or ""),
        ):
            if not (value.isascii() and value.isprintable()):
                raise Unavailable(
                    "There are no usable AWS credentials.",
                    cause=f"The AWS {name} holds a line end or another character that no {name} has:"
                    " write it again where it is configured.",
                )
