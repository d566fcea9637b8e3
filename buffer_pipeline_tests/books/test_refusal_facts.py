"""The attributes of a refusal: the state that prevents the verb, and the id that has this state."""

import io

import pytest
from sqlalchemy import Connection, text

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.csv_records import BrokenRecord, csv_records
from buffer_pipeline.errors import BackjobRefused, InvalidInput, NotFound
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.policy import Policy
from buffer_pipeline_tests.support.builders import JOB, NOON, PAYER, place_hold


def test_backjob_on_a_job_without_holds_is_not_found(connection: Connection) -> None:
    """The refusal names a known job without holds."""
    connection.execute(
        text("INSERT INTO buffer.job (job, payer) VALUES (:job, :payer)"), {"job": JOB, "payer": PAYER}
    )

    with pytest.raises(NotFound) as refusal:
        request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)

    assert (str(refusal.value), refusal.value.job) == (f"job {JOB!r}: has no hold", JOB)


def test_empty_payer_of_a_backjob_is_refused(connection: Connection) -> None:
    """The refusal names the argument `payer`."""
    place_hold(connection)

    with pytest.raises(InvalidInput, match=r"^payer: "):
        request_backjob(connection, job=JOB, by=PAYER, reason="drips", payer="", now=NOON)


def test_refused_backjob_has_the_state_of_the_existing_one(connection: Connection) -> None:
    """OPEN if one is open, REJECTED if too many were rejected."""
    place_hold(connection)

    with pytest.raises(BackjobRefused) as too_many:
        request_backjob(
            connection, job=JOB, by=PAYER, reason="drips", policy=Policy(max_backjobs_per_job=0), now=NOON
        )
    request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)
    with pytest.raises(BackjobRefused) as second:
        request_backjob(connection, job=JOB, by=PAYER, reason="drips", now=NOON)

    assert (too_many.value.job, too_many.value.state) == (JOB, BackjobState.REJECTED)
    assert (second.value.job, second.value.state) == (JOB, BackjobState.OPEN)


def test_broken_first_record_is_on_line_one() -> None:
    """Lines count from one, even if nothing was read before."""
    with pytest.raises(BrokenRecord) as refusal:
        list(csv_records(io.StringIO('"b"c\n', newline="")))

    assert (refusal.value.line, refusal.value.lines_not_read) == (1, 0)
