"""The Dagster definitions and the schedule of the release."""

import re
import subprocess
import sys
from decimal import Decimal

import dagster as dg
import pytest
import yaml

from buffer_pipeline.audit.reconcile import INVARIANTS
from buffer_pipeline.orchestration.definitions import build_defs, defs
from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.release_run.batch_size import BATCH_LIMIT
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.runs import JOB_NAME

# ---- definitions


def test_the_definitions_load_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code server starts while the database is down."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")

    dg.Definitions.validate_loadable(build_defs())


def test_loading_the_definitions_loads_nothing_heavy() -> None:
    """Each process of Dagster's loads them, and only the runs that count or report need pandas."""
    heavy = ("pandas", "numpy", "pygal", "aiohttp", "apprise", "lxml")
    code = (
        "import sys, buffer_pipeline.orchestration.definitions;"
        f" print([name for name in {heavy} if name in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "[]\n"


def test_names_of_the_definitions() -> None:
    """Names that operators know do not change unnoticed."""
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
        "hold_rules": [],
        "buffered_transactions": ["hold_rules", "platform_events"],
        "frozen_payments": ["backjobs", "buffered_transactions"],
        "released_transactions": ["buffered_transactions"],
        "release_notifications": ["released_transactions"],
        "release_counts": ["release_notifications", "released_transactions"],
        "sealed_history": ["released_transactions"],
        "hourly_release_counts": ["buffered_transactions", "frozen_payments", "released_transactions"],
        "daily_release_report": ["buffered_transactions", "frozen_payments", "hourly_release_counts"],
        "debts": ["released_transactions"],
        "payout_batches": ["released_transactions"],
        "books": [
            "debts",
            "frozen_payments",
            "hourly_release_counts",
            "payout_batches",
            "released_transactions",
            "sealed_history",
        ],
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
        "debts:debt_equals_its_transactions": False,
        "debts:wallet_names_its_debts": False,
        "debts:receivable_equals_debts_to_banks": False,
        "payout_batches:transit_equals_open_payouts": False,
        "payout_batches:payout_equals_its_transactions": False,
        "payout_batches:payout_batch_equals_its_payouts": False,
        "payout_batches:no_payout_stuck": False,
    }
    assert {name for name in repository.job_names if not name.startswith("__")} == {
        "release_pending_payments",
        "count_hours",
        "report_days",
        "reconcile_books",
        "make_payout_batches",
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
        # It moves money out, so somebody has to turn it on.
        "daily_payouts": ("0 6 * * *", "UTC", "STOPPED"),
    }
    assert sensors == {
        "stuck_frozen_payments": ("RUNNING", 300),
        "overdue_releases": ("RUNNING", 300),
        "stuck_payouts": ("RUNNING", 300),
        "failed_runs": ("RUNNING", 30),
        "failed_checks": ("RUNNING", 30),
        "waiting_notifications": ("RUNNING", 15),
    }


def test_every_asset_is_described() -> None:
    """With a description, an owner, kinds, a group, tags, a code version and its columns."""
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


def test_columns_in_minor_units_say_so() -> None:
    """A table in the UI shows amounts in major units."""
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


def test_every_launchable_says_if_it_moves_money() -> None:
    """A release and the payouts of a day move money; all others say that they do not."""
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

    described = assets | jobs
    assert {
        name
        for name, text in described.items()
        if re.search(r"\b[Mm](oves|aterializing .* moves) money", text)
    } == {
        "released_transactions",
        JOB_NAME,
        "payout_batches",
        "make_payout_batches",
    }
    assert [
        name
        for name, text in described.items()
        if not re.search(r"[Mm]oves? (no )?money|no money moves", text)
    ] == []


def test_column_lineage_names_existing_columns() -> None:
    """Of the asset and its dependencies, so each amount of the report leads back to the platform's event."""
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
                # A parent, or a parent's parent: a release's counts reach the hold through its hour.
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
    assert ("hold_rules", "fee_percent") in reached
    assert ("hold_rules", "rule_id") in {source for sources in origins.values() for source in sources}


def test_release_job_runs_in_one_process_and_is_retried_whole() -> None:
    """It queues behind another run and is retried from its first op."""
    job = defs.resolve_job_def(JOB_NAME)

    assert job.executor_def is dg.in_process_executor
    assert job.run_tags["buffer/release"] == "1"
    assert job.run_tags["dagster/retry_strategy"] == "ALL_STEPS"
    graph = job.get_node_named("released_transactions").definition
    assert isinstance(graph, dg.GraphDefinition)
    assert {node.name for node in graph.nodes} == {"apply_credits", "select_matured_transactions"}
    assert job.has_node_named("emit_notifications")
    counts = job.get_node_named("release_counts").definition
    assert isinstance(counts, dg.GraphDefinition)
    assert {node.name for node in counts.nodes} == {"send_heartbeat", "report_counts"}
    credits_op = graph.node_named("apply_credits").definition
    assert isinstance(credits_op, dg.OpDefinition)
    assert credits_op.pool == "release"


def test_instance_runs_one_release_at_a_time() -> None:
    """Limited by the job's tag, and by the op's pool for launches without it."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))

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


# ---- the schedule


def test_schedule_requests_a_run_on_the_hour(lasting_instance: dg.DagsterInstance) -> None:
    """One run per tick, with the job's defaults."""
    schedule = defs.resolve_schedule_def("hourly_release")

    tick = schedule.evaluate_tick(
        dg.build_schedule_context(instance=lasting_instance, scheduled_execution_time=NOON)
    )

    assert tick.run_requests is not None
    assert len(tick.run_requests) == 1
    assert tick.run_requests[0].run_config == {}
    assert schedule.job_name == JOB_NAME


def test_default_run_releases_everything_due() -> None:
    """Up to the clock, in full batches, not dry."""
    config = defs.resolve_job_def(JOB_NAME).run_config_schema
    op = config.config_type.fields["ops"].config_type.fields["released_transactions"]  # type: ignore[attr-defined]
    select_op = op.config_type.fields["ops"].config_type.fields["select_matured_transactions"]

    fields = select_op.config_type.fields["config"].config_type.fields

    assert fields["batch_limit"].default_value == BATCH_LIMIT
    assert fields["workers"].default_value == 1
    assert fields["dry_run"].default_value is False
    assert not fields["as_of"].is_required
    assert all(field.description for field in fields.values())
