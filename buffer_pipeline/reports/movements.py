"""Movements, the rows that hourly counts count: read by binary COPY, in blocks of columns, into frames."""

from collections.abc import Generator
from datetime import datetime
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Connection, text

from buffer_pipeline.database import fetch, statement_text
from buffer_pipeline.errors import PaymentBufferError


class Kind(IntEnum):
    """The kind of a movement. `movements.sql` and `released_shares.sql` have the same numbers.

    A released fee, tax or reserve is a movement of RELEASED, RELEASED_EARLY or PART_RELEASED too.
    """

    ADDED = 1
    RELEASED = 2
    RELEASED_EARLY = 3
    REFUNDED = 4
    FREEZE_OPENED = 5
    FREEZE_CLOSED = 6
    PART_RELEASED = 7
    FEE_RELEASED = 8
    TAX_RELEASED = 9
    RESERVE_RELEASED = 10


# The binary form of an array: number of dimensions, flags, element type, length and lower bound, 4 bytes
# each. Then the elements, each after its own length. Everything is big-endian. No element is NULL, so all
# have the same width.
_ARRAY_HEADER: Final = 20
_POSTGRES_EPOCH: Final = np.datetime64("2000-01-01T00:00:00", "us")


def movements(connection: Connection, *, since: datetime, until: datetime) -> Generator[pd.DataFrame]:
    """Yield the movements of the hours from `since` to before `until`, at most 65,536 rows per frame.

    Columns: hour (datetime64[us, UTC]), currency (category; one per frame), kind (int32, a Kind),
    amount_minor (int64), payee_wallet_id (int64), lateness_microseconds (int64; meaningful for RELEASED
    only). Only one frame is in memory. The connection is busy, also for a rollback, until the last frame is
    taken or the generator is closed, which cancels the rest.
    """
    yield from _copied(connection, "hourly_counts/movements", since=since, until=until)
    if fetch(connection, "hourly_counts/has_shares")[0]["has_shares"]:
        yield from _copied(connection, "hourly_counts/released_shares", since=since, until=until)


def _copied(
    connection: Connection, statement: str, *, since: datetime, until: datetime
) -> Generator[pd.DataFrame]:
    # COPY takes no parameters, so they are written into it here.
    query = (
        text(statement_text(statement))
        .bindparams(since=since, until=until)
        .compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    )
    driver_connection: Any = connection.connection.driver_connection
    with (
        driver_connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy,
    ):
        for currency, moments, release_dates, amounts_minor, payee_wallet_ids, kinds in copy.rows():
            moment = _elements(moments, "i8")
            recorded_at = _POSTGRES_EPOCH + moment.astype("timedelta64[us]")
            hour = recorded_at.astype("datetime64[h]").astype("datetime64[us]")
            yield pd.DataFrame(
                {
                    "hour": pd.Series(hour).dt.tz_localize("UTC"),
                    "currency": pd.Categorical.from_codes(
                        np.zeros(len(moment), dtype="i1"), pd.Index([currency.decode()])
                    ),
                    "kind": _elements(kinds, "i4"),
                    "amount_minor": _elements(amounts_minor, "i8"),
                    "payee_wallet_id": _elements(payee_wallet_ids, "i8"),
                    "lateness_microseconds": moment - _elements(release_dates, "i8"),
                }
            )


def _elements(array: bytes, width: str) -> npt.NDArray[np.signedinteger[Any]]:
    """Return the elements of an array of integers, or of timestamps in microseconds since 2000."""
    element = np.dtype([("length", ">i4"), ("value", f">{width}")])
    count, rest = divmod(len(array) - _ARRAY_HEADER, element.itemsize)
    elements = np.frombuffer(array, dtype=element, offset=_ARRAY_HEADER, count=count)
    # One empty or wider element would shift all elements after it.
    if rest or not (elements["length"] == np.dtype(width).itemsize).all():
        raise PaymentBufferError(
            "hourly_counts/movements: COPY returned something else than its binary format"
        )
    return elements["value"].astype(width)
