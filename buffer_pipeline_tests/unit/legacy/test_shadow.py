"""Compares the release with the legacy command, and names each difference."""

import csv
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.legacy.shadow import Comparison, compare_release
from buffer_pipeline_tests.support.builders import place_hold, row_counts
from buffer_pipeline_tests.support.legacy import EXPORT

AT: Final = datetime(2026, 11, 18, 23, 35, tzinfo=UTC)
"""The time at which the shipped export has 4 due payments without a freeze, 33,165.67 in total."""
FROZEN_ROW: Final = "443"

Rows = list[dict[str, str]]


class Files:
    """The files of an export that a test changes, by name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rows: dict[str, Rows] = {}

    def __getitem__(self, name: str) -> Rows:
        if name not in self.rows:
            with (self.directory / f"{name}.csv").open(encoding="utf-8", newline="") as opened:
                self.rows[name] = list(csv.DictReader(opened))
        return self.rows[name]

    def one(self, name: str, row_id: str) -> dict[str, str]:
        """Return the row with this id for changing."""
        return next(row for row in self[name] if next(iter(row.values())) == row_id)

    def write(self) -> None:
        for name, rows in self.rows.items():
            with (self.directory / f"{name}.csv").open("w", encoding="utf-8", newline="") as opened:
                writer = csv.DictWriter(opened, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


def due(files: Files) -> Rows:
    """Return the waiting rows that the legacy command releases at AT."""
    jobs = {job["jobID"]: job for job in files["jobs"]}
    disputed = {
        row["jobID_id"] for row in files["job_disputes"] if row["status"] not in {"RESOLVED", "CLOSED"}
    }
    return [
        row
        for row in files["accounts_transaction"]
        if (row["transactionType"], row["status"]) == ("PENDING_EARNING", "PENDING")
        and datetime.fromisoformat(jobs[row["relatedJobPosting_id"]]["paymentReleaseDate"]) <= AT
        and row["relatedJobPosting_id"] not in disputed
    ]


def release(files: Files, row: dict[str, str], *, times: int = 1) -> None:
    """Release a row as one or more overlapping runs of the legacy command do."""
    wallet = files.one("accounts_wallet", row["walletID_id"])
    amount = Decimal(row["amount"])
    wallet["balance"] = str(Decimal(wallet["balance"]) + times * amount)
    wallet["pendingEarnings"] = str(max(Decimal("0.00"), Decimal(wallet["pendingEarnings"]) - times * amount))
    row |= {
        "transactionType": "EARNING",
        "status": "COMPLETED",
        "balanceAfter": wallet["balance"],
        "completedAt": (AT + timedelta(seconds=1)).isoformat(),
    }
    job = files.one("jobs", row["relatedJobPosting_id"])
    job |= {"paymentReleasedToWorker": "True", "paymentHeldReason": "RELEASED"}


@pytest.fixture
def after(tmp_path: Path) -> Callable[[Callable[[Files], None]], Path]:
    """Write the export after a run of the legacy command, with the additional or different effects of
    `change`.
    """

    def made(change: Callable[[Files], None]) -> Path:
        files = Files(Path(shutil.copytree(EXPORT, tmp_path / "after")))
        change(files)
        files.write()
        return files.directory

    return made


def run_as_ever(files: Files) -> None:
    for row in due(files):
        release(files, row)


def compare(connection: Connection, after: Path, *, before: Path = EXPORT) -> Comparison:
    return compare_release(connection, before=before, after=after, at=AT)


def differences(done: Comparison) -> dict[str, str]:
    """Return the text of each difference by row."""
    assert len({item.row for item in done.differences}) == len(done.differences)
    return {item.row: item.difference for item in done.differences}


MakeAfter = Callable[[Callable[[Files], None]], Path]


def test_equal_releases_have_no_difference(connection: Connection, after: MakeAfter) -> None:
    """On the shipped export both release the 4 payments of 33,165.67 that its README names."""
    before = row_counts(connection)

    done = compare(connection, after(run_as_ever))

    assert done == Comparison(
        waiting=66, released=4, released_minor=3_316_567, places=2, kept=62, differences=(), quarantined=()
    )
    assert row_counts(connection) == before


def test_due_payment_that_the_command_left_is_a_difference(connection: Connection, after: MakeAfter) -> None:
    """It is named with the time since when it is due."""

    def all_but_one(files: Files) -> None:
        for row in due(files)[1:]:
            release(files, row)

    done = compare(connection, after(all_but_one))

    left = due(Files(EXPORT))[0]
    assert list(differences(done)) == [f"accounts_transaction {left['transactionID']}"]
    (difference,) = differences(done).values()
    assert difference.startswith("due since 2026-11-1")
    assert difference.endswith(" and released here; there it is PENDING_EARNING / PENDING")
    assert (done.released, done.kept) == (3, 62)


def test_wrongly_released_payment_is_a_difference(connection: Connection, after: MakeAfter) -> None:
    """A disputed payment, and one before its date, are named with their state in the books."""
    early = next(
        row
        for row in Files(EXPORT)["accounts_transaction"]
        if row["status"] == "PENDING"
        and row not in due(Files(EXPORT))
        and row["transactionID"] != FROZEN_ROW
        and row["relatedJobPosting_id"]
        not in {dispute["jobID_id"] for dispute in Files(EXPORT)["job_disputes"]}
    )

    def too_many(files: Files) -> None:
        run_as_ever(files)
        release(files, files.one("accounts_transaction", FROZEN_ROW))
        release(files, files.one("accounts_transaction", early["transactionID"]))

    found = differences(compare(connection, after(too_many)))

    assert found[f"accounts_transaction {FROZEN_ROW}"] == (
        "released there at 2026-11-18T23:35:01+00:00; here FROZEN"
    )
    assert found[f"accounts_transaction {early['transactionID']}"].startswith(
        "released there at 2026-11-18T23:35:01+00:00; here due at 2026-11-"
    )
    assert len(found) == 2


def test_payment_that_matured_during_the_command_is_no_difference(
    connection: Connection, after: MakeAfter, tmp_path: Path
) -> None:
    """The command read its own clock after `at`."""
    before = Files(Path(shutil.copytree(EXPORT, tmp_path / "before")))
    late = due(before)[0]
    in_between = (AT + timedelta(milliseconds=500)).isoformat()

    def released_late(files: Files) -> None:
        for row in due(files):
            release(files, row)
        files.one("jobs", late["relatedJobPosting_id"])["paymentReleaseDate"] = in_between

    behind = after(released_late)
    before.one("jobs", late["relatedJobPosting_id"])["paymentReleaseDate"] = in_between
    before.write()

    done = compare(connection, behind, before=before.directory)

    assert (done.released, done.kept, done.differences) == (4, 62, ())


def test_payment_made_twice_by_overlapping_runs_is_found(connection: Connection, after: MakeAfter) -> None:
    """They leave one line and twice the money in the wallet's balance."""
    paid_twice = due(Files(EXPORT))[0]

    def overlapping(files: Files) -> None:
        for row in due(files):
            release(files, row, times=2 if row["transactionID"] == paid_twice["transactionID"] else 1)

    found = differences(compare(connection, after(overlapping)))

    amount = Decimal(paid_twice["amount"])
    assert found == {
        f"accounts_wallet {paid_twice['walletID_id']}": (
            f"there its balance changed by +{2 * amount}, its new rows by +{amount}"
        )
    }


def test_other_amount_and_other_owner_are_differences(connection: Connection, after: MakeAfter) -> None:
    """Both values are named."""
    first, second = due(Files(EXPORT))[:2]

    def wrong(files: Files) -> None:
        files.one("accounts_transaction", first["transactionID"])["amount"] = "1.00"
        files.one("accounts_transaction", second["transactionID"])["walletID_id"] = "1"
        run_as_ever(files)

    found = differences(compare(connection, after(wrong)))

    owner = Files(EXPORT).one("accounts_wallet", first["walletID_id"])["accountFK_id"]
    assert found[f"accounts_transaction {first['transactionID']}"] == (
        f"released there at 2026-11-18T23:35:01+00:00 with 1.00 to {owner};"
        f" here with {first['amount']} to {owner}"
    )
    assert (
        f" with {second['amount']} to 41; here with "
        in found[f"accounts_transaction {second['transactionID']}"]
    )


def test_pending_that_the_command_clamped_is_found(connection: Connection, after: MakeAfter) -> None:
    """A wallet whose figures do not match its lines after the run is named."""
    wallet = next(row for row in Files(EXPORT)["accounts_wallet"] if Decimal(row["pendingEarnings"]) > 0)

    def clamped(files: Files) -> None:
        run_as_ever(files)
        files.one("accounts_wallet", wallet["walletID"])["pendingEarnings"] = "0.00"

    found = differences(compare(connection, after(clamped)))

    assert list(found) == [f"accounts_wallet {wallet['walletID']}"]
    assert (
        "there pendingEarnings 0.00 differs from its waiting rows"
        in found[f"accounts_wallet {wallet['walletID']}"]
    )


def test_row_that_an_import_leaves_out_is_quarantined(
    connection: Connection, after: MakeAfter, tmp_path: Path
) -> None:
    """A row without a release date counts as kept and is listed. If it was released, it is a difference."""
    before = Files(Path(shutil.copytree(EXPORT, tmp_path / "before")))
    odd = due(before)[0]
    before.one("jobs", odd["relatedJobPosting_id"])["paymentReleaseDate"] = ""
    before.write()
    row = f"accounts_transaction {odd['transactionID']}"

    def all_but_it(files: Files) -> None:
        for due_row in due(files)[1:]:
            release(files, due_row)

    kept = compare(connection, after(all_but_it), before=before.directory)
    shutil.rmtree(tmp_path / "after")
    released = compare(connection, after(run_as_ever), before=before.directory)

    assert (kept.kept, kept.differences) == (63, ())
    assert [(item.row, item.reason) for item in kept.quarantined] == [
        (row, f"job {odd['relatedJobPosting_id']} has no release date")
    ]
    assert differences(released)[row] == (
        "released there at 2026-11-18T23:35:01+00:00; here left out:"
        f" job {odd['relatedJobPosting_id']} has no release date"
    )


def test_row_that_is_gone_is_a_difference_only_if_it_was_due(
    connection: Connection, after: MakeAfter
) -> None:
    """A due row missing from the second export is named; for other changes the new state is named."""
    gone, cancelled = due(Files(EXPORT))[:2]

    def without(files: Files) -> None:
        run_as_ever(files)
        transactions = files["accounts_transaction"]
        transactions.remove(files.one("accounts_transaction", gone["transactionID"]))
        undone = files.one("accounts_transaction", cancelled["transactionID"])
        undone |= {"transactionType": "PENDING_EARNING", "status": "CANCELLED"}

    found = differences(compare(connection, after(without)))

    assert found[f"accounts_transaction {gone['transactionID']}"].endswith(
        "released here; there it is missing"
    )
    assert found[f"accounts_transaction {cancelled['transactionID']}"].endswith(
        "released here; there it is PENDING_EARNING / CANCELLED"
    )


def test_line_of_an_unknown_type_is_named(connection: Connection, after: MakeAfter) -> None:
    """Its effect on a balance is not guessed."""

    def tipped(files: Files) -> None:
        run_as_ever(files)
        line = due(Files(EXPORT))[0]
        files["accounts_transaction"].append(
            line
            | {"transactionID": "9999", "transactionType": "TIP", "status": "COMPLETED", "completedAt": "x"}
        )

    found = differences(compare(connection, after(tipped)))

    wallet = due(Files(EXPORT))[0]["walletID_id"]
    assert found[f"accounts_wallet {wallet}"] == (
        "there cannot be compared: transactionType 'TIP' of accounts_transaction 9999 is not known"
    )


def test_shadow_refuses_non_empty_books(connection: Connection, after: MakeAfter) -> None:
    """Their holds would be released too."""
    place_hold(connection)
    before = row_counts(connection)

    with pytest.raises(Refused, match=r"books: not empty .*; a comparison needs books of its own"):
        compare(connection, after(run_as_ever))

    assert row_counts(connection) == before


def test_folder_without_an_export_is_refused(connection: Connection, tmp_path: Path) -> None:
    """With the name of the missing file."""
    with pytest.raises(InvalidInput, match=r"accounts_accounts\.csv: is missing in "):
        compare(connection, tmp_path)
    with pytest.raises(InvalidInput, match="nowhere: is not a directory"):
        compare(connection, tmp_path / "nowhere")
