"""The import from the Django app: the shipped export comes over whole, and what is wrong in one is named."""

import csv
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.legacy import LegacyImport, import_legacy
from buffer_pipeline.legacy_export import Quarantined
from buffer_pipeline.locks import lock_holds, lock_job
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import backjob, hold_freeze, hold_status, transaction, wallet
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.builders import (
    WAIT_SECONDS_MAX,
    Wallet,
    all_at_once,
    books,
    row_counts,
    waiting_for_a_lock,
    wallet_of,
)

EXPORT: Final = Path(__file__).parent / "legacy_export"
TAKEN_AT: Final = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)
"""When the shipped export was taken, about."""
WHOLE: Final = LegacyImport(
    wallets=65, holds=66, frozen=5, wallets_added=65, holds_added=66, frozen_added=5, quarantined=()
)
NOTHING_NEW: Final = replace(WHOLE, wallets_added=0, holds_added=0, frozen_added=0)
WAITING: Final = "accounts_transaction"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A copy of the export that a test may edit."""
    return Path(shutil.copytree(EXPORT, tmp_path / "export"))


def edit(export: Path, row: str, **values: str) -> None:
    """Change fields of the row with this file and id."""
    name, row_id = row.split()
    rows = list(csv.reader((export / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    changed = next(fields for fields in rows[1:] if fields[0] == row_id)
    for column, value in values.items():
        changed[rows[0].index(column)] = value
    write(export / f"{name}.csv", rows)


def append_copy(export: Path, row: str, **values: str) -> None:
    """Add the row once more at the end of its file, with some of it changed."""
    name, row_id = row.split()
    rows = list(csv.reader((export / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    copied = list(next(fields for fields in rows[1:] if fields[0] == row_id))
    for column, value in values.items():
        copied[rows[0].index(column)] = value
    write(export / f"{name}.csv", [*rows, copied])


def spoil(export: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    file = export / f"{name}.csv"
    file.write_bytes(change(file.read_bytes()))


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
    """Return all balances and all pending earnings together, in major units."""
    minor = connection.execute(
        select(func.sum(wallet.c.balance_minor) + func.sum(wallet.c.pending_earnings_minor))
    ).scalar_one()
    return Decimal(minor).scaleb(-2)


def drain(engine: Engine, due_by: datetime) -> tuple[int, dict[str, int]]:
    """Run the hourly job at a time; return what it released."""
    run = drain_matured(engine, due_by=due_by, source="a test", clock=lambda _: due_by)
    return run.holds_released, run.amounts_minor


def found_pairs(done: LegacyImport) -> list[tuple[str, str]]:
    return [(entry.row, entry.reason) for entry in done.quarantined]


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


def waiting_references() -> set[str]:
    return {
        row["referenceNumber"]
        for row in shipped("accounts_transaction")
        if (row["transactionType"], row["status"]) == ("PENDING_EARNING", "PENDING")
    }


def last_completed_row(wallet_id: str) -> str:
    """Return the id of the wallet's last statement line in the shipped export."""
    rows = [
        row
        for row in shipped("accounts_transaction")
        if (row["walletID_id"], row["status"]) == (wallet_id, "COMPLETED")
    ]
    return max(rows, key=lambda row: (row["completedAt"], int(row["transactionID"])))["transactionID"]


# The shipped export.


def test_consistent_export_comes_over_whole(connection: Connection) -> None:
    """66 holds of 525,211.99, 5 of them frozen, 65 wallets, 5,000,000.00 in all, and nobody is told."""
    assert row_counts(connection)["wallet"] == 0

    done = run_import(connection, strict=True)

    assert done == WHOLE
    held = connection.execute(
        select(func.count(), func.sum(hold_status.c.amount_minor)).select_from(hold_status)
    ).one()
    assert tuple(held) == (66, 52_521_199)
    frozen = connection.execute(
        select(func.count(), func.count(hold_status.c.job.distinct())).where(hold_status.c.state == "FROZEN")
    ).one()
    assert tuple(frozen) == (5, 5)
    counts = row_counts(connection)
    assert (counts["wallet"], counts["backjob"], counts["hold_freeze"]) == (65, 5, 5)
    assert total(connection) == Decimal("5000000.00")
    assert counts["notification"] == 0
    assert reconcile(connection) == []


def test_waiting_row_becomes_a_hold_with_its_own_dates(connection: Connection) -> None:
    """A hold has the row's reference, job, people, amount, title, and begins and matures as it did there."""
    run_import(connection)

    row = connection.execute(
        select(hold_status).where(hold_status.c.reference == "JOB-209-PENDING-finish")
    ).one()
    owner_of = {found.wallet_id: found.owner for found in connection.execute(select(wallet))}

    assert (row.job, row.title, row.amount_minor, row.currency) == ("209", "Roof leak repair", 377_332, "PHP")
    assert (row.state, owner_of[row.payee_wallet_id], owner_of[row.payer_wallet_id]) == (
        "BUFFERED",
        account_of_wallet("47"),
        value_of("jobs 209", "clientAccountID"),
    )
    assert row.held_at == datetime.fromisoformat("2026-11-11T12:23:45.011424+00:00")
    assert row.release_date == row.original_release_date
    assert row.release_date == datetime.fromisoformat(value_of("jobs 209", "paymentReleaseDate"))


def test_open_dispute_becomes_an_open_backjob(connection: Connection) -> None:
    """It is the client's, since its opening, even where the legacy app froze behind the release date."""
    run_import(connection)

    row = connection.execute(select(backjob).where(backjob.c.reference == "legacy-dispute-42")).one()
    freeze = connection.execute(select(hold_freeze).where(hold_freeze.c.backjob_id == row.backjob_id)).one()

    assert (row.job, row.state, row.requested_by) == ("207", "OPEN", value_of("jobs 207", "clientAccountID"))
    assert row.reason == "Work needs redoing"
    assert row.requested_at == freeze.opened_at == datetime(2026, 11, 18, 22, 5, tzinfo=UTC)
    assert row.requested_at > connection.scalar(
        select(hold_status.c.release_date).where(hold_status.c.job == "207")
    )


def test_balance_comes_as_an_opening_transaction(connection: Connection) -> None:
    """A balance stands on the books under its wallet's id; an empty wallet needs no transaction."""
    run_import(connection)

    row = connection.execute(select(transaction).where(transaction.c.reference == "legacy-wallet-1")).one()

    assert (row.type, row.amount_minor, row.balance_after_minor) == (
        "OPENING_BALANCE",
        12_960_665,
        12_960_665,
    )
    assert wallet_of(connection, "41") == Wallet(balance_minor=12_960_665, pending_earnings_minor=0)


def test_wallet_without_a_balance_comes_over_empty(connection: Connection, export: Path) -> None:
    """A wallet of 0.00 that nothing waits for is opened, and no transaction is written for it."""
    append_copy(export, "accounts_accounts 1", accountID="900")
    append_copy(
        export,
        "accounts_wallet 1",
        walletID="900",
        accountFK_id="900",
        balance="0.00",
    )

    done = run_import(connection, export)

    assert done == replace(WHOLE, wallets=66, wallets_added=66)
    owner = select(wallet.c.owner).where(wallet.c.owner == "900")
    assert connection.scalars(owner).all() == ["900"]
    openings = select(transaction.c.reference).where(transaction.c.reference == "legacy-wallet-900")
    assert connection.scalars(openings).all() == []


def test_second_import_changes_nothing(engine: Engine) -> None:
    """Importing again writes nothing and says again how much stands, and that nothing is new."""
    with engine.begin() as connection:
        run_import(connection)
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = run_import(connection, strict=True)

    assert again == NOTHING_NEW
    with engine.connect() as connection:
        assert books(connection) == before


def test_two_imports_at_once_bring_everything_over_once(engine: Engine) -> None:
    """Of two imports that race, one adds and the other finds it there."""
    first, second = all_at_once(engine, run_import, run_import)

    assert {first, second} == {WHOLE, NOTHING_NEW}
    with engine.connect() as connection:
        assert row_counts(connection)["hold"] == 66
        assert total(connection) == Decimal("5000000.00")


@pytest.mark.parametrize(
    ("due_by", "holds", "amount_minor"),
    [
        (datetime(2026, 11, 18, 23, 35, tzinfo=UTC), 4, 3_316_567),
        (datetime(2026, 11, 22, tzinfo=UTC), 30, 20_881_809),
        (datetime(2026, 12, 31, tzinfo=UTC), 61, 48_959_618),
    ],
    ids=lambda value: f"{value:%Y-%m-%d}" if isinstance(value, datetime) else "",
)
def test_hourly_job_releases_what_the_legacy_app_had_due(
    engine: Engine, due_by: datetime, holds: int, amount_minor: int
) -> None:
    """What is due and not frozen is released, to the centavo; a re-import after it changes nothing."""
    with engine.begin() as connection:
        run_import(connection)

    released = drain(engine, due_by)

    assert released == (holds, {"PHP": amount_minor})
    with engine.connect() as connection:
        assert total(connection) == Decimal("5000000.00")
        assert reconcile(connection) == []
        before = books(connection)
    with engine.begin() as connection:
        assert run_import(connection) == NOTHING_NEW
    with engine.connect() as connection:
        assert books(connection) == before
    assert drain(engine, due_by) == (0, {})


def test_decided_backjob_is_not_opened_again(engine: Engine) -> None:
    """After a backjob is rejected here, the same export neither reopens it nor freezes its hold."""
    with engine.begin() as connection:
        run_import(connection)
        backjob_id = connection.execute(
            select(backjob.c.backjob_id).where(backjob.c.reference == "legacy-dispute-30")
        ).scalar_one()
        reject_backjob(connection, backjob_id=backjob_id, by="admin-1", reason="it works", now=TAKEN_AT)
        before = books(connection)

    with engine.begin() as connection:
        again = run_import(connection)

    assert again == replace(NOTHING_NEW, frozen=4)
    with engine.connect() as connection:
        assert books(connection) == before


def test_import_commits_nothing_by_itself(engine: Engine) -> None:
    """An import that its caller rolls back was never there."""
    with engine.connect() as connection, connection.begin() as begun:
        run_import(connection)
        begun.rollback()

    with engine.connect() as connection:
        assert set(row_counts(connection).values()) == {0}


# What is inconsistent.

Edit = Callable[[Path], None]


def changes(row: str, **values: str) -> Edit:
    return lambda export: edit(export, row, **values)


def copies(row: str, **values: str) -> Edit:
    return lambda export: append_copy(export, row, **values)


# Transaction 447 (3,773.32, of job 209 and wallet 47) and 443 (frozen by dispute 42, of job 207)
# stand for any; of job 214 both 458 and 459 wait.
ONE_ROW: Final[dict[str, tuple[Edit, dict[str, str]]]] = {
    "no job": (changes(f"{WAITING} 447", relatedJobPosting_id=""), {f"{WAITING} 447": "has no job"}),
    "unknown job": (
        changes(f"{WAITING} 447", relatedJobPosting_id="999"),
        {f"{WAITING} 447": "job 999 does not exist"},
    ),
    "job on two rows": (copies("jobs 209"), {f"{WAITING} 447": "job 209 stands on 2 rows"}),
    "no release date": (
        changes("jobs 209", paymentReleaseDate=""),
        {f"{WAITING} 447": "job 209 has no release date"},
    ),
    "release date is no time": (
        changes("jobs 209", paymentReleaseDate="soon"),
        {f"{WAITING} 447": "paymentReleaseDate 'soon': not an ISO 8601 time such as 2026-11-18T23:35Z"},
    ),
    "release date without a zone": (
        changes("jobs 209", paymentReleaseDate="2026-11-18T12:00:00"),
        {
            f"{WAITING} 447": "paymentReleaseDate 2026-11-18T12:00:00: has no time zone;"
            " write 2026-11-18T12:00:00Z for UTC"
        },
    ),
    "release date out of range": (
        changes("jobs 209", paymentReleaseDate="9999-12-31T23:59:59-01:00"),
        {
            f"{WAITING} 447": "paymentReleaseDate 9999-12-31T23:59:59-01:00: lies outside the years"
            " 1970 to 2999"
        },
    ),
    "release date before it was held": (
        changes("jobs 209", paymentReleaseDate="2026-11-10T00:00:00+00:00"),
        {
            f"{WAITING} 447": "release_date 2026-11-10T00:00:00+00:00:"
            " before held_at 2026-11-11T12:23:45.011424+00:00"
        },
    ),
    "job is released": (
        changes("jobs 209", paymentReleasedToWorker="True"),
        {
            f"{WAITING} 447": "job 209 is released already: paymentReleasedToWorker True,"
            " paymentHeldReason BUFFER_PERIOD"
        },
    ),
    "job is held as released": (
        changes("jobs 209", paymentHeldReason="RELEASED"),
        {
            f"{WAITING} 447": "job 209 is released already: paymentReleasedToWorker False,"
            " paymentHeldReason RELEASED"
        },
    ),
    "job is perhaps released": (
        changes("jobs 209", paymentReleasedToWorker=""),
        {f"{WAITING} 447": "job 209: paymentReleasedToWorker '' is neither True nor False"},
    ),
    "held for an unknown reason": (
        changes("jobs 209", paymentHeldReason=""),
        {f"{WAITING} 447": "job 209: paymentHeldReason '' is not known"},
    ),
    "frozen by no dispute": (
        changes("jobs 209", paymentHeldReason="BACKJOB_PENDING"),
        {f"{WAITING} 447": "job 209 is BACKJOB_PENDING without an open dispute"},
    ),
    "dispute is closed, job is not": (
        changes("job_disputes 42", status="CLOSED"),
        {f"{WAITING} 443": "job 207 is BACKJOB_PENDING without an open dispute"},
    ),
    "no client": (
        changes("jobs 209", clientAccountID=""),
        {f"{WAITING} 447": "client '' of job 209 does not exist"},
    ),
    "unknown client": (
        changes("jobs 209", clientAccountID="999"),
        {f"{WAITING} 447": "client '999' of job 209 does not exist"},
    ),
    "no reference": (
        changes(f"{WAITING} 447", referenceNumber=""),
        {f"{WAITING} 447": "reference: must not be empty"},
    ),
    "reference that cannot be stored": (
        changes(f"{WAITING} 447", referenceNumber="JOB\x00209"),
        {f"{WAITING} 447": "reference 'JOB\\x00209': contains a control character"},
    ),
    "reference of two waiting rows": (
        changes(f"{WAITING} 447", referenceNumber="JOB-208-PENDING-finish"),
        {
            f"{WAITING} 445": f"duplicate reference 'JOB-208-PENDING-finish', also on {WAITING} 447",
            f"{WAITING} 447": f"duplicate reference 'JOB-208-PENDING-finish', also on {WAITING} 445",
        },
    ),
    "reference of a paid row": (
        changes(f"{WAITING} 447", referenceNumber="JOB-1-PENDING-finish"),
        {f"{WAITING} 447": f"duplicate reference 'JOB-1-PENDING-finish', also on {WAITING} 2"},
    ),
    "held at no time": (
        changes(f"{WAITING} 447", createdAt=""),
        {f"{WAITING} 447": "createdAt '': not an ISO 8601 time such as 2026-11-18T23:35Z"},
    ),
}


@pytest.mark.parametrize(("change", "expected"), ONE_ROW.values(), ids=ONE_ROW)
def test_waiting_row_that_is_inconsistent_stays_out(
    connection: Connection, export: Path, change: Edit, expected: dict[str, str]
) -> None:
    """A row with a fault is named with its reason; every other row and every wallet come over."""
    change(export)

    done = run_import(connection, export)

    assert found(done) == expected
    frozen = 4 if f"{WAITING} 443" in expected else 5
    holds = 66 - len(expected)
    assert done == replace(
        WHOLE,
        holds=holds,
        holds_added=holds,
        frozen=frozen,
        frozen_added=frozen,
        quarantined=done.quarantined,
    )
    left_out = {value_of(row, "referenceNumber") for row in expected}
    assert set(connection.scalars(select(hold_status.c.reference))) == waiting_references() - left_out


WRONG_FIGURE: Final[dict[str, tuple[Edit, dict[str, str], int]]] = {
    "pending differs": (
        changes("accounts_wallet 47", pendingEarnings="0.00"),
        {"accounts_wallet 47": "pendingEarnings 0.00 differs from its waiting rows, 30037.33"},
        66,
    ),
    "pending is no number": (
        changes("accounts_wallet 47", pendingEarnings="many"),
        {"accounts_wallet 47": "pendingEarnings: amount 'many': not a plain decimal number, such as 1250.50"},
        66,
    ),
    "balance differs": (
        changes("accounts_wallet 1", balance="129606.66"),
        {
            "accounts_wallet 1": "balance 129606.66 differs from the last balanceAfter, 129606.65"
            f" of {WAITING} LAST"
        },
        66,
    ),
    "balance is negative": (
        changes("accounts_wallet 1", balance="-0.01"),
        {"accounts_wallet 1": "balance -0.01 is negative"},
        66,
    ),
    "balance is no number": (
        changes("accounts_wallet 1", balance="1e5"),
        {"accounts_wallet 1": "balance: amount '1e5': not a plain decimal number, such as 1250.50"},
        66,
    ),
    "both differ": (
        changes("accounts_wallet 1", balance="1.00", pendingEarnings="2.00"),
        {
            "accounts_wallet 1": "pendingEarnings 2.00 differs from its waiting rows, 0.00;"
            f" balance 1.00 differs from the last balanceAfter, 129606.65 of {WAITING} LAST"
        },
        66,
    ),
    "unknown account": (
        changes("accounts_wallet 1", accountFK_id="999"),
        {"accounts_wallet 1": "account 999 does not exist"},
        66,
    ),
    "amount differs": (
        changes(f"{WAITING} 447", amount="3773.33"),
        {"accounts_wallet 47": "pendingEarnings 30037.33 differs from its waiting rows, 30037.34"},
        66,
    ),
    "amount is no number": (
        changes(f"{WAITING} 447", amount="3773,32"),
        {
            "accounts_wallet 47": f"amount of {WAITING} 447: amount '3773,32': not a plain decimal number,"
            " such as 1250.50",
            f"{WAITING} 447": "amount '3773,32': not a plain decimal number, such as 1250.50",
        },
        65,
    ),
    "amount has a third place": (
        changes(f"{WAITING} 447", amount="3773.321"),
        {
            "accounts_wallet 47": f"amount of {WAITING} 447: amount 3773.321: PHP has 2 places, this has 3",
            f"{WAITING} 447": "amount 3773.321: PHP has 2 places, this has 3",
        },
        65,
    ),
    "unknown wallet": (
        changes(f"{WAITING} 447", walletID_id="999"),
        {
            "accounts_wallet 47": "pendingEarnings 30037.33 differs from its waiting rows, 26264.01",
            f"{WAITING} 447": "wallet 999 does not exist",
        },
        65,
    ),
}


@pytest.mark.parametrize(("change", "expected", "holds"), WRONG_FIGURE.values(), ids=WRONG_FIGURE)
def test_wallet_with_a_wrong_figure_gets_no_opening_balance(
    connection: Connection, export: Path, change: Edit, expected: dict[str, str], holds: int
) -> None:
    """Its sound rows come over, its balance waits for a decision, and the other wallets are whole."""
    change(export)

    done = run_import(connection, export)

    last = last_completed_row("1")
    assert found(done) == {row: reason.replace("LAST", last) for row, reason in expected.items()}
    assert (done.wallets, done.wallets_added, done.holds, done.frozen) == (64, 64, holds, 5)
    wrong = next(iter(expected)).split()[1]
    openings = set(
        connection.scalars(select(transaction.c.reference).where(transaction.c.type == "OPENING_BALANCE"))
    )
    assert f"legacy-wallet-{wrong}" not in openings
    assert len(openings) == 64
    assert wallet_of(connection, account_of_wallet(wrong)).balance_minor == 0


def test_last_statement_line_is_the_higher_id_at_the_same_time(connection: Connection, export: Path) -> None:
    """Of two lines completed at the same moment the one with the higher number is the last."""
    last = last_completed_row("1")
    edit(export, f"{WAITING} {last}", transactionID="999")
    append_copy(export, f"{WAITING} 999", transactionID="1000", referenceNumber="X", balanceAfter="7.00")

    done = run_import(connection, export)

    assert found(done) == {
        "accounts_wallet 1": f"balance 129606.65 differs from the last balanceAfter, 7.00 of {WAITING} 1000"
    }


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("completedAt", "completedAt of ROW '': not an ISO 8601 time such as 2026-11-18T23:35Z"),
        ("balanceAfter", "balanceAfter of ROW: amount '': not a plain decimal number, such as 1250.50"),
    ],
)
def test_statement_that_cannot_be_read_says_so(
    connection: Connection, export: Path, column: str, reason: str
) -> None:
    """A balance whose statement has a hole is not compared with an older line."""
    last = f"{WAITING} {last_completed_row('1')}"
    edit(export, last, **{column: ""})

    done = run_import(connection, export)

    assert found(done) == {"accounts_wallet 1": reason.replace("ROW", last)}


def test_wallet_or_account_that_stands_twice_belongs_to_nobody(connection: Connection, export: Path) -> None:
    """Rows of a doubled wallet stay out, and a person with two wallets gets neither balance."""
    append_copy(export, "accounts_wallet 59")
    append_copy(export, "accounts_wallet 1", walletID="900", balance="0.00")

    done = run_import(connection, export)

    assert found_pairs(done) == [
        ("accounts_wallet 1", "account 41 has 2 wallets"),
        ("accounts_wallet 59", "wallet 59 stands on 2 rows"),
        ("accounts_wallet 59", "wallet 59 stands on 2 rows"),
        ("accounts_wallet 900", "account 41 has 2 wallets"),
        (f"{WAITING} 443", "wallet 59 stands on 2 rows"),
        ("job_disputes 42", "job 207 has no waiting payment that came over"),
    ]
    assert (done.wallets, done.holds, done.frozen) == (63, 65, 4)


def test_cancelled_row_has_given_up_its_reference(connection: Connection, export: Path) -> None:
    """A waiting row may repeat the reference of a cancelled one."""
    append_copy(export, f"{WAITING} 447", transactionID="999", status="CANCELLED")

    done = run_import(connection, export)

    assert done == WHOLE


def test_title_is_no_reason_to_keep_money_back(connection: Connection, export: Path) -> None:
    """Spaces and line ends in a job's title are folded."""
    edit(export, "jobs 209", title=" Roof \t leak repair ")

    done = run_import(connection, export)

    assert done == WHOLE
    assert (
        connection.scalar(select(hold_status.c.title).where(hold_status.c.job == "209")) == "Roof leak repair"
    )


# Disputes and admin holds.


@pytest.mark.parametrize("status", ["OPEN", "IN_NEGOTIATION", "UNDER_REVIEW"])
def test_every_open_status_freezes(connection: Connection, export: Path, status: str) -> None:
    """A dispute that is not decided freezes its payment, whatever stage it is in."""
    edit(export, "job_disputes 42", status=status)

    done = run_import(connection, export)

    assert done == WHOLE


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"openedDate": ""}, "openedDate '': not an ISO 8601 time such as 2026-11-18T23:35Z"),
        ({"reason": " "}, "reason: must not be empty"),
        ({"reason": "It leaks.\n" * 50_000}, "reason: 499999 characters long; at most 2000"),
        ({"status": "ESCALATED"}, "status 'ESCALATED' is not known"),
    ],
)
def test_payment_of_an_inconsistent_dispute_does_not_come_over_unfrozen(
    connection: Connection, export: Path, values: dict[str, str], reason: str
) -> None:
    """A dispute that cannot come over keeps its payment out: it would be released otherwise."""
    edit(export, "job_disputes 42", **values)

    done = run_import(connection, export)

    assert found(done) == {
        f"{WAITING} 443": f"job_disputes 42 of its job is inconsistent: {reason}",
        "job_disputes 42": reason,
    }
    assert (done.wallets, done.holds, done.frozen) == (65, 65, 4)


def test_open_dispute_without_a_waiting_payment_is_quarantined(connection: Connection, export: Path) -> None:
    """An open dispute of a job that has nothing in the buffer has nothing to freeze."""
    edit(export, "job_disputes 1", status="OPEN")

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 1": "job 17 has no waiting payment that came over"}
    assert (done.wallets, done.holds, done.frozen) == (65, 66, 5)


def test_second_open_dispute_of_a_job_is_quarantined(connection: Connection, export: Path) -> None:
    """The first dispute of a job freezes, the second is named."""
    append_copy(export, "job_disputes 42", disputeID="99")

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": "second open dispute of job 207, after job_disputes 42"}
    assert (done.wallets, done.holds, done.frozen) == (65, 66, 5)


def test_dispute_freezes_the_whole_team(connection: Connection, export: Path) -> None:
    """A dispute of a job with two waiting rows freezes both."""
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="214")

    done = run_import(connection, export)

    assert done == replace(WHOLE, frozen=7, frozen_added=7)


def test_admin_hold_comes_over_frozen(engine: Engine, export: Path) -> None:
    """A payment held by an admin gets an ADMIN freeze, once, and nobody is told."""
    edit(export, "jobs 209", paymentHeldReason="ADMIN_HOLD")

    with engine.begin() as connection:
        done = run_import(connection, export)
    with engine.begin() as connection:
        again = run_import(connection, export)

    assert done == replace(WHOLE, frozen=6, frozen_added=6)
    assert again == replace(NOTHING_NEW, frozen=6)
    with engine.connect() as connection:
        freeze = connection.execute(select(hold_freeze).where(hold_freeze.c.kind == "ADMIN")).one()
        assert (freeze.opened_by, freeze.closed_at) == ("legacy-import", None)
        assert row_counts(connection)["notification"] == 0


def test_backjob_that_was_requested_here_meanwhile_is_not_doubled(
    connection: Connection, export: Path
) -> None:
    """An open backjob of this system stands in the way of a dispute that comes with a later export."""
    run_import(connection)
    opened = request_backjob(connection, job="260", by="65", reason="it drips", now=TAKEN_AT)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")
    before = books(connection)

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": f"backjob {opened.backjob_id} of job 260 is open already"}
    assert done == replace(NOTHING_NEW, frozen=7, quarantined=done.quarantined)
    assert books(connection) == before


def test_dispute_of_a_later_export_freezes_what_came_over_before(
    connection: Connection, export: Path
) -> None:
    """A dispute that was opened between two exports freezes the holds of the first."""
    run_import(connection)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    done = run_import(connection, export)

    assert done == replace(NOTHING_NEW, frozen=7, frozen_added=2)


def test_dispute_of_a_later_export_cannot_freeze_what_is_released(engine: Engine, export: Path) -> None:
    """A dispute whose payments were released here is named, and opens nothing."""
    with engine.begin() as connection:
        run_import(connection)
    drain(engine, datetime(2026, 12, 31, tzinfo=UTC))
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    with engine.begin() as connection:
        done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": "the payments of job 260 are settled by now"}
    assert done == replace(NOTHING_NEW, quarantined=done.quarantined)


def test_payment_that_is_mended_after_its_backjob_was_opened_stays_out(
    connection: Connection, export: Path
) -> None:
    """A backjob freezes what stands when it opens; a payment that came later would be released."""
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="214")
    mended = Path(shutil.copytree(export, export.parent / "mended"))
    edit(export, f"{WAITING} 459", referenceNumber="")
    first = run_import(connection, export)

    done = run_import(connection, mended)

    backjob_id = connection.scalar(
        select(backjob.c.backjob_id).where(backjob.c.reference == "legacy-dispute-99")
    )
    assert (first.holds, first.frozen) == (65, 6)
    assert found(done) == {f"{WAITING} 459": f"backjob {backjob_id} of job 214 stands and does not cover it"}
    assert (done.holds, done.holds_added, done.frozen) == (65, 0, 6)


# What stands in the books before.


def test_reference_of_another_hold_is_quarantined(connection: Connection) -> None:
    """A reference that another payment of this system has is not overwritten."""
    taken = add_pending_earnings(
        connection,
        reference="JOB-209-PENDING-finish",
        job="209",
        payee="somebody",
        payer="somebody-else",
        amount="3773.32",
        currency="PHP",
        now=TAKEN_AT,
    )

    done = run_import(connection)

    reason = (
        f"reference 'JOB-209-PENDING-finish': stands for hold {taken.hold_id} with payee 'somebody',"
        f" not payee '{account_of_wallet('47')}'"
    )
    assert found(done) == {f"{WAITING} 447": reason}
    assert (done.wallets, done.holds, done.frozen) == (65, 65, 5)


def test_balance_of_a_later_export_is_not_added_to_the_first(connection: Connection, export: Path) -> None:
    """A balance comes over once; a later export with another one is named."""
    run_import(connection)
    edit(export, "accounts_wallet 1", balance="129606.66")
    edit(export, f"{WAITING} {last_completed_row('1')}", balanceAfter="129606.66")

    done = run_import(connection, export)

    assert list(found(done)) == ["accounts_wallet 1"]
    assert found(done)["accounts_wallet 1"].startswith("reference 'legacy-wallet-1': stands for transaction")
    assert done == replace(NOTHING_NEW, wallets=64, quarantined=done.quarantined)
    assert wallet_of(connection, "41").balance_minor == 12_960_665


def test_wallet_that_has_money_here_keeps_it(connection: Connection) -> None:
    """A balance comes on top of what its owner has been given here."""
    deposit(connection, owner="41", amount="10.00", currency="PHP", reference="top-up", now=TAKEN_AT)

    done = run_import(connection)

    assert done == WHOLE
    assert wallet_of(connection, "41").balance_minor == 12_961_665


def test_mended_export_brings_the_rest(connection: Connection, export: Path) -> None:
    """What was quarantined comes over once the export is right; the rest stands already."""
    edit(export, f"{WAITING} 447", relatedJobPosting_id="")
    edit(export, "accounts_wallet 1", balance="-1.00")
    run_import(connection, export)

    done = run_import(connection)

    assert done == replace(NOTHING_NEW, wallets_added=1, holds_added=1)
    assert total(connection) == Decimal("5000000.00")


# The order of the list, and --strict.


def test_quarantine_stands_in_the_order_of_the_files(connection: Connection, export: Path) -> None:
    """Wallets, transactions, disputes, each as in its file, wherever the fault was found."""
    edit(export, "job_disputes 1", status="OPEN")
    edit(export, f"{WAITING} 449", createdAt="")
    edit(export, f"{WAITING} 447", createdAt="2026-12-31T00:00:00+00:00")
    edit(export, "accounts_wallet 1", balance="-1.00")

    done = run_import(connection, export)

    assert list(found(done)) == [
        "accounts_wallet 1",
        f"{WAITING} 447",
        f"{WAITING} 449",
        "job_disputes 1",
    ]
    assert done.quarantined[0] == Quarantined(row="accounts_wallet 1", reason="balance -1.00 is negative")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changes(f"{WAITING} 447", relatedJobPosting_id=""),
            f"1 inconsistent row, nothing was imported; the first is {WAITING} 447: has no job",
        ),
        (
            changes("accounts_wallet 59", walletID="999"),
            "3 inconsistent rows, nothing was imported; the first is accounts_wallet 999:"
            " pendingEarnings 4719.73 differs from its waiting rows, 0.00",
        ),
    ],
    ids=["one row", "three rows"],
)
def test_strict_import_refuses_the_whole(
    connection: Connection, export: Path, change: Edit, message: str
) -> None:
    """One inconsistent row refuses all, in one line; in the caller's transaction nothing is left."""
    change(export)

    with pytest.raises(Refused) as refusal:
        run_import(connection, export, strict=True)

    assert str(refusal.value) == f"{export}: {message}"
    assert set(row_counts(connection).values()) == {0}


# Files that cannot be read.


@pytest.mark.parametrize(
    "name", ["accounts_accounts", "accounts_wallet", "accounts_transaction", "jobs", "job_disputes"]
)
def test_missing_file_is_named(connection: Connection, export: Path, name: str) -> None:
    """An export without one of its five files is refused."""
    (export / f"{name}.csv").unlink()

    with pytest.raises(InvalidInput, match=rf"^{name}\.csv: is missing in "):
        run_import(connection, export)

    assert set(row_counts(connection).values()) == {0}


def test_notifications_are_not_needed(connection: Connection, export: Path) -> None:
    """The messages that the legacy app has sent are no part of an import."""
    (export / "accounts_notification.csv").unlink()

    done = run_import(connection, export)

    assert done == WHOLE


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "jobs",
            lambda content: content.replace(b"paymentReleaseDate", b"releaseDate", 1),
            "jobs.csv: needs one column paymentReleaseDate, has 0",
        ),
        (
            "jobs",
            lambda content: content.replace(b"budget", b"jobID", 1),
            "jobs.csv: needs one column jobID, has 2",
        ),
        ("job_disputes", lambda _: b"", "job_disputes.csv: needs one column disputeID, has 0"),
        (
            "accounts_wallet",
            lambda content: content + b"66\n",
            "accounts_wallet.csv: line 67 has 1 fields, the header has 7",
        ),
        (
            "accounts_accounts",
            lambda _: b"accountID,email\n1,\xf1\n",
            "accounts_accounts.csv: is not UTF-8; the first wrong byte is byte 19",
        ),
        (
            "accounts_accounts",
            lambda _: b'accountID,email\n1,"open\n',
            "accounts_accounts.csv: line 2: broken line: unexpected end of data",
        ),
    ],
    ids=["no column", "column twice", "empty", "short line", "not UTF-8", "not CSV"],
)
def test_file_that_cannot_be_read_is_named(
    connection: Connection, export: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    """The refusal names the file and what is wrong in it, and nothing is written."""
    spoil(export, name, change)

    with pytest.raises(InvalidInput) as refusal:
        run_import(connection, export)

    assert str(refusal.value) == message
    assert set(row_counts(connection).values()) == {0}


def test_byte_order_mark_is_read_over(connection: Connection, export: Path) -> None:
    """A UTF-8 file that begins with a byte order mark is UTF-8 all the same."""
    spoil(export, "jobs", lambda content: b"\xef\xbb\xbf" + content)

    done = run_import(connection, export)

    assert done == WHOLE


def test_directory_must_be_one(connection: Connection, tmp_path: Path) -> None:
    """A directory that does not exist is named."""
    with pytest.raises(InvalidInput, match="nowhere: is not a directory"):
        run_import(connection, tmp_path / "nowhere")


def test_currency_must_be_known(connection: Connection) -> None:
    """A currency that does not exist is refused before anything is read."""
    with pytest.raises(InvalidInput, match="currency 'PESO'"):
        import_legacy(connection, EXPORT, now=TAKEN_AT, currency="PESO")


@pytest.mark.parametrize(
    ("written", "comes_over"), [("false", True), ("f", True), ("t", False), ("no", False)]
)
def test_truth_is_read_as_django_and_as_copy_write_it(
    connection: Connection, export: Path, written: str, comes_over: bool
) -> None:
    """`paymentReleasedToWorker` is True or False, in any case, or PostgreSQL's t or f."""
    edit(export, "jobs 177", paymentReleasedToWorker=written)

    done = run_import(connection, export)

    assert (done.holds == WHOLE.holds) is comes_over
    assert (f"{WAITING} 377" in found(done)) is not comes_over


def test_an_import_and_a_backjob_request_do_not_deadlock(engine: Engine, export: Path) -> None:
    """A later export disputes a job that is in the books: both lock the job before its holds."""
    with engine.begin() as connection:
        run_import(connection)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    def import_again() -> LegacyImport:
        with engine.begin() as connection:
            return run_import(connection, export)

    with ThreadPoolExecutor(1) as threads, engine.connect() as watching:
        with engine.begin() as requesting:
            lock_job(requesting, "260")
            importing = threads.submit(import_again)
            while not waiting_for_a_lock(watching):
                pass
            lock_holds(requesting, job="260")

        assert importing.result(timeout=WAIT_SECONDS_MAX).frozen
