"""What the README promises is what there is."""

import re
from pathlib import Path

import pytest

from passthrough.settings import variable_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", sorted(variable_names()))
def test_every_setting_is_in_the_readme(name: str) -> None:
    row = next((line for line in README.splitlines() if line.startswith("|") and _named_in(line, name)), None)
    assert row is not None, f"{name} has no row in the README's table of settings"


def _named_in(line: str, name: str) -> bool:
    return re.search(rf"`{re.escape(name)}`", line) is not None


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"`(PASSTHROUGH_[A-Z_]+)`", README))
    assert named <= variable_names()


def test_the_two_commands_of_the_readme_are_those_of_ci() -> None:
    assert "pip install -q uv && uv run passthrough serve --sandbox" in README
    command = "pip install -q uv && uv run pytest"
    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text()
