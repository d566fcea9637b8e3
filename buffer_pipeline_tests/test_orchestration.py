"""The Dagster definitions, and the release run end to end."""

import os
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final
from unittest.mock import ANY

import dagster as dg
import pytest
import yaml
from sqlalchemy import Engine, event, func, select
from sqlalchemy.pool import Pool

from buffer_pipeline.batch_size import BATCH_LIMIT
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.legacy import import_legacy
from buffer_pipeline.orchestration.definitions import build_defs, defs
from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.reconcile import INVARIANTS, reconcile
from buffer_pipeline.tables import batch, wallet
from buffer_pipeline_tests.builders import (
    DAY_7,
    PAYEE,
    books,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.runs import (
    JOB_NAME,
    delivered,
    failure_of,
    outcomes,
    release,
    reported,
)
from buffer_pipeline_tests.test_housekeeping import create_database, instance_on

EXPORT: Final = Path(__file__).parent / "legacy_export"
RELEASED: Final = dg.AssetKey("released_transactions")
BLOCKING_PASSED: Final = {
    "books_balance": True,
    "wallet_equals_its_transactions": True,
    "hold_settled_once": True,
    "earning_follows_its_batch": True,
}


@pytest.fixture
def waiting(engine: Engine, environment: None) -> int:
    """A hold of 1000.00 PHP that has been due for long."""
    del environment
    with engine.begin() as connection:
        return place_hold(connection)


# ---- definitions


def test_the_definitions_load_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code server comes up while the database is away."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")

    dg.Definitions.validate_loadable(build_defs())


def test_the_definitions_are_these() -> None:
    """What operators know by name does not change unseen."""
    repository = defs.get_repository_def()

    assets = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in node.parent_keys)
        for key, node in ((node.key, node) for node in repository.asset_graph.asset_nodes)
    }
    checks = {
        f"{key.asset_key.to_user_string()}:{key.name}": repository.asset_graph.get(key).blocking
        for key in repository.asset_graph.asset_check_keys
    }
    schedules = {
        schedule.name: (schedule.cron_schedule, schedule.execution_timezone, schedule.default_status.value)
        for schedule in repository.schedule_defs
    }
    sensors = {
        sensor.name: (sensor.default_status.value, sensor.minimum_interval_seconds)
        for sensor in repository.sensor_defs
    }

    assert assets == {
        "platform_events": [],
        "backjobs": ["platform_events"],
        "buffered_transactions": ["platform_events"],
        "frozen_payments": ["backjobs", "buffered_transactions"],
        "released_transactions": ["buffered_transactions"],
        "release_notifications": ["released_transactions"],
        "release_counts": ["release_notifications", "released_transactions"],
        "sealed_history": ["released_transactions"],
        "hourly_release_counts": ["buffered_transactions", "frozen_payments", "released_transactions"],
        "daily_release_report": ["buffered_transactions", "frozen_payments", "hourly_release_counts"],
        "books": ["frozen_payments", "hourly_release_counts", "released_transactions", "sealed_history"],
    }
    assert checks == {
        "released_transactions:books_balance": True,
        "released_transactions:wallet_equals_its_transactions": True,
        "released_transactions:hold_settled_once": True,
        "released_transactions:earning_follows_its_batch": True,
        **{f"books:{invariant}": False for invariant in INVARIANTS},
        "books:counts_equal_transactions": False,
        "books:history_as_sealed": False,
        "buffered_transactions:nothing_overdue": False,
        "frozen_payments:no_payment_stuck": False,
        "hourly_release_counts:counts_equal_transactions": False,
    }
    assert {name for name in repository.job_names if not name.startswith("__")} == {
        "release_pending_payments",
        "count_hours",
        "report_days",
        "reconcile_books",
        "prune_runs",
        "deliver_notifications",
        "replay_dead_letters",
    }
    assert schedules == {
        "hourly_release": ("0 * * * *", "UTC", "RUNNING"),
        "hourly_counts": ("10 * * * *", "UTC", "RUNNING"),
        "daily_report": ("20 * * * *", "UTC", "RUNNING"),
        "daily_reconciliation": ("40 2 * * *", "UTC", "RUNNING"),
        "daily_prune": ("30 3 * * *", "UTC", "RUNNING"),
    }
    assert sensors == {
        "stuck_frozen_payments": ("RUNNING", 300),
        "overdue_releases": ("RUNNING", 300),
        "failed_runs": ("RUNNING", 30),
        "failed_checks": ("RUNNING", 30),
        "waiting_notifications": ("RUNNING", 15),
    }


def test_every_asset_says_what_it_is() -> None:
    """Each has a description, an owner, kinds, a group, tags, a code version and its columns."""
    for node in defs.resolve_asset_graph().asset_nodes:
        assert len(node.description or "") > 60, node.key
        assert node.owners, node.key
        assert node.kinds, node.key
        assert node.group_name == "payment_buffer", node.key
        assert node.tags["domain"] == "payments", node.key
        assert node.code_version, node.key
        columns = node.metadata["dagster/column_schema"]
        assert isinstance(columns, dg.TableSchema)
        assert columns.columns, node.key


def test_minor_units_are_said_to_be_minor_units() -> None:
    """A table in the UI shows amounts as people write them; a column of the books says what it is in."""
    rows = [
        {"hold_id": 1, "amount_minor": 100_050, "currency": "PHP", "refunded_minor": None},
        {"hold_id": 2, "amount_minor": Decimal(700), "currency": "JPY", "refunded_minor": 0},
    ]
    places = {"PHP": 2, "JPY": 0}
    without = [{"owner": "worker-17", "balance_minor": 7}, {"balance_minor": 7, "currency": "XX"}]

    shown = [dict(record.data) for record in table_metadata("rows", rows, places)["rows"].records]
    unknown = [
        dict(record.data)
        for row in without
        for record in table_metadata("rows", [row], places)["rows"].records
    ]

    assert shown == [
        {"hold_id": 1, "amount": "1000.50", "currency": "PHP", "refunded": ""},
        {"hold_id": 2, "amount": "700", "currency": "JPY", "refunded": "0"},
    ]
    assert unknown == without
    for node in defs.resolve_asset_graph().asset_nodes:
        for column in node.metadata["dagster/column_schema"].columns:
            assert not column.name.endswith("_minor") or "minor unit" in (column.description or ""), (
                column.name
            )


def test_whatever_can_be_launched_says_whether_it_moves_money() -> None:
    """Money is moved by one asset and one job; each of the others says that it moves none."""
    assets = {
        node.key.to_user_string(): node.description or ""
        for node in defs.resolve_asset_graph().asset_nodes
        if node.is_materializable
    }
    jobs = {
        job.name: job.description or ""
        for job in defs.resolve_all_job_defs()
        if not job.name.startswith("__")
    }

    told = assets | jobs
    assert {
        name for name, text in told.items() if re.search(r"\b[Mm](oves|aterializing .* moves) money", text)
    } == {
        "released_transactions",
        JOB_NAME,
    }
    assert [
        name for name, text in told.items() if not re.search(r"[Mm]oves? (no )?money|no money moves", text)
    ] == []


def test_every_column_comes_from_columns_that_are_there() -> None:
    """Column lineage names columns of the asset itself and of assets that it depends on; so from the
    report each amount leads back to the platform's event.
    """
    graph = defs.resolve_asset_graph()
    columns = {}
    origins: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for node in graph.asset_nodes:
        schema = node.metadata["dagster/column_schema"]
        lineage = node.metadata["dagster/column_lineage"]
        assert isinstance(schema, dg.TableSchema)
        assert isinstance(lineage, dg.TableColumnLineage)
        columns[node.key] = {column.name for column in schema.columns}
        for column, sources in lineage.deps_by_column.items():
            assert column in columns[node.key], (node.key, column)
            for source in sources:
                # A parent, or a parent's own: what a release counts reaches the hold through its hour.
                assert source.asset_key in graph.get_ancestor_asset_keys(node.key), (node.key, source)
                origins.setdefault((node.key.to_user_string(), column), set()).add(
                    (source.asset_key.to_user_string(), source.column_name)
                )
    for key, column in {source for sources in origins.values() for source in sources}:
        assert column in columns[dg.AssetKey(key)], (key, column)

    reached, waiting = set(), [("daily_release_report", "day")]
    while waiting:
        column_of = waiting.pop()
        reached.add(column_of)
        waiting += origins.get(column_of, set()) - reached
    assert ("platform_events", "amount") in reached
    assert ("platform_events", "held_at") in reached


def test_the_job_is_one_process_one_at_a_time_and_retried_whole() -> None:
    """A release run is quick to start, queues behind another, and is retried from its first op."""
    job = defs.resolve_job_def(JOB_NAME)

    assert job.executor_def is dg.in_process_executor
    assert job.run_tags["buffer/release"] == "1"
    assert job.run_tags["dagster/retry_strategy"] == "ALL_STEPS"
    graph = job.get_node_named("released_transactions").definition
    assert isinstance(graph, dg.GraphDefinition)
    assert {node.name for node in graph.nodes} == {"apply_credits", "select_matured_transactions"}
    assert job.has_node_named("emit_notifications")
    credits_op = graph.node_named("apply_credits").definition
    assert isinstance(credits_op, dg.OpDefinition)
    assert credits_op.pool == "release"


def test_the_instance_lets_one_release_run() -> None:
    """A limit by the job's tag, and one by the op's pool for what is launched without it."""
    settings = yaml.safe_load((Path(__file__).parents[1] / "dagster.yaml").read_text(encoding="utf-8"))

    concurrency = settings["concurrency"]
    assert {"key": "buffer/release", "value": "1", "limit": 1} in concurrency["runs"][
        "tag_concurrency_limits"
    ]
    assert concurrency["pools"] == {"default_limit": 1, "granularity": "run"}
    assert settings["run_monitoring"]["enabled"]
    assert settings["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }


# ---- the run


def test_a_run_releases_what_is_due_and_tells_the_payee(
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
    """An operator sees the cut-off, the holds, the amounts and the oldest release date."""
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
    """Zero is a count, of each currency too, so a gap in the plot means that no run came this far."""
    result = release(instance)

    assert reported(result, "released_transactions")["holds_released"] == 0
    counts = reported(result, "release_counts")
    figures = ("holds_released", "batches", "lateness_median_seconds", "lateness_max_seconds", "still_due")
    assert {counts[figure] for figure in figures} == {0}
    assert counts["seconds"] >= 0


def test_a_second_run_pays_nothing_twice(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """A repeated run finds the payment released."""
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
    """Several workers release the same as one, and the run adds up what they did."""
    del waiting
    with engine.begin() as connection:
        for number in range(8):
            place_hold(connection, payee=f"worker-{number}")

    result = release(instance, workers=3)

    released = reported(result, "released_transactions")
    assert (released["holds_released"], released["amounts"], released["still_due"]) == (9, "9000.00 PHP", 0)
    assert outcomes(result) == BLOCKING_PASSED


def test_a_dry_run_changes_nothing(waiting: int, engine: Engine, instance: dg.DagsterInstance) -> None:
    """A dry run observes what a real one would release: no money moves, nothing is materialized."""
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


def test_notifications_alone_are_those_of_no_run(
    waiting: int, engine: Engine, instance: dg.DagsterInstance
) -> None:
    """What waits can be delivered by itself, also when the latest release was a dry run."""
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
    """The step's stderr has a line a notification, with its id and its hold."""
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
    """A cut-off without a zone, or one that has not come yet, writes nothing and is not retried."""
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
    """A moment before the release date releases nothing, the release date itself does."""
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
    """On the Django application's own export each cut-off releases what its README says was due."""
    with engine.begin() as connection:
        import_legacy(connection, EXPORT, now=NOON)

    first = release(instance, as_of="2026-11-18T23:35:00Z")
    second = release(instance, as_of="2026-11-22T00:00:00Z")
    again = release(instance, as_of="2026-11-22T00:00:00Z")

    assert [reported(run, "release_counts")["holds_released"] for run in (first, second, again)] == [4, 26, 0]
    amounts = [reported(run, "release_counts")["amounts"] for run in (first, second, again)]
    # 33,165.67 were due at the first cut-off, 208,818.09 at the second, the first's included.
    assert amounts == ["33165.67 PHP", "175652.42 PHP", "none"]
    assert [outcomes(run) for run in (first, second)] == [BLOCKING_PASSED] * 2
    with engine.connect() as connection:
        total = connection.scalar(select(func.sum(wallet.c.balance_minor + wallet.c.pending_earnings_minor)))
        assert total == 5_000_000_00
        assert reconcile(connection) == []
        # One notification for each release and none for the import.
        assert delivered(connection) == (30, 30)


def test_a_run_keeps_its_connections_to_dagsters_storage(waiting: int, server: EmbeddedServer) -> None:
    """A run opens a few connections, where one for each event and each question would be over a hundred."""
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


# ---- the schedule


def test_the_schedule_asks_for_a_run_on_the_hour(lasting_instance: dg.DagsterInstance) -> None:
    """A tick asks for one run with the job's defaults."""
    schedule = defs.resolve_schedule_def("hourly_release")

    tick = schedule.evaluate_tick(
        dg.build_schedule_context(instance=lasting_instance, scheduled_execution_time=NOON)
    )

    assert tick.run_requests is not None
    assert len(tick.run_requests) == 1
    assert tick.run_requests[0].run_config == {}
    assert schedule.job_name == JOB_NAME


def test_the_defaults_are_a_real_run_of_all_that_is_due() -> None:
    """What the schedule launches releases up to the clock, in full batches, for real."""
    config = defs.resolve_job_def(JOB_NAME).run_config_schema
    op = config.config_type.fields["ops"].config_type.fields["released_transactions"]  # type: ignore[attr-defined]
    select_op = op.config_type.fields["ops"].config_type.fields["select_matured_transactions"]

    fields = select_op.config_type.fields["config"].config_type.fields

    assert fields["batch_limit"].default_value == BATCH_LIMIT
    assert fields["workers"].default_value == 1
    assert fields["dry_run"].default_value is False
    assert not fields["as_of"].is_required
    assert all(field.description for field in fields.values())
