"""What the hours count, as the database has it: read by COPY in its binary form, straight into a frame."""

from datetime import datetime
from enum import IntEnum
from typing import Final

import numpy as np
import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.database import copy_rows
from buffer_pipeline.errors import PaymentBufferError


class Kind(IntEnum):
    """What a movement is; the numbers stand in `sql/counts/movements.sql` too."""

    ADDED = 1
    RELEASED = 2
    RELEASED_EARLY = 3
    REFUNDED = 4
    FREEZE_OPENED = 5
    FREEZE_CLOSED = 6


# COPY's binary form of `sql/counts/movements.sql`: the number of fields, and each field behind its
# length, everything big-endian. Every field is there and of one width, so a row is a fixed record.
# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
_MOVEMENT: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("moment_length", ">i4"),
        ("moment", ">i8"),
        ("release_date_length", ">i4"),
        ("release_date", ">i8"),
        ("amount_minor_length", ">i4"),
        ("amount_minor", ">i8"),
        ("payee_wallet_id_length", ">i4"),
        ("payee_wallet_id", ">i8"),
        ("kind_length", ">i4"),
        ("kind", ">i4"),
        ("currency_length", ">i4"),
        ("currency", "S3"),
    ]
)
_LENGTHS: Final = {
    "fields": 6,
    "moment_length": 8,
    "release_date_length": 8,
    "amount_minor_length": 8,
    "payee_wallet_id_length": 8,
    "kind_length": 4,
    "currency_length": 3,
}
_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER: Final = b"\xff\xff"
_POSTGRES_EPOCH: Final = np.datetime64("2000-01-01T00:00:00", "us")


def movements(connection: Connection, *, since: datetime, until: datetime) -> pd.DataFrame:
    """Return what the hours from `since` to before `until` count, a row each.

    Columns: hour (datetime64[us, UTC]), currency (category), kind (int32, a Kind), amount_minor
    (int64), payee_wallet_id (int64), lateness_seconds (float64; says something of a RELEASED only).
    """
    copied = copy_rows(connection, "counts/movements", since=since, until=until)
    count, rest = divmod(len(copied) - len(_COPY_HEADER) - len(_COPY_TRAILER), _MOVEMENT.itemsize)
    if rest or not (copied.startswith(_COPY_HEADER) and copied.endswith(_COPY_TRAILER)):
        raise PaymentBufferError("counts/movements: COPY answered in another form than its binary one")
    rows = np.frombuffer(copied, dtype=_MOVEMENT, offset=len(_COPY_HEADER), count=count)
    for name, length in _LENGTHS.items():
        # One empty or wider field would shift all that stands behind it.
        if not (rows[name] == length).all():
            raise PaymentBufferError(f"counts/movements: a row has another width at {name}")
    moment = rows["moment"].astype("i8")
    moments = _POSTGRES_EPOCH + moment.astype("timedelta64[us]")
    codes, currencies = pd.factorize(rows["currency"])
    return pd.DataFrame(
        {
            "hour": pd.Series(moments.astype("datetime64[h]").astype("datetime64[us]")).dt.tz_localize("UTC"),
            "currency": pd.Categorical.from_codes(codes, pd.Index([code.decode() for code in currencies])),
            "kind": rows["kind"].astype("i4"),
            "amount_minor": rows["amount_minor"].astype("i8"),
            "payee_wallet_id": rows["payee_wallet_id"].astype("i8"),
            "lateness_seconds": (moment - rows["release_date"].astype("i8")) / 1e6,
        }
    )
