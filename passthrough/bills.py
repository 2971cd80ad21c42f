"""AWS's bill in files on this machine: CSV, plain or gzip'd, and Parquet; a month is often several of them.

An export lies at `…/data/BILLING_PERIOD=2026-11/NAME-00001.snappy.parquet` (or `.csv.gz`); one that keeps every refresh
has a folder for each of them below the month, and each of those has all of the month
(https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html).
"""

import csv
import gzip
import io
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Never

from passthrough.bedrock import billing
from passthrough.errors import UserError

_ENDINGS = (".csv", ".csv.gz", ".parquet")
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"  # what their files begin with


def read(places: Iterable[Path]) -> dict[tuple[date, str], Decimal]:
    """Sum what Bedrock cost in these files and folders, by day (UTC) and AWS's name of the model.

    Raises `UserError` for what cannot be read, is no bill, or would be counted twice.
    """
    sums: defaultdict[tuple[date, str], Decimal] = defaultdict(Decimal)
    files = _files(places)
    if not any(map(_has_content, files)):  # some may be without
        raise UserError(f"{', '.join(map(str, files))} cannot be read, being empty: copy it from its bucket again.")
    for file in files:
        for key, cost in _billed(file).items():
            sums[key] += cost
    return dict(sums)


def _files(places: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}  # by where it really is: a file that is named twice is one file
    for place in places:
        try:
            files = _below(place) if place.is_dir() else [place]
        except OSError as error:
            raise UserError(f"{error.filename or place} cannot be read: {error.strerror or error}.") from None
        for file in files:
            found.setdefault(file.resolve(), file)
    _refuse_versions(found)
    return list(found.values())


def _below(place: Path) -> list[Path]:
    found = []
    for folder, _, names in os.walk(place, onerror=_fail):
        kinds = defaultdict(list)
        for name in names:
            if name.endswith(_ENDINGS) and not name.startswith("."):
                kinds[name.endswith(".parquet"), name.endswith(".gz")].append(Path(folder, name))
        if len(kinds) > 1:
            raise UserError(f"{folder} has bills of several kinds, which may be the same bill: name the files of one.")
        found += [file for files in kinds.values() for file in sorted(files)]
    if not found:
        raise UserError(f"{place} has no .csv, .csv.gz or .parquet file in it: name the folder that the export is in.")
    return found


def _fail(error: OSError) -> Never:
    raise error  # os.walk would leave the folder out, and the sums would be short


def _refuse_versions(files: Iterable[Path]) -> None:
    folders: defaultdict[Path, set[Path]] = defaultdict(set)
    for file in files:
        for month in file.parents:
            if month.name.startswith("BILLING_PERIOD="):
                folders[month].add(file.parent)
    for month, versions in folders.items():
        if len(versions) > 1:
            raise UserError(
                f"{month} has several versions of the month: name the folder of one, such as {max(versions)}."
            )


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:  # said when it is opened
        return True


def _billed(file: Path) -> billing.Sums:
    try:
        with file.open("rb") as opened:
            magic = opened.read(len(_PARQUET))
            opened.seek(0)
            if not magic:
                return {}  # AWS empties the last files of a month that came to need fewer of them
            if magic == _PARQUET or file.suffix == ".parquet":
                return _billed_in_parquet(file)
            return _billed_in_csv(opened, file, gzipped=magic.startswith(_GZIP))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None


def _billed_in_csv(opened: IO[bytes], file: Path, *, gzipped: bool) -> billing.Sums:
    plain: Any = gzip.GzipFile(fileobj=opened) if gzipped else opened
    try:
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, restval="")
            columns: Sequence[str] | None = reader.fieldnames
            return {} if columns is None else billing.billed(reader, columns, source=str(file))
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error):
        raise UserError(f"{file} is no CSV file in UTF-8: export CUR 2.0 as CSV or Parquet.") from None


def _billed_in_parquet(file: Path) -> billing.Sums:
    try:
        from passthrough import bills_parquet  # noqa: PLC0415  # pyarrow is an extra: 165 MB on the disk
    except ModuleNotFoundError:
        raise UserError(
            f"{file} is a Parquet file, and pyarrow, which reads them, is not installed: "
            "pip install 'bedrock-passthrough[parquet]' (in a checkout: uv run --extra parquet passthrough …)."
        ) from None
    return bills_parquet.billed(file)
