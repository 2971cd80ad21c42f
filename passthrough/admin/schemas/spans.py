"""What queries about calls and what they cost have in common: the span of time that they are about."""

from typing import Annotated

from msgspec import Meta, Struct

from passthrough.admin.schemas.fields import LONGEST_MODEL, LONGEST_NAME, SPAN_PATTERN

Text = Annotated[str, Meta(max_length=LONGEST_NAME)]
ModelText = Annotated[str, Meta(max_length=LONGEST_MODEL)]
Moment = Annotated[str, Meta(max_length=19, pattern=SPAN_PATTERN)]
"""A day, or a second, of UTC."""
Limit = Annotated[int, Meta(ge=1, le=1000)]


class SpanQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Without dates: the last 30 days. Both days are included."""

    start_date: Moment | None = None
    end_date: Moment | None = None


class TopQuery(SpanQuery, kw_only=True, forbid_unknown_fields=True):
    """The dearest `limit`."""

    limit: Limit = 100
