"""The administrator's key: made once where nobody set one, and what is to be said of one that can be guessed."""

import os
import secrets
from pathlib import Path
from typing import Final

FILE: Final = "master-key"
SHORTEST: Final = 16  # characters; as of a custom virtual key, which may do far less


def made_once(data_dir: Path) -> str:
    """The key beside the embedded database, readable by its owner alone; made now if there is none.

    Call with the lock of the data directory, as whoever owns the database does.
    """
    key = kept(data_dir)
    if not key:
        key = "sk-" + secrets.token_urlsafe(32)
        unfinished = data_dir / f"{FILE}.new"  # half a key would be one for ever
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key)
        unfinished.replace(data_dir / FILE)
    return key


def kept(data_dir: Path) -> str | None:
    """The key beside the embedded database, if one was made."""
    path = data_dir / FILE
    return path.read_text().strip() if path.exists() else None


def weakness(key: str) -> str | None:
    """What is wrong with a key, in a sentence that tells nothing else of it; None if nothing is."""
    if len(key) < SHORTEST:
        return f"The master key is shorter than {SHORTEST} characters and can be guessed; set a long random text."
    return None
