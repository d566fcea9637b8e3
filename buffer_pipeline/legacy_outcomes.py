"""What the legacy command made of what waited, by an export before it ran and one behind. Pure."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.legacy_files import Index, Row, figure, is_waiting, read_files
from buffer_pipeline.money import format_amount

_SIGN_OF_TYPE: Final = {"EARNING": 1, "REFUND": 1, "PAYMENT": -1, "DEPOSIT": 1, "WITHDRAWAL": -1}
"""Which way a completed line moves its wallet's balance. The last two are what a rollback writes."""


@dataclass(frozen=True, kw_only=True)
class LegacyOutcome:
    """A row that waited before: when it was released and to whom; if it was not, how it stands."""

    released_at: datetime | None
    owner: str
    amount_minor: int
    standing: str


@dataclass(frozen=True, kw_only=True)
class LegacyOutcomes:
    """By row name of what waited; and wallets whose balance moved by other than their new lines."""

    of_row: dict[str, LegacyOutcome]
    wallets: dict[str, str]


def read_outcomes(before: Path, after: Path, *, currency: str, places: int) -> LegacyOutcomes:
    """Return what became of each row that waits in `before`, as `after` has it.

    A wallet's balance must have moved by what its newly completed lines say: a payment that two
    overlapping runs released is one line, and is in the balance twice.

    Raises:
        InvalidInput: as `read_export`, or a row that says released cannot be read.
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
        standing = f"stands on {len(rows)} rows" if rows else "is gone"
        return LegacyOutcome(released_at=None, owner="", amount_minor=0, standing=standing)
    (row,) = rows
    standing = f"is {row['transactionType']} / {row['status']}"
    if (row["transactionType"], row["status"]) != ("EARNING", "COMPLETED"):
        return LegacyOutcome(released_at=None, owner="", amount_minor=0, standing=standing)
    wallet = wallets.only(row["walletID_id"], name=f"wallet {row['walletID_id']} of {row.name}")
    return LegacyOutcome(
        released_at=parse_time(f"completedAt of {row.name}", row["completedAt"]),
        owner=wallet["accountFK_id"],
        amount_minor=figure(f"amount of {row.name}", row["amount"], currency, places),
        standing=standing,
    )


def _wrong_movement(*, before: Row, after: Row, lines: list[Row], currency: str, places: int) -> str | None:
    try:
        moved = figure("balance", after["balance"], currency, places) - figure(
            "balance", before["balance"], currency, places
        )
        told = sum(_signed(line, currency, places) for line in lines)
    except InvalidInput as reason:
        return f"cannot be compared: {reason}"
    if moved == told:
        return None
    return f"its balance moved by {_with_sign(moved, places)}, its new lines by {_with_sign(told, places)}"


def _signed(line: Row, currency: str, places: int) -> int:
    sign = _SIGN_OF_TYPE.get(line["transactionType"])
    if sign is None:
        raise InvalidInput(f"transactionType {line['transactionType']!r} of {line.name} is not known")
    return sign * figure(f"amount of {line.name}", line["amount"], currency, places)


def _with_sign(amount_minor: int, places: int) -> str:
    return f"{'-' if amount_minor < 0 else '+'}{format_amount(abs(amount_minor), places)}"
