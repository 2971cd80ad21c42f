"""The README's tables of answers, reports and metrics are those of the program: what drifts fails here."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from passthrough.admin.endpoint import Endpoint
from passthrough.admin.spend import spend_endpoints
from tests.fakes.running import running

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


@pytest.fixture(scope="module")
def reports() -> Mapping[str, Endpoint]:
    return {endpoint.path: endpoint for endpoint in spend_endpoints(None, lambda: 0.0)}


def test_the_readme_has_every_report_with_every_parameter(reports: Mapping[str, Endpoint]) -> None:
    told = {path: set(codes(parameters)) for paths, parameters, _ in rows("route") for path in codes(paths)}
    taken = {
        path: {field.name for field in msgspec.structs.fields(endpoint.query)} if endpoint.query else set()
        for path, endpoint in reports.items()
    }
    assert told == taken


def test_the_readme_says_what_a_virtual_key_may_read_of_the_ledger(reports: Mapping[str, Endpoint]) -> None:
    sentence = README.partition("A virtual key may read its own part of ")[2].partition(";")[0]
    own = {path for path, endpoint in reports.items() if endpoint.access == "own"}
    assert set(codes(sentence)) == {path for path in own if "activity" not in path}
    assert len([path for path in own if "activity" in path]) == 2
    assert "the two daily activities" in sentence.replace("\n", " ")


async def test_the_readme_has_every_metric_with_its_type_and_labels(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        assert (await session.post(f"{proxy.bedrock}/model/any/converse")).status == 401
        metrics: Any = proxy.service.refused.__self__  # what it is bound to
        metrics.request_refused(431)  # labels are shown once there is something to count
        metrics.limit_refused("rpm_limit", shadow=False)
        metrics.limit_crossed("75")
        exposition = await (await session.get(f"{proxy.url}/metrics")).text()
    shown = {}
    for family in text_string_to_metric_families(exposition):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[name] = (family.type, labels)
    assert {codes(name)[0]: (kind, set(codes(labels))) for name, kind, labels, _ in rows("metric")} == shown
