"""What the legacy command released, from an export before its run and one after it. Pure."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.legacy.files import Index, Row, figure, is_waiting, read_files
from buffer_pipeline.money import format_amount

_SIGN_OF_TYPE: Final = {"EARNING": 1, "REFUND": 1, "PAYMENT": -1, "DEPOSIT": 1, "WITHDRAWAL": -1}
"""Whether a completed row adds to its wallet's balance or takes from it. A rollback writes the last two."""


@dataclass(frozen=True, kw_only=True)
class LegacyOutcome:
    """The outcome of a row that waited: when and to whom it was released, or its status otherwise."""

    released_at: datetime | None
    owner: str
    amount_minor: int
    status: str


@dataclass(frozen=True, kw_only=True)
class LegacyOutcomes:
    """Outcomes by row name, and the wallets whose balance changed by something else than their new rows."""

    of_row: dict[str, LegacyOutcome]
    wallets: dict[str, str]


def read_outcomes(before: Path, after: Path, *, currency: str, places: int) -> LegacyOutcomes:
    """Return the outcome of each row that waits in `before`, from `after`.

    A wallet's balance must have changed by the sum of its newly completed rows. If two overlapping runs
    released a payment, it has one row and is in the balance twice.

    Raises:
        InvalidInput: as `read_export`, or a released row cannot be read.
    """
    files_before, files_after = read_files(before), read_files(after)
    rows_after = Index(files_after["accounts_transaction"], "transactionID")
    wallets_after = Index(files_after["accounts_wallet"], "walletID")
    of_row = {}
    for row in files_before["accounts_transaction"]:
        if is_waiting(row):
            of_row[row.name] = _outcome(rows_after.all(row["transactionID"]), wallets_after, currency, places)
    completed_before = {
        row["transactionID"] for row in files_before["accounts_transaction"] if row["status"] == "COMPLETED"
    }
    new_lines = Index(
        [
            row
            for row in files_after["accounts_transaction"]
            if row["status"] == "COMPLETED" and row["transactionID"] not in completed_before
        ],
        "walletID_id",
    )
    wallets = {}
    for wallet in files_before["accounts_wallet"]:
        for wallet_after in wallets_after.all(wallet["walletID"]):
            lines = new_lines.all(wallet["walletID"])
            reason = _wrong_movement(
                before=wallet, after=wallet_after, lines=lines, currency=currency, places=places
            )
            if reason is not None:
                wallets[wallet.name] = reason
    return LegacyOutcomes(of_row=of_row, wallets=wallets)


def _outcome(rows: list[Row], wallets: Index, currency: str, places: int) -> LegacyOutcome:
    if len(rows) != 1:
        status = f"is on {len(rows)} rows" if rows else "is missing"
        return LegacyOutcome(released_at=None, owner="", amount_minor=0, status=status)
    (row,) = rows
    status = f"is {row['transactionType']} / {row['status']}"
    if (row["transactionType"], row["status"]) != ("EARNING", "COMPLETED"):
        return LegacyOutcome(released_at=None, owner="", amount_minor=0, status=status)
    wallet = wallets.only(row["walletID_id"], name=f"wallet {row['walletID_id']} of {row.name}")
    return LegacyOutcome(
        released_at=parse_time(f"completedAt of {row.name}", row["completedAt"]),
        owner=wallet["accountFK_id"],
        amount_minor=figure(f"amount of {row.name}", row["amount"], currency, places),
        status=status,
    )


def _wrong_movement(*, before: Row, after: Row, lines: list[Row], currency: str, places: int) -> str | None:
    try:
        moved = figure("balance", after["balance"], currency, places) - figure(
            "balance", before["balance"], currency, places
        )
        recorded = sum(_signed(line, currency, places) for line in lines)
    except InvalidInput as reason:
        return f"cannot be compared: {reason}"
    if moved == recorded:
        return None
    return (
        f"its balance changed by {_with_sign(moved, places)}, its new rows by {_with_sign(recorded, places)}"
    )


def _signed(line: Row, currency: str, places: int) -> int:
    sign = _SIGN_OF_TYPE.get(line["transactionType"])
    if sign is None:
        raise InvalidInput(f"transactionType {line['transactionType']!r} of {line.name} is not known")
    return sign * figure(f"amount of {line.name}", line["amount"], currency, places)


def _with_sign(amount_minor: int, places: int) -> str:
    return f"{'-' if amount_minor < 0 else '+'}{format_amount(abs(amount_minor), places)}"
