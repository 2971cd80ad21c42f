"""AWS credentials as a value: what an identity hands out and what a call is signed with.

It lives here, below both, because `identities` makes it and `proxy` uses it, and neither imports the other.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """One generation of an identity's AWS credentials.

    A refresh makes a new value; it never changes this one, so that a call is signed with a key and a token
    that belong together. `token` is the session token of temporary credentials, None for long-lived ones.
    The repr names the access key, which is no secret (it stands in every signed request), and nothing else:
    values end up in tracebacks and logs.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
