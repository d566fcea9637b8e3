"""Imports of the shipped export, and changes of its rows."""

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.legacy.importer import LegacyImport, import_legacy
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.tables import wallet
from buffer_pipeline_tests.support.legacy import EXPORT, TAKEN_AT

WHOLE: Final = LegacyImport(
    wallets=65, holds=66, frozen=5, wallets_added=65, holds_added=66, frozen_added=5, quarantined=()
)
NOTHING_NEW: Final = replace(WHOLE, wallets_added=0, holds_added=0, frozen_added=0)
WAITING: Final = "accounts_transaction"


def edit(export: Path, row: str, **values: str) -> None:
    """Change fields of the row with this file and id."""
    name, row_id = row.split()
    rows = list(csv.reader((export / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    changed = next(fields for fields in rows[1:] if fields[0] == row_id)
    for column, value in values.items():
        changed[rows[0].index(column)] = value
    write(export / f"{name}.csv", rows)


def append_copy(export: Path, row: str, **values: str) -> None:
    """Append a copy of the row to its file, with some fields changed."""
    name, row_id = row.split()
    rows = list(csv.reader((export / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    copied = list(next(fields for fields in rows[1:] if fields[0] == row_id))
    for column, value in values.items():
        copied[rows[0].index(column)] = value
    write(export / f"{name}.csv", [*rows, copied])


def write(file: Path, rows: list[list[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)


def run_import(connection: Connection, directory: Path = EXPORT, *, strict: bool = False) -> LegacyImport:
    return import_legacy(connection, directory, now=TAKEN_AT, strict=strict)


def found(done: LegacyImport) -> dict[str, str]:
    """Return the reason of each quarantined row."""
    assert len({entry.row for entry in done.quarantined}) == len(done.quarantined)
    return {entry.row: entry.reason for entry in done.quarantined}


def total(connection: Connection) -> Decimal:
    """Return the sum of all balances and all pending earnings, in major units."""
    minor = connection.execute(
        select(func.sum(wallet.c.balance_minor) + func.sum(wallet.c.pending_earnings_minor))
    ).scalar_one()
    return Decimal(minor).scaleb(-2)


def release_due_by(engine: Engine, due_by: datetime) -> tuple[int, dict[str, int]]:
    """Run the hourly job at a time; return its result."""
    run = release_all_due(engine, due_by=due_by, source="a test", clock=lambda _: due_by)
    return run.holds_released, run.amounts_minor


def shipped(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of the shipped export."""
    with (EXPORT / f"{name}.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def value_of(row: str, column: str) -> str:
    """Return a field of the shipped export."""
    name, row_id = row.split()
    return next(fields[column] for fields in shipped(name) if next(iter(fields.values())) == row_id)


def account_of_wallet(wallet_id: str) -> str:
    return value_of(f"accounts_wallet {wallet_id}", "accountFK_id")


def last_completed_row(wallet_id: str) -> str:
    """Return the id of the wallet's last statement line in the shipped export."""
    rows = [
        row
        for row in shipped("accounts_transaction")
        if (row["walletID_id"], row["status"]) == (wallet_id, "COMPLETED")
    ]
    return max(rows, key=lambda row: (row["completedAt"], int(row["transactionID"])))["transactionID"]


Edit = Callable[[Path], None]


def changes(row: str, **values: str) -> Edit:
    return lambda export: edit(export, row, **values)
