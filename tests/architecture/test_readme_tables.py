"""The README's table of answers is that of the program: what drifts fails here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SOURCES = [
    *(ROOT / "passthrough" / name for name in ("app.py", "errors.py", "inbound.py")),
    *(ROOT / "passthrough" / "proxy").glob("*.py"),
    *(ROOT / "passthrough" / "policy").glob("*.py"),
]
# aiohttp finds these, and `inbound` answers them; no status stands in its source.
BEFORE_A_CALL = {(417, "ValidationException"), (431, "ValidationException")}


def rows(first_column: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    table = README.partition(f"\n| {first_column} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def refusals(source: Path) -> Iterator[tuple[int, str]]:
    """Status and code of every `Refusal` that the source makes of constants, `Unavailable`'s own included."""
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Call(
                func=ast.Name("Refusal") | ast.Attribute(ast.Call(ast.Name("super")), "__init__"),
                args=[ast.Constant(int(status)), ast.Constant(str(code)), *_],
            ):
                yield status, code


def test_every_answer_of_the_proxy_itself_is_in_the_readme() -> None:
    made = {refusal for source in SOURCES for refusal in refusals(source)} | BEFORE_A_CALL
    told = {(int(cell[:3]), codes(cell)[0]) for _, cell in rows("why")}
    assert told == made
