"""A job has one payer. Earnings and backjobs of other payers are refused."""

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.errors import JobConflict, NotAllowed, NotFound
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings
from buffer_pipeline.tables import job
from buffer_pipeline_tests.support.backjobs import request
from buffer_pipeline_tests.support.builders import (
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    bring_in,
    one_after_the_other,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import WAYS, Add, add_in_many, add_one, earning
from buffer_pipeline_tests.support.runs import corrupt

OTHER_PAYER = "client-4"


@WAYS
def test_an_earning_of_another_payer_is_refused(connection: Connection, add: Add) -> None:
    """The payer of the first hold is the job's payer. The refusal names the job and both payers; nothing is
    written.
    """
    place_hold(connection)
    place_hold(connection, job="job-9", payer=OTHER_PAYER)
    before = books(connection)

    with pytest.raises(JobConflict) as refusal:
        add(connection, payer=OTHER_PAYER)

    assert str(refusal.value) == "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refusal.value.job == JOB
    assert books(connection) == before


@WAYS
def test_a_settled_job_keeps_its_payer(connection: Connection, add: Add) -> None:
    """Even after all its holds are settled."""
    place_hold(connection, state=HoldState.RELEASED)

    with pytest.raises(JobConflict):
        add(connection, payer=OTHER_PAYER)

    assert add(connection).state is HoldState.BUFFERED


def test_many_earnings_of_two_payers_hold_only_the_first_payers(connection: Connection) -> None:
    """The first payer of a new job gets it. Refused earnings do not affect the others."""
    named = [
        earning(reference="first"),
        earning(reference="other", payer=OTHER_PAYER),
        earning(reference="third", payee="worker-18"),
        earning(reference="own job", job="job-9", payer=OTHER_PAYER),
        earning(reference="other", payer=OTHER_PAYER),
    ]

    outcomes = add_many_pending_earnings(connection, named, now=NOON)

    assert [type(outcome) for outcome in outcomes] == [
        AddedHold,
        JobConflict,
        AddedHold,
        AddedHold,
        JobConflict,
    ]
    jobs = connection.execute(select(job.c.job, job.c.payer).order_by(job.c.job)).all()
    assert [tuple(row) for row in jobs] == [("job-8", PAYER), ("job-9", OTHER_PAYER)]
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=2_000)
    assert reconcile(connection) == []


@pytest.mark.parametrize("ways", [(add_one, add_one), (add_one, add_in_many), (add_in_many, add_in_many)])
@pytest.mark.parametrize("known", [False, True])
def test_one_of_two_concurrent_payers_gets_a_new_job(
    engine: Engine, ways: tuple[Add, Add], known: bool
) -> None:
    """The other payer's earning is refused, with or without existing wallets."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
        if known:
            for payer in (PAYER, OTHER_PAYER):
                place_hold(connection, job=f"job-of-{payer}", payer=payer)
    first, second = ways

    outcomes = all_at_once(
        engine,
        lambda connection: first(connection, reference="one"),
        lambda connection: second(connection, reference="two", payer=OTHER_PAYER),
    )

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert len(added) == 1
    assert sum(isinstance(outcome, JobConflict) for outcome in outcomes) == 1
    with engine.connect() as connection:
        owner = connection.scalar(select(job.c.payer).where(job.c.job == JOB))
        assert owner == (PAYER if outcomes[0] is added[0] else OTHER_PAYER)
        assert reconcile(connection) == []


@pytest.mark.parametrize(("first", "second"), [(add_one, add_in_many), (add_in_many, add_one)])
def test_earning_that_waits_for_a_new_job_is_checked_against_its_payer(
    engine: Engine, first: Add, second: Add
) -> None:
    """If another transaction creates the job first, its payer counts after the commit."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)

    _, refusal = one_after_the_other(
        engine,
        lambda connection: first(connection, reference="one"),
        lambda connection: second(connection, reference="two", payer=OTHER_PAYER),
    )

    assert isinstance(refusal, JobConflict)
    assert refusal.job == JOB


def test_job_that_was_rolled_back_has_no_payer(engine: Engine) -> None:
    """An earning that was rolled back does not reserve the job."""
    with engine.connect() as connection, connection.begin() as transaction:
        add_one(connection)
        transaction.rollback()

    with engine.begin() as connection:
        added = add_one(connection, payer=OTHER_PAYER)

    assert not added.replayed


def test_backjob_that_names_the_jobs_payer_is_accepted(connection: Connection) -> None:
    """`by` may be somebody else who acts for the payer."""
    hold_id = place_hold(connection)

    opened = request(connection, payer=PAYER, by="agent-5")

    assert opened.hold_ids == (hold_id,)


def test_a_backjob_for_another_payer_is_refused(connection: Connection) -> None:
    """Clients cannot freeze holds of another payer. The refusal names the job; nothing is frozen."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed) as refusal:
        request(connection, payer=OTHER_PAYER)

    assert str(refusal.value) == "job 'job-8': its payer is 'client-3', not 'client-4'"
    assert refusal.value.job == JOB
    assert books(connection) == before


def test_backjob_freezes_only_holds_of_the_jobs_payer(engine: Engine, superuser_url: str) -> None:
    """Jobs from before revision 0014 may have holds of several payers. The first one is the job's payer."""
    with engine.begin() as connection:
        own = place_hold(connection)
        others = place_hold(connection, job="job-9", payer=OTHER_PAYER)
    corrupt(superuser_url, f"UPDATE buffer.hold SET job = '{JOB}' WHERE hold_id = {others}")

    with engine.begin() as connection:
        opened = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)

    assert opened.hold_ids == (own,)
    with engine.connect() as connection:
        assert state_of(connection, others) is HoldState.BUFFERED


def test_an_unknown_job_has_no_payer(connection: Connection) -> None:
    """The refusal says only that the job has no hold."""
    with pytest.raises(NotFound) as refusal:
        request(connection, job="job-404", payer=PAYER)

    assert (str(refusal.value), refusal.value.job) == ("job 'job-404': has no hold", "job-404")
