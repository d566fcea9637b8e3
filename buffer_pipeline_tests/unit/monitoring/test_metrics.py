"""The Prometheus endpoint: a real process, scraped over HTTP, whose figures match the books."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import promql_parser
import psycopg
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, fetch, statement_text
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.intake import add_many_pending_earnings
from buffer_pipeline.monitoring.metrics import LATENESS_BOUNDS_SECONDS, BooksCollector
from buffer_pipeline.notifications.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.policy import Policy
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline.reports.released import released_from
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.tables import transaction
from buffer_pipeline_tests.support.builders import WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.databases import Books, fresh_books
from buffer_pipeline_tests.support.metrics import endpoint, figures_of, series
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.plans import HOLDS, earnings
from buffer_pipeline_tests.support.releases import early
from buffer_pipeline_tests.support.runs import corrupt, release

DEPLOY: Final = ROOT / "deploy"


def a_busy_day(engine: Engine, *, now: datetime) -> None:
    """Add, freeze, refund and release holds, so that each metric has something to count."""
    long_ago = now - timedelta(days=6)
    with engine.begin() as connection:
        for days, currency in [(1, "PHP"), (2, "PHP"), (3, "JPY")]:
            due_at = now - timedelta(days=days)
            place_hold(connection, amount="1000", currency=currency, held_at=long_ago, release_date=due_at)
        place_hold(connection, state=HoldState.RELEASED, job="job-9", held_at=now - timedelta(hours=5))
        place_hold(connection, state=HoldState.REFUNDED, job="job-10", held_at=now - timedelta(hours=4))
        place_hold(connection, state=HoldState.FROZEN, job="job-11", held_at=now - timedelta(hours=80))
    release_all_due(engine, due_by=now, source="test")
    with engine.begin() as connection:
        place_hold(connection, job="job-12", held_at=long_ago, release_date=now - 3 * HOUR, amount="250")
        place_hold(connection, job="job-13", held_at=long_ago, release_date=now, amount="7.50")
        partly = place_hold(connection, job="job-14", held_at=now)
        early(connection, hold_id=partly, amount="10", reference="part-1", now=now)


def clock(engine: Engine) -> datetime:
    """Return the database's clock."""
    with engine.connect() as connection:
        return database_clock(connection)


def lines_of(engine: Engine, kind: str, currency: str = "PHP") -> tuple[int, int]:
    """Return the number and sum of the transactions of a type in a currency."""
    with engine.connect() as connection:
        rows = connection.execute(
            transaction.select().where(transaction.c.type == kind, transaction.c.currency == currency)
        ).all()
    return len(rows), sum(row.amount_minor for row in rows)


def test_the_figures_are_those_of_the_books(engine: Engine, database_url: str) -> None:
    """Each figure matches the buffer and the transactions, with counted and uncounted hours."""
    now = clock(engine)
    a_busy_day(engine, now=now)

    with endpoint(database_url) as scrape:
        first = scrape()
        began = hour_of(now - timedelta(days=6))
        count_hours(engine, start=began, end=hour_of(now), counted_by="test")
        counted = scrape()
        release_all_due(engine, due_by=now, source="test")
        released = scrape()

    added, refunds = lines_of(engine, "PENDING_EARNING"), lines_of(engine, "REFUND")
    for found in (first, counted):
        assert found[series("buffer_up")] == 1
        assert found[series("buffer_holds", state="BUFFERED", currency="PHP")] == 3
        assert found[series("buffer_held_amount_minor", state="BUFFERED", currency="PHP")] == 124_750
        assert found[series("buffer_holds", state="FROZEN", currency="PHP")] == 1
        assert found[series("buffer_due_holds", currency="PHP")] == 2
        assert found[series("buffer_due_amount_minor", currency="PHP")] == 25_750
        assert found[series("buffer_overdue_holds", currency="PHP")] == 1
        assert 3 * 3600 <= found[series("buffer_oldest_due_age_seconds")] <= 3 * 3600 + 120
        assert found[series("buffer_stuck_holds")] == 1
        assert found[series("buffer_holds_added_total", currency="PHP")] == added[0] == 8
        assert found[series("buffer_added_amount_minor_total", currency="PHP")] == added[1]
        assert found[series("buffer_holds_released_total", currency="PHP", early="no")] == 2
        assert found[series("buffer_holds_released_total", currency="PHP", early="yes")] == 1
        assert found[series("buffer_holds_released_total", currency="JPY", early="no")] == 1
        assert found[series("buffer_released_amount_minor_total", currency="PHP")] == 301_000
        assert found[series("buffer_parts_released_total", currency="PHP")] == 1
        assert found[series("buffer_refunds_total", currency="PHP")] == refunds[0] == 1
        assert found[series("buffer_refunded_amount_minor_total", currency="PHP")] == refunds[1]
    assert counted[series("buffer_uncounted_hours")] == 0 < first[series("buffer_uncounted_hours")]
    assert released[series("buffer_due_holds", currency="PHP")] == 0
    assert released[series("buffer_oldest_due_age_seconds")] == 0
    assert released[series("buffer_holds_released_total", currency="PHP", early="no")] == 4
    assert released[series("buffer_released_amount_minor_total", currency="PHP")] == 326_750
    assert (
        released[series("buffer_released_amount_minor_total", currency="PHP")]
        == lines_of(engine, "EARNING")[1] + lines_of(engine, "EARNING_PART")[1]
    )
    with engine.connect() as connection:
        (late, _), newest = (
            released_from(connection, source="test", since=now),
            connection.scalar(text("SELECT max(recorded_at) FROM buffer.batch WHERE kind = 'DUE'")),
        )
    assert released[series("buffer_last_release_timestamp_seconds")] == pytest.approx(newest.timestamp())
    buckets = [
        released[series("buffer_release_lateness_seconds_bucket", le=f"{bound:.1f}")]
        for bound in LATENESS_BOUNDS_SECONDS
    ]
    # Three were due for days, one for three hours, one not at all.
    assert buckets == [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    assert released[series("buffer_release_lateness_seconds_gcount")] == 5
    assert late.max_seconds is not None
    assert late.max_seconds < released[series("buffer_release_lateness_seconds_gsum")]


def test_buffered_amounts_have_the_kind_of_share(engine: Engine) -> None:
    """The outstanding reserve is its own figure. Each kind has one in each currency."""
    with engine.begin() as connection:
        place_hold(connection, shares=WITH_A_FEE)
        place_hold(connection, shares=WITH_A_FEE, state=HoldState.FROZEN, job="job-9")
        place_hold(connection, currency="JPY", amount="700", job="job-10")
    registry = CollectorRegistry()
    registry.register(BooksCollector(engine, policy=Policy(), endpoints=[]))

    found = figures_of(generate_latest(registry).decode())

    name = "buffer_held_share_amount_minor"
    assert {labels: value for (metric, labels), value in found.items() if metric == name} == {
        series(name, kind=kind, currency=currency)[1]: amount
        for currency, amounts in {"PHP": (156_000, 24_000, 0, 20_000), "JPY": (700, 0, 0, 0)}.items()
        for kind, amount in zip(ShareKind, amounts, strict=True)
    }
    assert found[series("buffer_held_amount_minor", state="FROZEN", currency="PHP")] == 100_000
    assert found[series("buffer_holds", state="BUFFERED", currency="PHP")] == 3


def test_long_uncounted_period_leaves_movement_figures_out(engine: Engine, database_url: str) -> None:
    """Rather than being wrong or slow. The number of uncounted hours shows why."""
    with engine.begin() as connection:
        place_hold(connection, held_at=clock(engine) - timedelta(days=8))

    with endpoint(database_url) as scrape:
        found = scrape()

    assert found[series("buffer_uncounted_hours")] == 8 * 24
    assert found[series("buffer_due_holds", currency="PHP")] == 1
    assert not any(name.startswith("buffer_holds_added") for name, _ in found)


def test_outbox_metrics_count_waiting_and_dead_deliveries(engine: Engine, database_url: str) -> None:
    """By endpoint, with the age of the oldest, and zeros for an empty endpoint."""
    now = clock(engine)
    with engine.begin() as connection:
        place_hold(connection, held_at=now - timedelta(minutes=40))
    settings = {
        "BUFFER_ENDPOINTS": '[{"name": "inbox", "channel": "inbox"}, {"name": "log", "channel": "log"}]'
    }

    with endpoint(database_url, **settings) as scrape:
        undispatched = scrape()
        with engine.begin() as connection:
            dispatch(connection, [Route(name="inbox")], batch_limit=10, now=now)
        waiting = scrape()
        with engine.begin() as connection:
            claimed = claim(
                connection, endpoint="inbox", owners_limit=1, per_owner_limit=9, lease_seconds=60, now=now
            )
            given_up = [Settlement(claimed=each, outcome=Outcome.DEAD, reason="gone") for each in claimed]
            settle(connection, given_up, now=now)
        dead = scrape()

    assert undispatched[series("buffer_outbox_undispatched")] == 1
    assert 2400 <= undispatched[series("buffer_outbox_oldest_age_seconds")] <= 2500
    assert waiting[series("buffer_outbox_undispatched")] == 0
    assert waiting[series("buffer_outbox_waiting", endpoint="inbox")] == 1
    assert waiting[series("buffer_outbox_waiting", endpoint="log")] == 0
    assert waiting[series("buffer_outbox_dead_letters", endpoint="inbox")] == 0
    assert dead[series("buffer_outbox_waiting", endpoint="inbox")] == 0
    assert dead[series("buffer_outbox_dead_letters", endpoint="inbox")] == 1
    assert dead[series("buffer_outbox_oldest_age_seconds")] == 0


def test_unreachable_books_are_a_metric(server: EmbeddedServer) -> None:
    """The endpoint starts without the books, reports that they are down, and finds them later."""
    name = f"books_{os.urandom(6).hex()}"
    url = server.url(name).render_as_string(hide_password=False)

    with endpoint(url, BUFFER_DAGSTER_DATABASE_URL=url) as scrape:
        before = scrape()
        with psycopg.connect(superuser(server), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE buffer OWNER buffer")
        there = scrape()
        with psycopg.connect(superuser(server), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        after = scrape()

    away = {series("buffer_up"): 0, series("buffer_dagster_up"): 0}
    assert before == after == away
    assert there[series("buffer_up")] == 1


def superuser(server: EmbeddedServer) -> str:
    """Return the superuser's URL for psycopg."""
    return server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string()


@pytest.mark.parametrize("role", ["releaser", "reader"])
def test_a_releaser_sees_everything_and_a_reader_all_but_the_outbox(roles: Books, role: str) -> None:
    """Serving metrics needs no more rights, on the oldest and the newest server."""
    with roles.owner.begin() as connection:
        place_hold(connection)
    registry = CollectorRegistry()
    registry.register(BooksCollector(roles.of(role), policy=Policy(), endpoints=[]))

    found = figures_of(generate_latest(registry).decode())

    assert found[series("buffer_up")] == 1
    assert found[series("buffer_due_holds", currency="PHP")] == 1
    assert (series("buffer_outbox_undispatched") in found) == (role == "releaser")


def test_every_metric_that_a_rule_or_a_panel_names_exists(
    engine: Engine,
    database_url: str,
    superuser_url: str,
    server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alert rules and dashboard use metrics of a scrape."""
    now = clock(engine)
    a_busy_day(engine, now=now)
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)

    with (
        fresh_books(server, "template1") as storage,
        endpoint(database_url, BUFFER_DAGSTER_DATABASE_URL=storage) as scrape,
    ):
        postgres = {"postgres_url": storage.replace("+psycopg:", "+psycopg2:")}
        with dg.instance_for_test({"storage": {"postgres": postgres}}) as instance:
            unknown = scrape()
            release(instance)
            sound = scrape()
            corrupt(superuser_url, "UPDATE buffer.wallet SET balance_minor = balance_minor + 1")
            nightly = defs.resolve_job_def("reconcile_books")
            nightly.execute_in_process(instance=instance, raise_on_error=False)
            broken = scrape()

    names = {name for name, _ in sound} | {"up"}
    for file, expressions in {"alerts.yml": rules(), "dashboard.json": panels()}.items():
        requested = set().union(*map(metrics_in, expressions))
        assert len(requested) > 10, file
        assert requested - names == set(), file
    last, wallets = (
        series("buffer_last_success_timestamp_seconds"),
        series("buffer_check_passed", check="wallet_equals_its_transactions"),
    )
    assert unknown[series("buffer_dagster_up")] == 1
    assert last not in unknown
    assert now.timestamp() < sound[last] < clock_seconds()
    # The nightly proof is no release.
    assert broken[last] == sound[last]
    assert (sound[wallets], broken[wallets]) == (1, 0)
    assert sound[series("buffer_check_passed", check="books_balance")] == 1


def test_every_alert_fires_in_the_promtool_tests() -> None:
    """What `promtool test rules` runs has each alert fire."""
    page = (DEPLOY / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")

    assert [name for name in alerts() if name not in page] == []
    assert len(alerts()) > 10


def alerts() -> list[str]:
    """Return the alerts' names."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def clock_seconds() -> float:
    """Return the time."""
    return datetime.now(UTC).timestamp()


def rules() -> list[str]:
    """Return the alerts' expressions."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panels() -> list[str]:
    """Return the panels' expressions."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def metrics_in(expression: str) -> set[str]:
    """Return the metric names in a PromQL expression."""
    names: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(str(node.name))
        if isinstance(node, promql_parser.MatrixSelector):
            names.add(str(node.vector_selector.name))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names


def test_the_history_is_read_by_its_block_ranges(engine: Engine) -> None:
    """The block-range index on time finds the lines of some hours, however long the history is."""
    now = clock(engine)
    with engine.begin() as connection:
        for number in range(4):
            add_many_pending_earnings(connection, earnings(number * HOLDS), now=now - timedelta(days=9))
    yesterday = now - timedelta(days=1)
    release_all_due(engine, due_by=yesterday, source="test", clock=lambda _: yesterday)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE buffer.transaction"))

    requested: dict[str, dict[str, object]] = {
        "metrics/lateness": {"since": now, "bounds_seconds": [60.0]},
        "metrics/moved": {"hours": [hour_of(now)]},
    }
    with engine.begin() as connection:
        fetch(connection, "database/read_by_index")
        plans = {
            name: json.dumps(
                connection.execute(
                    text(f"EXPLAIN (FORMAT JSON) {statement_text(name)}"), parameters
                ).scalar_one()
            )
            for name, parameters in requested.items()
        }

    assert {name: "transaction_recorded_brin" in plan for name, plan in plans.items()} == dict.fromkeys(
        plans, True
    )
