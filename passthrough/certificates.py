"""The server's certificate, read at the start and again when its files change: it is renewed without asking us."""

import asyncio
import logging
import ssl
from pathlib import Path

from passthrough.errors import UserError

_log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # certificates are renewed days before they expire

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A chain and its private key in PEM files. `context` is what to listen with; `follow` keeps it up to date.

    Raises `UserError` when the files do not serve.
    """

    def __init__(self, cert: str | Path, key: str | Path) -> None:
        self._files = Path(cert), Path(key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._seen = self._stamp()
            self.context.load_cert_chain(*self._files)
        except OSError as error:  # ssl's are, too
            raise UserError(f"The TLS certificate or key cannot be used: {error}.") from None

    async def follow(self, look_seconds: float = LOOK_SECONDS) -> None:
        """Take over what is renewed, for new connections; the owner cancels it."""
        while True:
            await asyncio.sleep(look_seconds)
            self._look()

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            # by another context first: this one would keep the half of a pair that does not fit
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, _no_password)
            self.context.load_cert_chain(*self._files, _no_password)
        except OSError as error:
            _log.error("the renewed TLS certificate cannot be used, the former one stays", extra={"cause": str(error)})
        else:
            _log.info("the TLS certificate was renewed", extra={"path": str(self._files[0])})

    def _stamp(self) -> _Stamp:
        try:
            found = [file.stat() for file in self._files]  # of what a link leads to: Kubernetes turns links
        except OSError:  # said by whoever reads them
            return ()
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _no_password() -> str:
    """OpenSSL would ask the terminal for one, and everybody would wait."""
    raise OSError("the private key has a passphrase")
