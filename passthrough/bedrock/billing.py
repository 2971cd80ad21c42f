"""AWS's bill for Bedrock, read from the rows of a Cost and Usage Report (CUR 2.0), and held against our ledger.

A line of the report is an hour or a day of one usage type, such as `USE1-Claude4.6Sonnet-input-tokens`
(https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-understanding-cur-data.html); models of other vendors
may also be products of the marketplace, `Claude Sonnet 4.5 (Amazon Bedrock Edition)`. Neither is a model id, so both
sides are compared by the words and numbers of a model's name, in any order, without vendor, date and version.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation

from passthrough.errors import UserError

_DAY, _COST, _USAGE = "line_item_usage_start_date", "line_item_unblended_cost", "line_item_usage_type"
_CODE, _KIND = "line_item_product_code", "line_item_line_item_type"
COLUMNS = (_DAY, _COST, _USAGE, _CODE, _KIND)
PRODUCTS = ("product_product_name", "product")  # a column of its own if asked for, else an entry of the map (CSV: JSON)

# What usage costs; taxes, credits, refunds and fees are not calls.
_USAGE_KINDS = frozenset({"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})
_REGION = re.compile(r"^(?:MP:)?(?:[A-Z]{2,4}[0-9]?[-_])?(?:MP:)?(?:[A-Z]{2,4}[0-9]?[-_])?")
_MEASURE = re.compile(
    r"-(?:mantle-)?(?:input|output|cache|batch|custom|search|image|text-units?|provisioned)\b.*", re.IGNORECASE
)
_EDITION = re.compile(r"\s*\(Amazon Bedrock Edition\)\s*$")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_DATE = re.compile(r"[0-9]{8}")
_VERSION = re.compile(r"[-_ ]?[vV][0-9]+(?::[0-9]+[a-z]*)*(?![A-Za-z0-9])|\.0(?![0-9])")
_NOISE = frozenset({"instruct", "amazon", "anthropic", "meta", "mistral", "cohere", "ai", "model"})
_VENDOR = re.compile(r"^(?:[a-z][a-z0-9-]*\.)+(?=[a-z])")

Sums = Mapping[tuple[date, str], Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A day of a model on both sides, USD; None where a side has nothing. `model` is our id where we have one."""

    day: date
    model: str
    ours: Decimal | None
    theirs: Decimal | None

    @property
    def difference(self) -> Decimal:
        """AWS's figure less ours."""
        return (self.theirs or Decimal(0)) - (self.ours or Decimal(0))


def billed(
    rows: Iterable[Mapping[str, str]], columns: Iterable[str], *, source: str
) -> dict[tuple[date, str], Decimal]:
    """Sum what Bedrock cost, by day (UTC) and AWS's name of the model. Raises `UserError` for another file.

    `source` is the file's name, for that sentence. A row may lack `PRODUCTS`.
    """
    missing = sorted(set(COLUMNS) - set(columns))
    if missing:
        raise UserError(f"{source} lacks the column {missing[0]}: export CUR 2.0 with its own column names.")
    sums: defaultdict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for number, row in enumerate(rows, start=1):
        name = _model_name(row)
        if name is not None and row[_KIND] in _USAGE_KINDS:
            try:
                sums[date.fromisoformat(row[_DAY][:10]), name] += _cost(row[_COST])
            except (ValueError, InvalidOperation):
                raise UserError(f"Row {number} of {source} has no readable date or cost: export it again.") from None
    return dict(sums)


def compare(ours: Sums, theirs: Sums, same: Mapping[str, str] | None = None) -> list[Difference]:
    """Match both sides by day and by the words of the model's name; sorted by day, then by the largest difference.

    `same` gives our model id for names of AWS's that have other words.
    """
    names: dict[str, str] = {}
    renamed = {(day, (same or {}).get(name, name)): cost for (day, name), cost in theirs.items()}
    for _, name in (*renamed, *ours):
        names[words(name)] = name  # ours come last: they are model ids
    sides: tuple[defaultdict[tuple[date, str], Decimal], ...] = (defaultdict(Decimal), defaultdict(Decimal))
    for side, sums in zip(sides, (ours, renamed), strict=True):
        for (day, name), cost in sums.items():
            side[day, words(name)] += cost
    found = [
        Difference(day=day, model=names[key], ours=sides[0].get((day, key)), theirs=sides[1].get((day, key)))
        for day, key in {**sides[0], **sides[1]}
    ]
    return sorted(found, key=lambda each: (each.day, -abs(each.difference), each.model))


def words(name: str) -> str:
    """Return a model's name as its words and numbers in order of the alphabet: what both spellings have in common."""
    bare = _VENDOR.sub("", name)
    bare = _VERSION.sub("", _DATE.sub("", bare))
    found = (word.lower() for word in _WORD.findall(bare))
    return " ".join(sorted(word for word in found if word not in _NOISE)) or name


def _cost(text: str) -> Decimal:
    cost = Decimal(text or 0)
    if not cost.is_finite():
        raise ValueError(text)  # not a number in a double: it would swallow the whole sum
    return cost


def _model_name(row: Mapping[str, str]) -> str | None:
    product = _product_name(row)
    if _EDITION.search(product):
        return _EDITION.sub("", product)
    if "bedrock" not in row[_CODE].lower():
        return None
    return _MEASURE.sub("", _REGION.sub("", row[_USAGE])) or row[_USAGE]


def _product_name(row: Mapping[str, str]) -> str:
    column, entries = PRODUCTS
    if row.get(column):
        return row[column]
    try:
        product = json.loads(row.get(entries) or "{}")
    except ValueError:
        return ""
    return str(product.get("product_name", "")) if isinstance(product, dict) else ""
