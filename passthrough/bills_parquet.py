"""AWS's bill in a Parquet file, batch by batch: the only module that needs pyarrow, imported for such a file alone.

CUR 2.0 has timestamps, doubles and maps of text where CSV has text
(https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html); here they become that text again, so that
both formats have one reader.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from passthrough.bedrock import billing
from passthrough.errors import UserError

_BATCH = 8192  # rows at a time: some MB as Python's objects
# Bytes of each column at a time. Without it, or with pyarrow's pre_buffer, a whole row group is held, which may be all
# of the file: 135 MB for one of a million rows, and 8 MB with it, whatever the file's size.
_BUFFER = 1 << 18


def billed(file: Path) -> billing.Sums:
    """Sum what Bedrock cost, by day (UTC) and AWS's name of the model. Raises `UserError` for another file."""
    try:
        # What carries checksums is held to them: a bit that fell over would otherwise be a different cost.
        with ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True) as source:
            columns = source.schema_arrow.names
            return billing.billed(_rows(source, columns), columns, source=str(file))
    except NotImplementedError:  # pyarrow's too
        raise UserError(f"{file} has columns of other types than CUR 2.0: copy the export as AWS wrote it.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's: pyarrow's own have no number
        raise UserError(f"{file} is no whole Parquet file: copy it from its bucket again.") from None


def _rows(source: Any, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    product = [name for name in billing.PRODUCTS if name in columns][:1]
    for batch in source.iter_batches(_BATCH, columns=[*billing.COLUMNS, *product], use_threads=False):
        texts = {_name(field): _texts(batch.column(field.name)) for field in batch.schema}
        for values in zip(*texts.values(), strict=True):
            yield dict(zip(texts, values, strict=True))


def _name(field: Any) -> str:
    return billing.PRODUCTS[0] if pa.types.is_map(field.type) else str(field.name)


def _texts(column: Any) -> list[str]:
    if pa.types.is_map(column.type):
        column = pc.map_lookup(column, pa.scalar("product_name", column.type.key_type), "first")
    elif pa.types.is_timestamp(column.type):
        # Only the day is read. Parquet's nanoseconds have digits that a cast would rather refuse than drop.
        column = column.cast(pa.timestamp("s", column.type.tz), safe=False).cast(pa.timestamp("s")).cast(pa.date32())
    # A double becomes the shortest text that means it, which is what AWS's CSV has; a decimal all of its digits.
    texts: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return texts
