"""Real files of AWS's bill: the Parquet ones with CUR 2.0's column types, written by pyarrow."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from passthrough import bills
from passthrough.bedrock.billing import COLUMNS
from passthrough.errors import UserError

TEXT = pa.string()
CUR2 = pa.schema(
    {
        "identity_line_item_id": TEXT,
        "line_item_usage_start_date": pa.timestamp("ms", "UTC"),
        "line_item_unblended_cost": pa.float64(),
        "line_item_usage_type": TEXT,
        "line_item_product_code": TEXT,
        "line_item_line_item_type": TEXT,
        "line_item_usage_amount": pa.float64(),
        "product": pa.map_(TEXT, TEXT),
        "resource_tags": pa.map_(TEXT, TEXT),
    }
)
DAY = date(2026, 11, 10)
EDITION = "Claude Sonnet 4.5 (Amazon Bedrock Edition)"


def line(usage: str, cost: object, *, at: datetime | None = None, **more: Any) -> dict[str, Any]:
    return {
        "identity_line_item_id": "id",
        "line_item_usage_start_date": at or datetime(2026, 11, 10, 14, tzinfo=UTC),
        "line_item_unblended_cost": cost,
        "line_item_usage_type": usage,
        "line_item_product_code": "AmazonBedrock",
        "line_item_line_item_type": "Usage",
        "line_item_usage_amount": 12.5,
        "product": [("region_code", "us-east-1"), ("product_name", "Amazon Bedrock")],
        "resource_tags": [],
    } | more


LINES = [
    line("USE1-NovaLite-input-tokens", 0.1),
    line("USE1-NovaLite-output-tokens", 0.2),
    line("USE1-NovaLite-input-tokens", 6e-8, at=datetime(2026, 11, 10, 23, 59, 59, tzinfo=UTC)),
    line("MP:USE1_InputTokenCount-Units", 1.5, line_item_product_code="1a2b", product=[("product_name", EDITION)]),
    line("USE1-Requests-Tier1", 9.0, line_item_product_code="AmazonS3", product=None),
    line("USE1-NovaLite-input-tokens", -9.0, line_item_line_item_type="Credit"),
    line("USE1-NovaLite-input-tokens", None, line_item_usage_type="USE1-NovaPro-input-tokens"),
]
SUMS = {
    (DAY, "NovaLite"): Decimal("0.30000006"),  # 0.1 + 0.2 in doubles has other digits
    (DAY, "Claude Sonnet 4.5"): Decimal("1.5"),
    (DAY, "NovaPro"): Decimal(0),
}


def write(file: Path, lines: list[dict[str, Any]], schema: pa.Schema = CUR2, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(lines, schema=schema), file, compression="snappy", **options)
    return file


def write_csv(file: Path, lines: list[dict[str, Any]]) -> Path:
    """Write what AWS's CSV says of the same lines: JSON for maps."""
    columns = (*COLUMNS, "product")
    rows = [",".join(columns)]
    for each in lines:
        values = each | {
            "line_item_usage_start_date": each["line_item_usage_start_date"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "product": json.dumps(dict(each["product"] or ())).replace('"', '""'),
        }
        rows.append(",".join(f'"{"" if values[name] is None else values[name]}"' for name in columns))
    text = ("\n".join(rows) + "\n").encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def with_column(name: str, kind: pa.DataType) -> pa.Schema:
    return CUR2.set(CUR2.get_field_index(name), pa.field(name, kind))


@pytest.mark.parametrize(
    ("name", "written"), [("bill.csv", write_csv), ("bill.csv.gz", write_csv), ("bill.snappy.parquet", write)]
)
def test_the_same_bill_has_the_same_sums_in_every_format(
    tmp_path: Path, name: str, written: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    assert bills.read([written(tmp_path / name, LINES)]) == SUMS


def test_a_parquet_file_is_known_by_its_first_bytes_too(tmp_path: Path) -> None:
    assert bills.read([write(tmp_path / "bill", LINES)]) == SUMS


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("ns", "UTC")],
    ids=str,
)
def test_the_day_is_utcs_whatever_the_timestamps_unit(tmp_path: Path, kind: pa.DataType) -> None:
    late = datetime(2026, 11, 10, 23, 59, 59, tzinfo=UTC)
    schema = with_column("line_item_usage_start_date", kind)
    assert bills.read([write(tmp_path / "a.parquet", [line("USE1-NovaLite", 1.0, at=late)], schema)]) == {
        (DAY, "NovaLite"): Decimal(1)
    }


def test_the_day_is_utcs_in_files_of_other_time_zones_and_with_nanoseconds(tmp_path: Path) -> None:
    late = int(datetime(2026, 11, 10, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9 + 999_999_999
    for number, kind in enumerate((pa.timestamp("ns"), pa.timestamp("ns", "Asia/Tokyo"))):
        times = pa.array([late], kind)
        schema = with_column("line_item_usage_start_date", kind)
        table = pa.Table.from_pylist([line("USE1-NovaLite", 1.0)], schema=CUR2)
        columns = {name: times if name == "line_item_usage_start_date" else table[name] for name in CUR2.names}
        file = tmp_path / f"{number}.parquet"
        parquet.write_table(pa.table(columns, schema=schema), file, use_deprecated_int96_timestamps=number == 0)
        assert bills.read([file]) == {(DAY, "NovaLite"): Decimal(1)}


def test_a_decimal_keeps_all_of_its_digits(tmp_path: Path) -> None:
    schema = with_column("line_item_unblended_cost", pa.decimal128(38, 20))
    cost = Decimal("123456.00000000000000000001")
    assert bills.read([write(tmp_path / "a.parquet", [line("USE1-NovaLite", cost)], schema)]) == {
        (DAY, "NovaLite"): cost
    }


@pytest.mark.parametrize("kind", [TEXT, pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), TEXT)], ids=str)
def test_text_is_read_however_it_is_stored(tmp_path: Path, kind: pa.DataType) -> None:
    schema = with_column("line_item_usage_type", kind)
    assert bills.read([write(tmp_path / "a.parquet", [line("USE1-NovaLite", 1.0)], schema)]) == {
        (DAY, "NovaLite"): Decimal(1)
    }


def test_a_product_may_be_json_or_a_column_of_its_own_or_left_out(tmp_path: Path) -> None:
    sold = line("MP:USE1_InputTokenCount-Units", 1.5, line_item_product_code="1a2b")
    json_text = sold | {"product": json.dumps({"product_name": EDITION})}
    file = write(tmp_path / "json.parquet", [json_text], with_column("product", TEXT))
    assert bills.read([file]) == {(DAY, "Claude Sonnet 4.5"): Decimal("1.5")}
    own_column = CUR2.append(pa.field("product_product_name", TEXT))
    file = write(tmp_path / "own.parquet", [sold | {"product_product_name": EDITION}], own_column)
    assert bills.read([file]) == {(DAY, "Claude Sonnet 4.5"): Decimal("1.5")}
    without = CUR2.remove(CUR2.get_field_index("product"))
    assert bills.read([write(tmp_path / "without.parquet", LINES[:1], without)]) == {(DAY, "NovaLite"): Decimal("0.1")}


@pytest.mark.parametrize(("ending", "written"), [(".snappy.parquet", write), (".csv.gz", write_csv)])
def test_a_folder_is_all_files_below_it_each_once(
    tmp_path: Path, ending: str, written: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    data = tmp_path / "data"
    first = written(data / "BILLING_PERIOD=2026-11" / f"bill-00001{ending}", LINES[:2])
    written(data / "BILLING_PERIOD=2026-11" / f"bill-00002{ending}", LINES[2:])
    december = line("USE1-NovaLite", 5.0, at=datetime(2026, 12, 1, tzinfo=UTC))
    written(data / "BILLING_PERIOD=2026-12" / f"bill-00001{ending}", [december])
    (data / "BILLING_PERIOD=2026-12" / f"bill-00002{ending}").touch()  # as AWS leaves one that is needed no more
    (data / "Manifest.json").write_text("{}")
    (data / f"._bill{ending}").write_text("a file manager's")
    whole = SUMS | {(date(2026, 12, 1), "NovaLite"): Decimal(5)}
    assert bills.read([data]) == whole
    assert bills.read([data, first, first.parent, first.parent / ".." / first.parent.name / first.name]) == whole
    assert bills.read([data / "BILLING_PERIOD=2026-11"]) == SUMS
    assert bills.read(sorted((data / "BILLING_PERIOD=2026-11").iterdir())) == SUMS


def test_what_would_count_twice_is_refused(tmp_path: Path) -> None:
    month = tmp_path / "BILLING_PERIOD=2026-11"
    for version in ("2026-11-01T00:00:00.000Z-1a", "2026-11-02T00:00:00.000Z-2b"):
        write(month / version / "bill-00001.snappy.parquet", LINES)
    for places in ([tmp_path], sorted(month.iterdir()), sorted(month.glob("*/*"))):
        with pytest.raises(UserError, match=r"several versions of the month.* such as .*02T00:00:00\.000Z-2b"):
            bills.read(places)
    assert bills.read([month / "2026-11-02T00:00:00.000Z-2b"]) == SUMS
    for number, names in enumerate([("a.csv", "a.csv.gz"), ("a.csv", "b.parquet")]):
        for name in names:
            (tmp_path / str(number)).mkdir(exist_ok=True)
            (tmp_path / str(number) / name).touch()
        with pytest.raises(UserError, match="several kinds"):
            bills.read([tmp_path / str(number)])


def test_a_folder_without_a_bill_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no \.csv, \.csv\.gz or \.parquet file"):
        bills.read([tmp_path])


def test_a_parquet_file_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    schema = CUR2.remove(CUR2.get_field_index("line_item_usage_type"))
    file = write(tmp_path / "a.parquet", LINES, schema)
    with pytest.raises(UserError, match=r"a\.parquet lacks the column line_item_usage_type"):
        bills.read([file])


def test_a_column_of_another_type_is_refused_and_not_left_out(tmp_path: Path) -> None:
    schema = with_column("product", pa.struct({"product_name": TEXT}))
    file = write(tmp_path / "a.parquet", [line("x", 1.0, product={"product_name": EDITION})], schema)
    with pytest.raises(UserError, match="other types than CUR 2"):
        bills.read([file])


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_a_cost_that_is_no_number_is_refused(tmp_path: Path, cost: float) -> None:
    file = write(tmp_path / "a.parquet", [line("USE1-NovaLite", 1.0), line("USE1-NovaLite", cost)])
    with pytest.raises(UserError, match=r"Row 2 of .*a\.parquet has no readable date or cost"):
        bills.read([file])


def test_a_broken_parquet_file_is_one_sentence_wherever_it_is_broken(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", LINES * 200, use_dictionary=False).read_bytes()
    broken = tmp_path / "broken.parquet"
    refused = 0
    ends = [b"no Parquet", whole[:-1], whole[: len(whole) // 2], whole[:4], b"PAR1" + bytes(8) + b"PAR1"]
    holes = [whole[:start] + b"\xff" * 16 + whole[start + 16 :] for start in range(4, len(whole) - 24, 97)]
    for content in ends + holes:
        broken.write_bytes(content)
        try:
            bills.read([broken])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017  # a hole may lie where nobody reads
            refused += 1
    assert refused > len(ends)
    for content in ends:
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.parquet is no whole Parquet file"):
            bills.read([broken])


def test_checksums_are_obeyed_where_there_are_any(tmp_path: Path) -> None:
    options = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    file = write(tmp_path / "a.parquet", [line("USE1-NovaLite", 1.0)], **options)
    whole = file.read_bytes()
    assert whole.count(b"USE1-NovaLite") == 1
    file.write_bytes(whole.replace(b"USE1-NovaLite", b"USE1-NovaLike"))
    with pytest.raises(UserError, match="is no whole Parquet file"):
        bills.read([file])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rows = 300_000
    unit = pa.Table.from_pylist([line(f"USE1-NovaLite-input-{number}", 0.25) for number in range(1000)], schema=CUR2)
    table = pa.concat_tables([unit] * (rows // 1000)).combine_chunks()
    file = tmp_path / "a.parquet"
    parquet.write_table(table, file, use_dictionary=False, compression="none", row_group_size=rows)
    size = table.nbytes
    del table, unit
    # The peak is the process's: so a process for each.
    script = (
        "import sys; from pathlib import Path; import pyarrow as pa; from passthrough import bills;"
        "sums = bills.read([Path(sys.argv[1])]); print(*sums.values(), pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)  # noqa: S603  # ours
    cost, peak = done.stdout.split()
    assert Decimal(cost) == rows // 4
    assert size > 40_000_000
    assert int(peak) < size / 4


def test_without_pyarrow_csv_is_read_and_parquet_is_one_sentence(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None; from pathlib import Path; from passthrough import bills;"
        "from passthrough.cli import main; print(len(bills.read([Path(sys.argv[1])])));"
        "sys.argv[:] = ['passthrough', 'reconcile', sys.argv[2]]; main()"
    )
    paths = (write_csv(tmp_path / "a.csv", LINES), write(tmp_path / "a.parquet", LINES))
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert done.returncode != 0
    assert done.stdout == "3\n"
    [sentence] = done.stderr.splitlines()
    assert "pyarrow, which reads them, is not installed" in sentence
    assert "pip install 'bedrock-passthrough[parquet]'" in sentence
    assert "uv run --extra parquet" in sentence
