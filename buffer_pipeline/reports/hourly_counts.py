"""Counts of what happened in each hour, from the transactions. No money depends on them.

A frame of counts has one row for each hour and currency in which anything happened:

    hour                     datetime64[us, UTC]  its beginning
    currency                 str
    holds_added              int64                with `added_minor`
    holds_released           int64                including early ones
    released_minor           int64                of `holds_released` and `parts_released`
    holds_released_early     int64
    payees                   int64                different wallets that got a release
    lateness_median_seconds  float64              released_at - release_date of what the schedule released;
    lateness_max_seconds     float64              NaN if it released nothing
    refunds                  int64                with `refunded_minor`
    freezes_opened           int64
    freezes_closed           int64
    parts_released           int64                parts of holds that were released early
    released_fee_minor       int64                what of `released_minor` was fees,
    released_tax_minor       int64                taxes
    released_reserve_minor   int64                and reserves

Amounts are int64 minor units.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
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
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.reports.complete_hours import require_complete, uncounted_hours
from buffer_pipeline.reports.movements import Kind, movements
from buffer_pipeline.tables import counted_hour, hourly_release_count

WAIT_SECONDS_MAX: Final = 60
"""How long a count waits for transactions that still write into its hours. A batch takes about 0.25 s."""

READ_SPAN: Final = timedelta(hours=12)
"""How many hours are read at a time. Of each release in them 16 bytes stay in memory until they are counted,
and 8 bytes more for the releases of the hour that is being counted. So memory use depends on the releases of
half a day, not on the whole range."""

_KEY: Final = ["hour", "currency"]

Integers = npt.NDArray[np.int64]


def count_hours(
    engine: Engine,
    *,
    start: datetime,
    end: datetime,
    counted_by: str,
    wait_seconds_max: float = WAIT_SECONDS_MAX,
    clock: Callable[[Connection], datetime] = database_clock,
) -> pd.DataFrame:
    """Count the hours from `start` to before `end` again, store the counts and return their frame.

    Replaces the stored counts of these hours in one transaction; writes nothing else. Safe to run again. It
    waits for another count that runs at the same time. `clock` says which hours are over, and when the count
    was made.

    Raises:
        InvalidInput: a bound is not a full hour, the range is empty, or an hour of it is not over.
        HourInProgress: a transaction that writes into one of the hours did not end in time.
    """
    _require_hours(start, end)
    with engine.connect() as connection:
        now = clock(connection)
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
    # READ COMMITTED: each statement sees everything that was committed before it began. That includes
    # everything of these hours, which are complete by now.
    with engine.begin() as connection:
        fetch(connection, "hourly_counts/lock_counts")
        counts = compute_counts(connection, start=start, end=end)
        connection.execute(
            counted_hour.delete().where(counted_hour.c.hour >= start, counted_hour.c.hour < end)
        )
        counted_at = clock(connection)
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


def compute_counts(connection: Connection, *, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the frame of counts from `start` to before `end`, computed from the transactions. Reads only."""
    _require_hours(start, end)
    return _counted(
        movements(connection, since=since, until=min(since + READ_SPAN, end)) for since in _steps(start, end)
    )


def counts_between(connection: Connection, *, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the frame of counts from `start` to before `end`: stored ones, and computed ones for the rest.

    Reads only. Hours that are not over are counted up to now.
    """
    _require_hours(start, end)
    # Read first, and these hours are taken out of the stored ones: an hour that is stored in between would
    # otherwise appear twice.
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


def _require_hours(start: datetime, end: datetime) -> None:
    for name, moment in (("start", start), ("end", end)):
        if moment.tzinfo is None or moment != hour_of(moment):
            raise InvalidInput(f"{name} {moment.isoformat()}: not a full hour in UTC")
    if start >= end:
        raise InvalidInput(f"start {start:%Y-%m-%dT%H:%MZ}: not before the end {end:%Y-%m-%dT%H:%MZ}")


def _steps(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += READ_SPAN


def _ranges(hours: list[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the first and last of each run of consecutive hours."""
    first = 0
    for index, hour in enumerate(hours):
        if index + 1 == len(hours) or hours[index + 1] != hour + HOUR:
            yield hours[first], hour
            first = index + 1


def _counted(chunks: Iterable[Generator[pd.DataFrame]]) -> pd.DataFrame:
    """Count chunks of whole hours. Each frame of a chunk is of one currency; their order does not matter."""
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
                    # A sum of int64 would wrap around without an error.
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
            "released_minor": total[Kind.RELEASED] + total[Kind.RELEASED_EARLY] + total[Kind.PART_RELEASED],
            "payees": [payees.get(key, 0) for key in size.index],
            "lateness_median_seconds": medians_and_maxima[:, 0],
            "lateness_max_seconds": medians_and_maxima[:, 1],
            "refunds": size[Kind.REFUNDED],
            "refunded_minor": total[Kind.REFUNDED],
            "freezes_opened": size[Kind.FREEZE_OPENED],
            "freezes_closed": size[Kind.FREEZE_CLOSED],
            "parts_released": size[Kind.PART_RELEASED],
            "released_fee_minor": total[Kind.FEE_RELEASED],
            "released_tax_minor": total[Kind.TAX_RELEASED],
            "released_reserve_minor": total[Kind.RESERVE_RELEASED],
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
    """Return count and sum by hour (microseconds) and kind; add the releases to `wallets` and `late`."""
    currency = str(moved["currency"].iloc[0])
    codes, hours = pd.factorize(moved["hour"].astype("int64").to_numpy())
    # One sort brings each group together. For 16-bit integers numpy uses a radix sort.
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
        if kind in {Kind.RELEASED, Kind.RELEASED_EARLY, Kind.PART_RELEASED}:
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
    """Give each column its type. A frame without rows has none by itself."""
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
