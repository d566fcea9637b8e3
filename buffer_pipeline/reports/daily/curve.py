"""The amount in the buffer over time, by state: computed back from the amount now and the changes since."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.database import Row, fetch
from buffer_pipeline.hours import HOUR

_Amounts = np.ndarray[tuple[int], np.dtype[np.int64]]


def amounts_in_buffer(connection: Connection, *, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the amount in the buffer at each full hour from `start` to `end`, both inclusive.

    An hour has everything that was recorded before it. Columns: moment (datetime64[us, UTC]), currency (str),
    buffered_minor and frozen_minor (int64 minor units). A currency that was never in the buffer during this
    time has no rows. Reads only.
    """
    moments = pd.date_range(start, end, freq=HOUR, unit="us", name="moment")
    with_next_hour = pd.date_range(start, end + HOUR, freq=HOUR, unit="us")
    rows = fetch(connection, "report/pending_earnings", since=start, until=end)
    changes = _by_currency(rows)
    frozen_changes = _by_currency(fetch(connection, "report/frozen_changes", since=start, until=end))
    frames = [_frame(moments[:0], "", _at(moments[:0], {}), _at(moments[:0], {}))]
    for currency, now_minor in {row["currency"]: int(row["pending_earnings_minor"]) for row in rows}.items():
        changed_minor = _at(with_next_hour, changes.get(currency, {}))
        # Backwards from now: the amount now without the changes that come after the hour.
        pending_minor = now_minor - changed_minor[::-1].cumsum()[::-1][1:]
        frozen_minor = _at(moments, frozen_changes.get(currency, {})).cumsum()
        if pending_minor.any():
            frames.append(_frame(moments, currency, pending_minor - frozen_minor, frozen_minor))
    return pd.concat(frames, ignore_index=True)


def _by_currency(rows: Sequence[Row]) -> dict[str, dict[datetime, int]]:
    """Return the changes of each currency, by the first hour that includes them."""
    changes: dict[str, dict[datetime, int]] = {}
    for row in rows:
        if row["seen_at"] is not None:
            changes.setdefault(row["currency"], {})[row["seen_at"]] = int(row["change_minor"])
    return changes


def _at(moments: pd.DatetimeIndex, changes: dict[datetime, int]) -> _Amounts:
    return np.array([changes.get(moment, 0) for moment in moments.to_pydatetime()], dtype="int64")


def _frame(
    moments: pd.DatetimeIndex, currency: str, buffered_minor: _Amounts, frozen_minor: _Amounts
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "moment": moments,
            "currency": pd.Series([currency] * len(moments), dtype="str"),
            "buffered_minor": buffered_minor,
            "frozen_minor": frozen_minor,
        }
    )
