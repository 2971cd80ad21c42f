"""`python -m passthrough.healthcheck`: does the server of these settings live? Exits with 0, or with 1 and one line.

The image asks this every ten seconds, so it loads little: the whole command line would take a second of a core.
Alive, not ready: a container is restarted for this, and that mends no PostgreSQL that is away.
"""

import ssl
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from passthrough.errors import UserError
from passthrough.settings import load

PATH = "/health/liveness"
ANSWER_SECONDS = 2.0
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask a server there


def main() -> None:
    """Ask the server that the environment configures."""
    try:
        settings = load()
    except UserError as error:
        found: str | None = str(error)
    else:
        found = trouble(settings.host, settings.port)
    if found:
        sys.exit(f"passthrough: {found}")


def trouble(host: str, port: int) -> str | None:
    """Say why a server that listens there is not alive; None if it is. Whether it speaks TLS is found out."""
    host = _ANY_ADDRESS.get(host, host)
    try:
        try:
            status = _asked(HTTPConnection(host, port, timeout=ANSWER_SECONDS))
        except (HTTPException, ConnectionError):  # it hung up on plain http
            status = _asked(HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=_unverified()))
    except (OSError, HTTPException) as error:
        return f"Nobody answers at {host} on port {port}: {error}."
    return None if status == HTTPStatus.OK else f"What listens at {host} on port {port} answers {PATH} with {status}."


def _asked(connection: HTTPConnection) -> int:
    try:
        connection.request("GET", PATH)
        return connection.getresponse().status
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    """Believe any certificate: it names the server's public name, we ask at its own address and send no secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    main()
