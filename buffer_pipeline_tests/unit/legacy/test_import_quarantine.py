"""An inconsistent row of an export is quarantined with its reason; all others are imported."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.legacy.importer import LegacyImport
from buffer_pipeline.tables import hold_status, transaction
from buffer_pipeline_tests.support.builders import wallet_of
from buffer_pipeline_tests.support.legacy_import import (
    WAITING,
    WHOLE,
    Edit,
    account_of_wallet,
    append_copy,
    changes,
    edit,
    found,
    last_completed_row,
    run_import,
    shipped,
    value_of,
)


def found_pairs(done: LegacyImport) -> list[tuple[str, str]]:
    return [(entry.row, entry.reason) for entry in done.quarantined]


def waiting_references() -> set[str]:
    return {
        row["referenceNumber"]
        for row in shipped("accounts_transaction")
        if (row["transactionType"], row["status"]) == ("PENDING_EARNING", "PENDING")
    }


def copies(row: str, **values: str) -> Edit:
    return lambda export: append_copy(export, row, **values)


# Transaction 447 (3,773.32, of job 209 and wallet 47) and 443 (frozen by dispute 42, of job 207) are typical
# rows. Job 214 has two waiting rows, 458 and 459.
ONE_ROW: Final[dict[str, tuple[Edit, dict[str, str]]]] = {
    "no job": (changes(f"{WAITING} 447", relatedJobPosting_id=""), {f"{WAITING} 447": "has no job"}),
    "unknown job": (
        changes(f"{WAITING} 447", relatedJobPosting_id="999"),
        {f"{WAITING} 447": "job 999 does not exist"},
    ),
    "job on two rows": (copies("jobs 209"), {f"{WAITING} 447": "job 209 is on 2 rows"}),
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
def test_inconsistent_waiting_row_is_quarantined(
    connection: Connection, export: Path, change: Edit, expected: dict[str, str]
) -> None:
    """With its reason. Every other row and every wallet are imported."""
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
    """Its sound rows are imported, its balance is quarantined, and other wallets are complete."""
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
    """Of two lines with the same time, the one with the higher id is the last."""
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
def test_unreadable_statement_quarantines_the_balance(
    connection: Connection, export: Path, column: str, reason: str
) -> None:
    """The balance is not compared with an older line."""
    last = f"{WAITING} {last_completed_row('1')}"
    edit(export, last, **{column: ""})

    done = run_import(connection, export)

    assert found(done) == {"accounts_wallet 1": reason.replace("ROW", last)}


def test_duplicate_wallet_or_account_is_quarantined(connection: Connection, export: Path) -> None:
    """Rows of a duplicate wallet stay out, and an account with two wallets gets neither balance."""
    append_copy(export, "accounts_wallet 59")
    append_copy(export, "accounts_wallet 1", walletID="900", balance="0.00")

    done = run_import(connection, export)

    assert found_pairs(done) == [
        ("accounts_wallet 1", "account 41 has 2 wallets"),
        ("accounts_wallet 59", "wallet 59 is on 2 rows"),
        ("accounts_wallet 59", "wallet 59 is on 2 rows"),
        ("accounts_wallet 900", "account 41 has 2 wallets"),
        (f"{WAITING} 443", "wallet 59 is on 2 rows"),
        ("job_disputes 42", "job 207 has no waiting payment that was imported"),
    ]
    assert (done.wallets, done.holds, done.frozen) == (63, 65, 4)


def test_cancelled_row_frees_its_reference(connection: Connection, export: Path) -> None:
    """A waiting row may repeat the reference of a cancelled one."""
    append_copy(export, f"{WAITING} 447", transactionID="999", status="CANCELLED")

    done = run_import(connection, export)

    assert done == WHOLE


def test_multi_line_title_is_folded(connection: Connection, export: Path) -> None:
    """Spaces and line breaks in a job's title become single spaces."""
    edit(export, "jobs 209", title=" Roof \t leak repair ")

    done = run_import(connection, export)

    assert done == WHOLE
    assert (
        connection.scalar(select(hold_status.c.title).where(hold_status.c.job == "209")) == "Roof leak repair"
    )
