"""What happened in each hour, counted from the transactions. Reports: no money depends on them.

A frame of counts has one row an hour and currency in which anything happened:

    hour                     datetime64[us, UTC]  its beginning
    currency                 str
    holds_added              int64                with `added_minor`
    holds_released           int64                with `released_minor`, early ones included
    holds_released_early     int64
    payees                   int64                different wallets that were released to
    lateness_median_seconds  float64              released_at - release_date of what the schedule released;
    lateness_max_seconds     float64              NaN where it released nothing
    refunds                  int64                with `refunded_minor`
    freezes_opened           int64
    freezes_closed           int64

Amounts are int64 minor units.
"""

from collections import defaultdict
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Connection, Engine, insert, select
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from buffer_pipeline.database import database_clock, fetch
from buffer_pipeline.errors import HourInProgress, InvalidInput, PaymentBufferError
from buffer_pipeline.hours import HOUR, earliest_hour_in_progress, hour_of
from buffer_pipeline.movements import Kind, movements
from buffer_pipeline.tables import counted_hour, hourly_release_count

WAIT_SECONDS_MAX: Final = 60
"""How long a count waits for transactions that still write into its hours; a batch takes a quarter of one."""

CHUNK: Final = timedelta(hours=12)
"""What is read at a time. Until it is counted, 16 bytes a release of it stay in memory, and while an hour is
counted 8 of each of its own once more: memory follows half a day's releases, not the range's transactions."""

_KEY: Final = ["hour", "currency"]

Integers = npt.NDArray[np.int64]


def count_hours(
    engine: Engine,
    *,
    start: datetime,
    end: datetime,
    counted_by: str,
    wait_seconds_max: float = WAIT_SECONDS_MAX,
) -> pd.DataFrame:
    """Count the hours from `start` to before `end` anew and return the frame of their counts.

    Deletes what stood there and inserts, in one transaction; writes nothing but the report.
    Safe to run again, and beside another count, which it waits for.

    Raises:
        InvalidInput: a bound that is no full hour, no hour between them, or one that is not over.
        HourInProgress: a transaction that writes into one of the hours did not end in time.
    """
    _require_hours(start, end)
    with engine.connect() as connection:
        now = database_clock(connection)
    if end > hour_of(now):
        raise InvalidInput(f"hour {end - HOUR:%Y-%m-%dT%H:%MZ}: not over yet; it is {now:%Y-%m-%dT%H:%MZ}")
    for attempt in Retrying(
        retry=retry_if_exception_type(HourInProgress),
        stop=stop_after_delay(wait_seconds_max),
        wait=wait_fixed(0.2),
        reraise=True,
    ):
        with attempt, engine.connect() as connection:
            require_complete(connection, end=end)
    # READ COMMITTED: each statement sees what was committed when it began, so all that is complete.
    with engine.begin() as connection:
        fetch(connection, "counts/lock_counts")
        counts = compute_counts(connection, start=start, end=end)
        connection.execute(
            counted_hour.delete().where(counted_hour.c.hour >= start, counted_hour.c.hour < end)
        )
        counted_at = database_clock(connection)
        hours = (end - start) // HOUR
        connection.execute(
            insert(counted_hour),
            [
                {"hour": start + number * HOUR, "counted_by": counted_by, "counted_at": counted_at}
                for number in range(hours)
            ],
        )
        if len(counts):
            connection.execute(insert(hourly_release_count), _records(counts))
    return counts


def require_complete(connection: Connection, *, end: datetime) -> None:
    """Refuse hours that an uncommitted transaction still writes into.

    Raises:
        HourInProgress: such an hour lies before `end`.
    """
    in_progress = earliest_hour_in_progress(connection)
    if in_progress is not None and in_progress < end:
        raise HourInProgress(in_progress)


def compute_counts(connection: Connection, *, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the frame of counts from `start` to before `end` as the transactions have them. Reads only."""
    _require_hours(start, end)
    return _counted(
        movements(connection, since=since, until=min(since + CHUNK, end)) for since in _steps(start, end)
    )


def counts_between(connection: Connection, *, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the frame of counts from `start` to before `end`: those that are stored, the others computed.

    Reads only. Hours that are not over yet are counted as far as they have come.
    """
    _require_hours(start, end)
    # Asked first and left out of what is stored: an hour that is counted meanwhile is there once.
    uncounted = uncounted_hours(connection, start=start, end=end)
    table = hourly_release_count
    rows = connection.execute(
        select(table)
        .where(table.c.hour >= start, table.c.hour < end)
        .order_by(table.c.hour, table.c.currency)
    ).mappings()
    stored = _typed(
        pd.DataFrame([dict(row) for row in rows], columns=[column.name for column in table.columns])
    )
    stored = stored[~stored["hour"].isin(uncounted)]
    computed = [
        compute_counts(connection, start=first, end=last + HOUR) for first, last in _ranges(uncounted)
    ]
    return pd.concat([stored, *computed], ignore_index=True).sort_values(_KEY, ignore_index=True)


def uncounted_hours(connection: Connection, *, start: datetime, end: datetime) -> list[datetime]:
    """Return the hours from `start` to before `end` that have not been counted, in order."""
    return [row["hour"] for row in fetch(connection, "counts/uncounted_hours", since=start, until=end)]


def first_hour(connection: Connection) -> datetime | None:
    """Return the hour in which the books begin, None when they are empty."""
    moment = fetch(connection, "counts/first_moment")[0]["moment"]
    return None if moment is None else hour_of(moment)


def differing_counts(connection: Connection, *, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Return the figures of counted hours that are not what the transactions say now.

    Each has its hour, currency and figure, what was `counted` and what the `transactions_say`.
    """
    return [dict(row) for row in fetch(connection, "counts/differing_hours", since=start, until=end)]


def _require_hours(start: datetime, end: datetime) -> None:
    for name, moment in (("start", start), ("end", end)):
        if moment.tzinfo is None or moment != hour_of(moment):
            raise InvalidInput(f"{name} {moment.isoformat()}: not a full hour in UTC")
    if start >= end:
        raise InvalidInput(f"start {start:%Y-%m-%dT%H:%MZ}: not before the end {end:%Y-%m-%dT%H:%MZ}")


def _steps(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += CHUNK


def _ranges(hours: list[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the first and last of each run of consecutive hours."""
    first = 0
    for index, hour in enumerate(hours):
        if index + 1 == len(hours) or hours[index + 1] != hour + HOUR:
            yield hours[first], hour
            first = index + 1


def _counted(chunks: Iterable[Generator[pd.DataFrame]]) -> pd.DataFrame:
    """Count chunks of whole hours; a chunk's frames are of one currency each, in whatever order they come."""
    sums: list[pd.DataFrame] = []
    payees: dict[Hashable, int] = {}
    lateness: dict[Hashable, tuple[float, float]] = {}
    for chunk in chunks:
        wallets: defaultdict[Hashable, list[Integers]] = defaultdict(list)
        late: defaultdict[Hashable, list[Integers]] = defaultdict(list)
        amount_minor = 0.0
        # Close the COPY first. A rollback would wait for it.
        with closing(chunk):
            for moved in chunk:
                amount_minor += moved["amount_minor"].to_numpy().sum(dtype="float64")
                if amount_minor > 2**62:
                    # A sum of int64 would wrap around without a word.
                    raise PaymentBufferError(
                        f"hours from {moved['hour'].min():%Y-%m-%dT%H:%MZ}:"
                        " their amounts add up to more than 64 bits"
                    )
                sums.append(_summed(moved, wallets=wallets, late=late))
        for key in list(wallets):
            payees[key] = _different(wallets.pop(key))
        for key in list(late):
            lateness[key] = _median_and_maximum_seconds(late.pop(key))
    if not sums:
        return _typed(pd.DataFrame(columns=[column.name for column in hourly_release_count.columns]))
    by_kind = pd.concat(sums).groupby([*_KEY, "kind"])[["size", "sum"]].sum()
    size, total = (
        by_kind[name].unstack("kind", fill_value=0).reindex(columns=list(Kind), fill_value=0)
        for name in ("size", "sum")
    )
    nan = float("nan")
    medians_and_maxima = np.array([lateness.get(key, (nan, nan)) for key in size.index])
    counts = pd.DataFrame(
        {
            "holds_added": size[Kind.ADDED],
            "added_minor": total[Kind.ADDED],
            "holds_released": size[Kind.RELEASED] + size[Kind.RELEASED_EARLY],
            "holds_released_early": size[Kind.RELEASED_EARLY],
            "released_minor": total[Kind.RELEASED] + total[Kind.RELEASED_EARLY],
            "payees": [payees.get(key, 0) for key in size.index],
            "lateness_median_seconds": medians_and_maxima[:, 0],
            "lateness_max_seconds": medians_and_maxima[:, 1],
            "refunds": size[Kind.REFUNDED],
            "refunded_minor": total[Kind.REFUNDED],
            "freezes_opened": size[Kind.FREEZE_OPENED],
            "freezes_closed": size[Kind.FREEZE_CLOSED],
        },
        index=size.index,
    ).reset_index()
    counts["hour"] = pd.to_datetime(counts["hour"], unit="us", utc=True)
    return _typed(counts).sort_values(_KEY, ignore_index=True)


def _summed(
    moved: pd.DataFrame,
    *,
    wallets: defaultdict[Hashable, list[Integers]],
    late: defaultdict[Hashable, list[Integers]],
) -> pd.DataFrame:
    """Return size and sum by hour (microseconds) and kind; add the releases to those of their hour."""
    currency = str(moved["currency"].iloc[0])
    codes, hours = pd.factorize(moved["hour"].astype("int64").to_numpy())
    # Sorted once, what belongs together stands together; of 16 bits, numpy sorts by radix.
    group = codes.astype("i4") * (max(Kind) + 1) + moved["kind"].to_numpy()
    order = np.argsort(group.astype("i2") if group.max() < 2**15 else group, kind="stable")
    group = group[order]
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    after = np.r_[first[1:], len(group)]
    payee_wallet_id, microseconds = (
        moved[name].to_numpy()[order] for name in ("payee_wallet_id", "lateness_microseconds")
    )
    kinds = group[first] % (max(Kind) + 1)
    hour = hours[group[first] // (max(Kind) + 1)]
    for begin, end, kind, moment in zip(first, after, kinds, hour, strict=True):
        if kind in {Kind.RELEASED, Kind.RELEASED_EARLY}:
            wallets[int(moment), currency].append(payee_wallet_id[begin:end].copy())
        if kind == Kind.RELEASED:
            late[int(moment), currency].append(microseconds[begin:end].copy())
    return pd.DataFrame(
        {
            "hour": hour,
            "currency": currency,
            "kind": kinds,
            "size": after - first,
            "sum": np.add.reduceat(moved["amount_minor"].to_numpy()[order], first),
        }
    )


def _different(wallets: list[Integers]) -> int:
    joined = np.concatenate(wallets)
    wallets.clear()
    joined.sort()
    return 1 + int(np.count_nonzero(joined[1:] != joined[:-1]))


def _median_and_maximum_seconds(microseconds: list[Integers]) -> tuple[float, float]:
    joined = np.concatenate(microseconds)
    microseconds.clear()
    maximum = float(joined.max()) / 1e6
    return float(np.median(joined, overwrite_input=True)) / 1e6, maximum


def _typed(counts: pd.DataFrame) -> pd.DataFrame:
    """Give each column its type, which a frame without rows would not have."""
    types = dict.fromkeys(counts.columns, "int64") | {
        "hour": "datetime64[us, UTC]",
        "currency": "str",
        "lateness_median_seconds": "float64",
        "lateness_max_seconds": "float64",
    }
    return counts.astype(types)


def _records(counts: pd.DataFrame) -> list[dict[str, Any]]:
    known = counts.astype(object).where(counts.notna(), None)
    return [
        {str(name): value.to_pydatetime() if name == "hour" else value for name, value in record.items()}
        for record in known.to_dict("records")
    ]
