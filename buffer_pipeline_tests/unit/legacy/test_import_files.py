"""Unreadable files of an export are refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline_tests.support.builders import row_counts
from buffer_pipeline_tests.support.legacy import EXPORT, TAKEN_AT
from buffer_pipeline_tests.support.legacy_import import WAITING, WHOLE, edit, found, run_import


def spoil(export: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    file = export / f"{name}.csv"
    file.write_bytes(change(file.read_bytes()))


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
    """The legacy app's sent messages are not imported."""
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
    """The refusal names the file and the fault, and nothing is written."""
    spoil(export, name, change)

    with pytest.raises(InvalidInput) as refusal:
        run_import(connection, export)

    assert str(refusal.value) == message
    assert set(row_counts(connection).values()) == {0}


def test_byte_order_mark_is_accepted(connection: Connection, export: Path) -> None:
    """A UTF-8 file that begins with a byte order mark is UTF-8 all the same."""
    spoil(export, "jobs", lambda content: b"\xef\xbb\xbf" + content)

    done = run_import(connection, export)

    assert done == WHOLE


def test_missing_directory_is_refused_by_name(connection: Connection, tmp_path: Path) -> None:
    """A directory that does not exist is named."""
    with pytest.raises(InvalidInput, match="nowhere: is not a directory"):
        run_import(connection, tmp_path / "nowhere")


def test_currency_must_be_known(connection: Connection) -> None:
    """An unknown currency is refused before anything is read."""
    with pytest.raises(InvalidInput, match="currency 'PESO'"):
        import_legacy(connection, EXPORT, now=TAKEN_AT, currency="PESO")


@pytest.mark.parametrize(
    ("written", "comes_over"), [("false", True), ("f", True), ("t", False), ("no", False)]
)
def test_booleans_are_read_as_django_and_copy_write_them(
    connection: Connection, export: Path, written: str, comes_over: bool
) -> None:
    """`paymentReleasedToWorker` is True or False, in any case, or PostgreSQL's t or f."""
    edit(export, "jobs 177", paymentReleasedToWorker=written)

    done = run_import(connection, export)

    assert (done.holds == WHOLE.holds) is comes_over
    assert (f"{WAITING} 377" in found(done)) is not comes_over
