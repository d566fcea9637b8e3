"""What the hours count, as the database has it: read by COPY in blocks of columns, straight into frames."""

from collections.abc import Generator
from datetime import datetime
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Connection, text

from buffer_pipeline.database import statement_text
from buffer_pipeline.errors import PaymentBufferError


class Kind(IntEnum):
    """What a movement is; the numbers stand in `sql/counts/movements.sql` too."""

    ADDED = 1
    RELEASED = 2
    RELEASED_EARLY = 3
    REFUNDED = 4
    FREEZE_OPENED = 5
    FREEZE_CLOSED = 6


# The binary form of an array: its dimensions, flags, element type, length and lower bound, 4 bytes each, then
# each element behind its own length, everything big-endian. No element is NULL, so all are of one width.
_ARRAY_HEADER: Final = 20
_POSTGRES_EPOCH: Final = np.datetime64("2000-01-01T00:00:00", "us")


def movements(connection: Connection, *, since: datetime, until: datetime) -> Generator[pd.DataFrame]:
    """Yield what the hours from `since` to before `until` count, a row each, at most 65,536 rows a frame.

    Columns: hour (datetime64[us, UTC]), currency (category; one in a frame), kind (int32, a Kind),
    amount_minor (int64), payee_wallet_id (int64), lateness_microseconds (int64; says something of a
    RELEASED only). Only one frame is in memory. The connection is busy, also for a rollback, until the last
    has been taken or the generator is closed, which cancels the rest.
    """
    # COPY takes no parameters, so they are written into it here.
    query = (
        text(statement_text("counts/movements"))
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
    """Return the elements of an array of integers, or of moments in microseconds since 2000."""
    element = np.dtype([("length", ">i4"), ("value", f">{width}")])
    count, rest = divmod(len(array) - _ARRAY_HEADER, element.itemsize)
    elements = np.frombuffer(array, dtype=element, offset=_ARRAY_HEADER, count=count)
    # One empty or wider element would shift all that stands behind it.
    if rest or not (elements["length"] == np.dtype(width).itemsize).all():
        raise PaymentBufferError("counts/movements: COPY answered in another form than its binary one")
    return elements["value"].astype(width)
