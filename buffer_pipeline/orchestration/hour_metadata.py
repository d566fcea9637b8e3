"""The counts of an hour as metadata of its partition."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from buffer_pipeline.money import Places
from buffer_pipeline.orchestration.metadata import amount_metadata, share_metadata, table_metadata
from buffer_pipeline.reports.totals import RELEASED_SHARES
from buffer_pipeline.shares import ShareKind


def hour_metadata(
    counts: pd.DataFrame,
    *,
    currencies: Sequence[str],
    shares: Collection[tuple[ShareKind, str]],
    places: Places,
) -> dict[str, Any]:
    """Return the counts of an hour for plots: numbers over all currencies, amounts and lateness per currency.

    Each of `currencies`, and each kind and currency of `shares`, has a figure, which is zero if nothing
    happened.
    """
    of_currency = counts.set_index("currency").reindex(list(currencies))
    late = of_currency[["lateness_median_seconds", "lateness_max_seconds"]].fillna(0.0)
    return {
        **{
            name: int(counts[name].sum())
            for name in (
                "holds_added",
                "holds_released",
                "holds_released_early",
                "parts_released",
                "refunds",
                "freezes_opened",
                "freezes_closed",
            )
        },
        **amount_metadata(
            {
                str(currency): int(minor)
                for currency, minor in of_currency["released_minor"].fillna(0).items()
            },
            places,
        ),
        **{
            f"{name}_{currency}": round(float(seconds), 3)
            for name, column in late.items()
            for currency, seconds in column.items()
        },
        **share_metadata(
            {
                (kind, currency): int(of_currency[RELEASED_SHARES[kind]].fillna(0)[currency])
                for kind, currency in shares
            },
            places,
        ),
        **table_metadata(
            "counts", [_row(record, shares=bool(shares)) for record in counts.to_dict("records")], places
        ),
    }


def _row(record: Mapping[Any, Any], *, shares: bool) -> dict[str, Any]:
    hidden = {"hour"} if shares else {"hour", *RELEASED_SHARES.values()}
    return {
        str(name): None if pd.isna(value) else value for name, value in record.items() if name not in hidden
    }
