"""Compare the release with the legacy command's, on the same payments."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import require_empty
from buffer_pipeline.currencies import coming_in, places_of
from buffer_pipeline.database import Row, fetch
from buffer_pipeline.hold import HoldState
from buffer_pipeline.inputs import require_time
from buffer_pipeline.legacy.export import LegacyExport, Quarantined, read_export
from buffer_pipeline.legacy.importer import LegacyImport, import_legacy
from buffer_pipeline.legacy.outcomes import LegacyOutcome, LegacyOutcomes, read_outcomes
from buffer_pipeline.money import format_amount
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, release_range


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row, such as "accounts_transaction 377", and how its outcomes there (legacy) and here differ."""

    row: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How both systems treated the payments that waited.

    `released` and `kept` count payments with the same outcome in both. `released_minor` is the amount of the
    released ones in minor units, in a currency with `places`. `quarantined` are rows that an import leaves
    out. They count as kept, because here none of them is released until somebody corrects it.
    """

    waiting: int
    released: int
    released_minor: int
    places: int
    kept: int
    differences: tuple[Difference, ...]
    quarantined: tuple[Quarantined, ...]


def compare_release(
    connection: Connection, *, before: Path, after: Path, at: datetime, currency: str = "PHP"
) -> Comparison:
    """Release what waited in `before` as of `at`, and compare with what `after` has.

    The real import and the real release run in the caller's transaction and are rolled back. Export `before`
    right before the legacy command runs and `after` right after it. `at` must be between the two, so that
    both systems have the same payments and the same time. A payment that matured between `at` and its release
    by the legacy command is no difference.

    Raises:
        InvalidInput: a directory, a file, a column or the currency is wrong.
        Refused: the books are not empty; what is in them would be released too.
    """
    at = require_time("at", at)
    places = coming_in(places_of(connection), currency)
    outcomes = read_outcomes(before, after, currency=currency, places=places)
    export, export_after = (
        read_export(directory, currency=currency, places=places) for directory in (before, after)
    )
    require_empty(connection, "a comparison")
    savepoint = connection.begin_nested()
    try:
        imported = import_legacy(connection, before, now=at, currency=currency)
        everything = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(at), shard=Shard())
        release_range(connection, hold_range=everything, now=at, due_by=at, source="shadow")
        references = [payment.earning.reference for payment in export.payments]
        holds = {
            row["reference"]: row for row in fetch(connection, "intake/find_holds", references=references)
        }
    finally:
        savepoint.rollback()
    return _compared(
        export,
        imported,
        holds,
        outcomes,
        places=places,
        quarantined_after=[
            entry for entry in export_after.quarantined if entry.row.startswith("accounts_wallet ")
        ],
    )


def _compared(
    export: LegacyExport,
    imported: LegacyImport,
    holds: dict[str, Row],
    outcomes: LegacyOutcomes,
    *,
    places: int,
    quarantined_after: list[Quarantined],
) -> Comparison:
    payments = {payment.row: payment for payment in export.payments}
    left_out = {entry.row: entry.reason for entry in imported.quarantined}
    released = released_minor = kept = 0
    differences = []
    for row, there in outcomes.of_row.items():
        payment = payments.get(row)
        here = None if payment is None else holds.get(payment.earning.reference)
        difference = _difference(there, here, left_out.get(row, ""), places)
        if difference is not None:
            differences.append(Difference(row=row, difference=difference))
        elif there.released_at is None:
            kept += 1
        else:
            released += 1
            released_minor += there.amount_minor
    # A wallet that was inconsistent before the command ran is left out.
    damaged = {entry.row: entry.reason for entry in quarantined_after if entry.row not in left_out}
    differences += [
        Difference(row=row, difference=f"there {reason}")
        for row, reason in (damaged | outcomes.wallets).items()
    ]
    return Comparison(
        waiting=len(outcomes.of_row),
        released=released,
        released_minor=released_minor,
        places=places,
        kept=kept,
        differences=tuple(differences),
        quarantined=imported.quarantined,
    )


def _difference(there: LegacyOutcome, here: Row | None, left_out: str, places: int) -> str | None:
    """Return how the two differ over a payment, if they do."""
    if there.released_at is None:
        if here is None or here["state"] != HoldState.RELEASED:
            return None
        return f"due since {here['release_date'].isoformat()} and released here; there it {there.status}"
    payment_there = ""
    if here is None:
        outcome = f"left out: {left_out}"
    elif here["state"] == HoldState.BUFFERED and here["release_date"] <= there.released_at:
        return None  # It matured while the command ran.
    elif here["state"] == HoldState.BUFFERED:
        outcome = f"due at {here['release_date'].isoformat()}"
    elif here["state"] == HoldState.FROZEN:
        outcome = "FROZEN"
    elif (there.owner, there.amount_minor) != (here["payee"], here["amount_minor"]):
        payment_there = f" with {format_amount(there.amount_minor, places)} to {there.owner}"
        outcome = f"with {format_amount(here['amount_minor'], places)} to {here['payee']}"
    else:
        return None
    return f"released there at {there.released_at.isoformat()}{payment_there}; here {outcome}"
