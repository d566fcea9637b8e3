"""The release job, end to end."""

import os
from datetime import UTC, datetime, timedelta
from typing import Final
from unittest.mock import ANY

import dagster as dg
import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.pool import Pool

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.tables import batch, wallet
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYEE, books, place_hold, state_of, wallet_of
from buffer_pipeline_tests.support.legacy import EXPORT
from buffer_pipeline_tests.support.runs import delivered, failure_of, outcomes, release, reported
from buffer_pipeline_tests.support.storage import create_database, instance_on

RELEASED: Final = dg.AssetKey("released_transactions")
BLOCKING_PASSED: Final = {
    "books_balance": True,
    "wallet_equals_its_transactions": True,
    "hold_settled_once": True,
    "earning_follows_its_batch": True,
}


def test_run_releases_checks_notifies_and_counts(
    waiting: int, engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """Money moves, the books are checked, the notifications go out, the counts are reported."""
    result = release(lasting_instance)

    assert result.success
    with engine.connect() as connection:
        assert state_of(connection, waiting) is HoldState.RELEASED
        assert wallet_of(connection, PAYEE).balance_minor == 100_000
        assert delivered(connection) == (2, 2)
        assert connection.scalar(select(batch.c.source)) == f"dagster run {result.run_id}"
    assert outcomes(result) == BLOCKING_PASSED
    released = reported(result, "released_transactions")
    assert (released["holds_released"], released["batches"], released["still_due"]) == (1, 1, 0)
    assert (released["amount_PHP"], released["amounts"]) == (1000.0, "1000.00 PHP")
    assert released["seconds"] >= 0
    assert reported(result, "release_notifications") == {
        "sent": 2,
        "retried": 0,
        "dead": 0,
        "lost_leases": 0,
        "waiting": 0,
        "oldest_waiting": "none",
        "endpoints": [
            {
                "endpoint": "log",
                "sent": 2,
                "retried": 0,
                "dead": 0,
                "waiting": 0,
                "dead_letters": 0,
                "remark": "",
            }
        ],
    }
    lateness = released["lateness_max_seconds"]
    assert lateness == released["lateness_median_seconds"] > 0
    assert released.pop("latest_released") == [
        {
            "hold_id": waiting,
            "job": "job-8",
            "payee": PAYEE,
            "amount": "1000.00",
            "currency": "PHP",
            "release_date": DAY_7.isoformat(),
            "released_at": ANY,
        }
    ]
    assert reported(result, "release_counts") == released
    run = lasting_instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["buffer/outcome"] == "released 1 payment, 1000.00 PHP"


def test_the_first_op_reports_what_is_due(waiting: int, instance: dg.DagsterInstance) -> None:
    """The cut-off, the holds, the amounts and the oldest release date."""
    del waiting

    result = release(instance, as_of=DAY_7.isoformat())

    event = next(
        event
        for event in result.all_node_events
        if event.event_type_value == "STEP_OUTPUT" and event.node_name == "select_matured_transactions"
    )
    metadata = {name: value.value for name, value in event.step_output_data.metadata.items()}
    assert metadata["due_holds"] == 1
    assert metadata["amounts"] == "1000.00 PHP"
    assert metadata["oldest_release_date"] == DAY_7.timestamp()
    assert metadata["due_by"] == DAY_7.timestamp()


@pytest.mark.usefixtures("environment")
def test_a_run_with_nothing_due_reports_zero(instance: dg.DagsterInstance) -> None:
    """For each currency, so that a gap in the plot means that no run came this far."""
    result = release(instance)

    assert reported(result, "released_transactions")["holds_released"] == 0
    counts = reported(result, "release_counts")
    figures = ("holds_released", "batches", "lateness_median_seconds", "lateness_max_seconds", "still_due")
    assert {counts[figure] for figure in figures} == {0}
    assert counts["seconds"] >= 0


def test_a_second_run_pays_nothing_twice(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """It finds the payment released."""
    del waiting
    release(instance)

    result = release(instance)

    assert reported(result, "release_counts")["holds_released"] == 0
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).balance_minor == 100_000


def test_batch_limit_splits_the_run(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """A small batch limit makes more batches, not fewer releases."""
    del waiting
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection)

    result = release(instance, batch_limit=2)

    released = reported(result, "released_transactions")
    assert (released["holds_released"], released["batches"]) == (3, 2)


def test_workers_release_what_is_due(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """Several workers release the same as one, and the run adds up their results."""
    del waiting
    with engine.begin() as connection:
        for number in range(8):
            place_hold(connection, payee=f"worker-{number}")

    result = release(instance, workers=3)

    released = reported(result, "released_transactions")
    assert (released["holds_released"], released["amounts"], released["still_due"]) == (9, "9000.00 PHP", 0)
    assert outcomes(result) == BLOCKING_PASSED


def test_a_dry_run_changes_nothing(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """It observes what a real run would release, and materializes nothing."""
    del waiting
    with engine.connect() as connection:
        before = books(connection)

    result = release(instance, dry_run=True)

    assert result.success
    with engine.connect() as connection:
        assert books(connection) == before
    assert result.get_asset_materialization_events() == []
    observed = result.get_asset_observation_events()
    assert [event.asset_key for event in observed] == [RELEASED]
    metadata = observed[0].asset_observation_data.asset_observation.metadata
    assert metadata["holds_a_real_run_would_release"].value == 1
    assert metadata["amounts"].value == "1000.00 PHP"
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["buffer/outcome"] == "would release 1 payment, 1000.00 PHP"


def test_notifications_can_be_delivered_without_a_release(
    waiting: int, engine: Engine, instance: dg.DagsterInstance
) -> None:
    """Also if the latest release was a dry run."""
    del waiting
    release(instance, dry_run=True)

    result = dg.materialize(
        [defs.get_assets_def("release_notifications")],
        instance=instance,
        resources=dict(defs.resources or {}),
    )

    assert result.success
    with engine.connect() as connection:
        assert delivered(connection) == (1, 1)


def test_the_notifications_are_in_the_compute_log(
    waiting: int, lasting_instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    """The step's stderr has a line per notification, with its id and its hold."""
    release(lasting_instance)

    lines = [line for line in capfd.readouterr().err.splitlines() if "PAYMENT_RELEASED" in line]
    assert len(lines) == 1
    assert f"hold {waiting}" in lines[0]
    assert PAYEE in lines[0]


@pytest.mark.parametrize(
    ("as_of", "fact"),
    [
        ("2026-03-02T12:00:00", "has no time zone"),
        ("yesterday", "not an ISO 8601 time"),
        ((datetime.now(UTC) + timedelta(days=1)).isoformat(), "lies after the database's clock"),
    ],
    ids=["naive", "no-time", "future"],
)
def test_a_wrong_as_of_is_refused(
    waiting: int, engine: Engine, instance: dg.DagsterInstance, as_of: str, fact: str
) -> None:
    """A cut-off without a zone or in the future writes nothing and is not retried."""
    del waiting
    with engine.connect() as connection:
        before = books(connection)

    result = release(instance, raise_on_error=False, as_of=as_of)

    assert not result.success
    message = failure_of(result, "released_transactions.select_matured_transactions")
    assert fact in message
    assert "\n" not in message
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    with engine.connect() as connection:
        assert books(connection) == before


def test_as_of_releases_what_was_due_then(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """A moment before the release date releases nothing; the release date itself does."""
    early = release(instance, as_of=(DAY_7 - timedelta(seconds=1)).isoformat())
    with engine.connect() as connection:
        state_before = state_of(connection, waiting)
    on_time = release(instance, as_of=DAY_7.isoformat())

    assert reported(early, "release_counts")["holds_released"] == 0
    assert state_before is HoldState.BUFFERED
    assert reported(on_time, "release_counts")["holds_released"] == 1


@pytest.mark.usefixtures("environment")
def test_the_job_releases_the_real_export_by_its_figures(
    engine: Engine, instance: dg.DagsterInstance
) -> None:
    """On the Django application's export, each cut-off releases what its README says was due."""
    with engine.begin() as connection:
        import_legacy(connection, EXPORT, now=NOON)

    first = release(instance, as_of="2026-11-18T23:35:00Z")
    second = release(instance, as_of="2026-11-22T00:00:00Z")
    again = release(instance, as_of="2026-11-22T00:00:00Z")

    assert [reported(run, "release_counts")["holds_released"] for run in (first, second, again)] == [4, 26, 0]
    amounts = [reported(run, "release_counts")["amounts"] for run in (first, second, again)]
    # 33,165.67 were due at the first cut-off, and 208,818.09 in total at the second.
    assert amounts == ["33165.67 PHP", "175652.42 PHP", "none"]
    assert [outcomes(run) for run in (first, second)] == [BLOCKING_PASSED] * 2
    with engine.connect() as connection:
        total = connection.scalar(select(func.sum(wallet.c.balance_minor + wallet.c.pending_earnings_minor)))
        assert total == 5_000_000_00
        assert reconcile(connection) == []
        # One notification per release and none for the import.
        assert delivered(connection) == (30, 30)


def test_run_reuses_its_connections_to_dagsters_storage(waiting: int, server: EmbeddedServer) -> None:
    """One per event and query would be over a hundred."""
    del waiting
    opened: list[object] = []

    def count(connection: object, _record: object) -> None:
        opened.append(connection)

    name = f"dagster_{os.urandom(6).hex()}"
    create_database(server, name)
    with instance_on(server, name) as instance:
        release(instance)
        event.listen(Pool, "connect", count)
        try:
            result = release(instance)
        finally:
            event.remove(Pool, "connect", count)

    assert result.success
    # One for each of Dagster's three storages, and those of the books.
    assert 0 < len(opened) < 12
