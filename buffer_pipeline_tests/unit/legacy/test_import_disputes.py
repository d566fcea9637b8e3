"""Disputes and admin holds of an export become backjobs and freezes."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.tables import backjob, hold_freeze
from buffer_pipeline_tests.support.builders import books, row_counts
from buffer_pipeline_tests.support.legacy import TAKEN_AT
from buffer_pipeline_tests.support.legacy_import import (
    NOTHING_NEW,
    WAITING,
    WHOLE,
    append_copy,
    edit,
    found,
    release_due_by,
    run_import,
)


@pytest.mark.parametrize("status", ["OPEN", "IN_NEGOTIATION", "UNDER_REVIEW"])
def test_every_open_status_freezes(connection: Connection, export: Path, status: str) -> None:
    """An undecided dispute freezes its payment, at any stage."""
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
def test_payment_of_an_inconsistent_dispute_is_not_imported_unfrozen(
    connection: Connection, export: Path, values: dict[str, str], reason: str
) -> None:
    """If a dispute cannot be imported, its payment is not imported either, because it would be released."""
    edit(export, "job_disputes 42", **values)

    done = run_import(connection, export)

    assert found(done) == {
        f"{WAITING} 443": f"job_disputes 42 of its job is inconsistent: {reason}",
        "job_disputes 42": reason,
    }
    assert (done.wallets, done.holds, done.frozen) == (65, 65, 4)


def test_open_dispute_without_a_waiting_payment_is_quarantined(connection: Connection, export: Path) -> None:
    """An open dispute of a job without a waiting payment has nothing to freeze."""
    edit(export, "job_disputes 1", status="OPEN")

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 1": "job 17 has no waiting payment that was imported"}
    assert (done.wallets, done.holds, done.frozen) == (65, 66, 5)


def test_second_open_dispute_of_a_job_is_quarantined(connection: Connection, export: Path) -> None:
    """The first dispute of a job freezes; the second is quarantined."""
    append_copy(export, "job_disputes 42", disputeID="99")

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": "second open dispute of job 207, after job_disputes 42"}
    assert (done.wallets, done.holds, done.frozen) == (65, 66, 5)


def test_dispute_freezes_the_whole_team(connection: Connection, export: Path) -> None:
    """A dispute of a job with two waiting rows freezes both."""
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="214")

    done = run_import(connection, export)

    assert done == replace(WHOLE, frozen=7, frozen_added=7)


def test_admin_hold_is_imported_frozen(engine: Engine, export: Path) -> None:
    """A payment held by an admin gets one ADMIN freeze, and nobody is notified."""
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


def test_dispute_of_a_job_with_an_open_backjob_is_not_imported(connection: Connection, export: Path) -> None:
    """For example a backjob requested in the books between two exports."""
    run_import(connection)
    opened = request_backjob(connection, job="260", by="65", reason="it drips", now=TAKEN_AT)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")
    before = books(connection)

    done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": f"backjob {opened.backjob_id} of job 260 is open already"}
    assert done == replace(NOTHING_NEW, frozen=7, quarantined=done.quarantined)
    assert books(connection) == before


def test_later_dispute_freezes_earlier_imported_holds(connection: Connection, export: Path) -> None:
    """A dispute opened between two exports freezes the holds of the first."""
    run_import(connection)
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    done = run_import(connection, export)

    assert done == replace(NOTHING_NEW, frozen=7, frozen_added=2)


def test_later_dispute_of_released_payments_is_quarantined(engine: Engine, export: Path) -> None:
    """It opens no backjob."""
    with engine.begin() as connection:
        run_import(connection)
    release_due_by(engine, datetime(2026, 12, 31, tzinfo=UTC))
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="260")

    with engine.begin() as connection:
        done = run_import(connection, export)

    assert found(done) == {"job_disputes 99": "the payments of job 260 are settled by now"}
    assert done == replace(NOTHING_NEW, quarantined=done.quarantined)


def test_payment_corrected_after_its_backjob_stays_quarantined(connection: Connection, export: Path) -> None:
    """The backjob freezes only holds that exist when it opens, so a later payment would be released."""
    append_copy(export, "job_disputes 42", disputeID="99", jobID_id="214")
    mended = Path(shutil.copytree(export, export.parent / "mended"))
    edit(export, f"{WAITING} 459", referenceNumber="")
    first = run_import(connection, export)

    done = run_import(connection, mended)

    backjob_id = connection.scalar(
        select(backjob.c.backjob_id).where(backjob.c.reference == "legacy-dispute-99")
    )
    assert (first.holds, first.frozen) == (65, 6)
    assert found(done) == {
        f"{WAITING} 459": f"backjob {backjob_id} of job 214 is in the books and does not cover it"
    }
    assert (done.holds, done.holds_added, done.frozen) == (65, 0, 6)
