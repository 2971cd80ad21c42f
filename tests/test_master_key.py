"""The administrator's key beside an embedded database is there, whole, and for its owner alone."""

import stat
from pathlib import Path

import pytest

from passthrough import master_key


@pytest.mark.parametrize("before", [None, ""], ids=["no file", "a start that was killed while it wrote"])
def test_a_key_is_made_once_and_is_hard_to_guess(before: str | None, tmp_path: Path) -> None:
    file = tmp_path / master_key.FILE
    if before is not None:
        file.write_text(before)
    made = master_key.made_once(tmp_path)
    assert master_key.weakness(made) is None
    assert master_key.made_once(tmp_path) == master_key.kept(tmp_path) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
