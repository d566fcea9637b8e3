"""The blocking checks of a release run: they prove its own holds, or once all books."""

from typing import Final

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.orchestration.checks import ALL_BOOKS, BLOCKING, PROVED, THIS_RUN
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline_tests.support.builders import PAYEE, place_hold, wallet_of
from buffer_pipeline_tests.support.checks import RECONCILE_JOB, SECOND_EARNING, evaluation_of
from buffer_pipeline_tests.support.runs import corrupt, delivered, outcomes, release, rows_of

PASSED: Final = dict.fromkeys(BLOCKING, True)

ALREADY_EARNED: Final = (
    "DROP INDEX buffer.transaction_hold_earned_key",
    "INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id,"
    " currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at, release_date)"
    " SELECT 'EARNING', 'PENDING_EARNINGS', to_wallet_id, 'BALANCE', to_wallet_id, currency, amount_minor,"
    " 0, hold_id, 1, recorded_at, recorded_at"
    " FROM buffer.transaction ORDER BY transaction_id DESC LIMIT 1",
)
"""The waiting payment was already paid once."""

TOO_EARLY: Final = (
    "CREATE FUNCTION buffer.falsify() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN NEW.release_date := now() + interval ''1 day''; RETURN NEW; END'",
    "CREATE TRIGGER falsify BEFORE INSERT ON buffer.transaction FOR EACH ROW"
    " WHEN (NEW.type = 'EARNING' AND NEW.hold_id % 2 = 0) EXECUTE FUNCTION buffer.falsify()",
)
"""According to the books, every second payment was not due yet."""

CORRUPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "books_balance": (
        "UPDATE buffer.transaction SET amount_minor = amount_minor - 1"
        " WHERE transaction_id = (SELECT max(transaction_id) FROM buffer.transaction)",
    ),
    "wallet_equals_its_transactions": ("UPDATE buffer.wallet SET balance_minor = balance_minor + 7",),
    "hold_settled_once": ALREADY_EARNED,
    "earning_follows_its_batch": TOO_EARLY,
}
"""Blocking check -> a superuser's statements between two releases."""


def proved(result: dg.ExecuteInProcessResult) -> set[str]:
    """Return what the run's checks report as proved."""
    return {str(found.metadata["proved"].value) for found in result.get_asset_check_evaluations()}


@pytest.fixture
def proved_books(engine: Engine, environment: None, instance: dg.DagsterInstance) -> Engine:
    """Books after a release with passed checks."""
    del environment
    with engine.begin() as connection:
        place_hold(connection)
    assert outcomes(release(instance)) == PASSED
    return engine


def test_every_blocking_check_has_a_corruption() -> None:
    """Every blocking check has failed in a test."""
    assert set(CORRUPTIONS) == set(BLOCKING)


@pytest.mark.usefixtures("environment")
def test_a_release_proves_its_own_part_on_top_of_a_proof(
    engine: Engine, instance: dg.DagsterInstance
) -> None:
    """The first release proves all books, later ones their own holds. A dry run proves nothing and does not
    change that. The daily job proves all.
    """
    with engine.begin() as connection:
        place_hold(connection)
    first = release(instance)
    with engine.begin() as connection:
        place_hold(connection)
    release(instance, dry_run=True)

    second = release(instance)
    nothing_due = release(instance)
    daily = defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance)

    assert [outcomes(run) for run in (first, second, nothing_due)] == [PASSED] * 3
    assert [proved(run) for run in (first, second, nothing_due)] == [{ALL_BOOKS}, {THIS_RUN}, {THIS_RUN}]
    assert evaluation_of(daily, "books_balance").metadata["proved"].value == ALL_BOOKS


@pytest.mark.parametrize("check", BLOCKING)
def test_releases_holds_are_proved_before_notifications(
    check: str, proved_books: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A superuser's change of a payment or its wallet fails the release's check. The run is not retried, and
    neither it nor the next one notifies anybody.
    """
    with proved_books.begin() as connection:
        place_hold(connection)
        place_hold(connection, job="job-9")
    corrupt(superuser_url, *CORRUPTIONS[check])

    broken = release(instance, raise_on_error=False)
    following = release(instance, raise_on_error=False)

    assert proved(broken) == {THIS_RUN}
    assert outcomes(broken)[check] is False
    found = evaluation_of(broken, check)
    assert found.metadata["offending_rows"].value == len(rows_of(found, "rows")) == 1
    run = instance.get_run_by_id(broken.run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    # What the next one released itself, nothing, is correct.
    assert evaluation_of(following, check).metadata["proved"].value == ALL_BOOKS
    assert not following.success
    with proved_books.connect() as connection:
        assert wallet_of(connection, PAYEE).balance_minor >= 3 * 100_000
        assert delivered(connection) == (6, 2)


def test_daily_job_finds_an_older_double_payment(
    proved_books: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A second EARNING of an older hold is not checked by a release. After the daily job has found it,
    releases prove all books and notify nobody.
    """
    corrupt(superuser_url, *SECOND_EARNING)
    with proved_books.begin() as connection:
        place_hold(connection)

    before = release(instance, raise_on_error=False)
    daily = defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance, raise_on_error=False)
    with proved_books.begin() as connection:
        place_hold(connection)
    after = release(instance, raise_on_error=False)

    assert outcomes(before)["hold_settled_once"] is True
    assert outcomes(daily)["hold_settled_once"] is False
    assert outcomes(after)["hold_settled_once"] is False
    assert rows_of(evaluation_of(after, "hold_settled_once"), "rows")[0]["earnings"] == 2
    with proved_books.connect() as connection:
        assert delivered(connection) == (6, 4)


def test_release_after_an_unchecked_run_proves_all_books(
    proved_books: Engine, instance: dg.DagsterInstance
) -> None:
    """After a run that ended before its checks, the next one proves all of the books."""
    with proved_books.begin() as connection:
        place_hold(connection)
    refused = release(instance, raise_on_error=False, as_of="yesterday")

    following = release(instance)
    one_more = release(instance)

    assert not refused.success
    assert [proved(run) for run in (refused, following, one_more)] == [set(), {ALL_BOOKS}, {THIS_RUN}]


@pytest.mark.usefixtures("proved_books")
def test_failed_proof_counts_after_a_later_release_passed(
    superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A proof of all books is slow, and may fail after a later release has passed."""
    corrupt(superuser_url, *SECOND_EARNING)
    defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance, raise_on_error=False)
    for check in BLOCKING:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("released_transactions"),
                check_name=check,
                passed=True,
                metadata={PROVED: THIS_RUN},
            )
        )

    result = release(instance, raise_on_error=False)

    found = evaluation_of(result, "hold_settled_once")
    assert (found.passed, found.metadata["proved"].value) == (False, ALL_BOOKS)
