"""No hot statement reads a large table from end to end, on the oldest version served and on the newest.

The verbs run for real, on books where that would be wrong, and the server tells the plan of each statement
that it ran for them, those of triggers and foreign keys included.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, text

from buffer_pipeline import reports
from buffer_pipeline.alerts import untold_stuck_payments
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.counts import compute_counts, first_hour
from buffer_pipeline.database import fetch, make_engine
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.outbox import (
    Outcome,
    Route,
    Settlement,
    claim,
    delivery_figures,
    dispatch,
    list_deliveries,
    list_undispatched,
    replay,
    settle,
    to_send,
)
from buffer_pipeline.release import (
    ReleasePosition,
    Shard,
    Stretch,
    milestones,
    part_wallets,
    release_early,
    release_matured,
    release_stretch,
)
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.conftest import NOON, fresh_books

SETTLED: Final = 30_000
DUE: Final = 6_000
WAITING: Final = 50_000
LAST: Final = SETTLED + DUE + WAITING
WALLETS: Final = 60_000
BACKJOBS: Final = 4_000
"""As many admin freezes stand beside them; of both, the last 200 are open."""

LARGE: Final = {
    "hold",
    "job",
    "unsettled_hold",
    "transaction",
    "notification",
    "delivery",
    "wallet",
    "hold_freeze",
    "backjob",
}

MAY_BE_READ: Final = {
    # A tenth of what waits and of the wallets: to read all of them once is as cheap as to look each up.
    "release 5,000": {"unsettled_hold", "wallet"},
    # As many freezes as there are here lie within a few ranges of their block-range index.
    "count an hour": {"hold_freeze"},
    "first hour": {"hold_freeze"},
}

# What was held and is settled, over the 40 days before NOON.
_HISTORY: Final = f"""
INSERT INTO buffer.currency (currency, places) VALUES ('PHP', 2);
INSERT INTO buffer.wallet (owner, currency, balance_minor, pending_earnings_minor)
SELECT 'owner-' || number, 'PHP', 1000000000, 1000000000 FROM generate_series(1, {WALLETS}) AS number;
INSERT INTO buffer.hold (
  reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at,
  original_release_date
)
SELECT
  'earning-' || number, 'job-' || number, 'Fix kitchen faucet',
  1 + number * 7919 % {WALLETS}, 1 + (number * 7919 + 1) % {WALLETS}, 'PHP', 10000,
  due.release_date - interval '7 days', due.release_date
FROM generate_series(1, {LAST}) AS number
CROSS JOIN LATERAL (
  SELECT timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' + interval '1 minute' * CASE
    WHEN number <= {SETTLED} THEN (number - {SETTLED}) * 60 * 24 * 40.0 / {SETTLED} - 60
    WHEN number <= {SETTLED + DUE} THEN -59.0 * (number % 100) / 100
    ELSE 1 + (number - {SETTLED + DUE}) * 60 * 24 * 6.0 / {WAITING}
  END AS release_date
) AS due
ORDER BY number;
INSERT INTO buffer.job (job, payer)
SELECT job, owner FROM buffer.hold INNER JOIN buffer.wallet ON wallet_id = payer_wallet_id ORDER BY hold_id;
INSERT INTO buffer.batch (kind, source, due_by, recorded_at)
SELECT 'DUE', 'test', moment, moment FROM (
  SELECT DISTINCT date_trunc('hour', original_release_date) + interval '1 hour' AS moment
  FROM buffer.hold WHERE hold_id <= {SETTLED}
) AS hour ORDER BY moment;
INSERT INTO buffer.transaction (
  type, from_account, to_account, from_wallet_id, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, recorded_at, release_date
)
SELECT * FROM (
  SELECT 'PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS', CAST(NULL AS bigint), payee_wallet_id, currency,
    amount_minor, CAST(NULL AS bigint), hold_id, CAST(NULL AS bigint), held_at AS moment,
    CAST(NULL AS timestamptz)
  FROM buffer.hold
  UNION ALL
  SELECT 'EARNING', 'PENDING_EARNINGS', 'BALANCE', payee_wallet_id, payee_wallet_id, currency, amount_minor,
    amount_minor, hold_id, batch_id, batch.recorded_at, original_release_date
  FROM buffer.hold
  INNER JOIN buffer.batch ON date_trunc('hour', original_release_date) + interval '1 hour' = batch.recorded_at
  WHERE hold_id <= {SETTLED}
) AS line ORDER BY moment, hold_id;
INSERT INTO buffer.notification (
  type, owner, hold_id, currency, amount_minor, created_at, dispatched_at
)
SELECT 'PAYMENT_PENDING', owner, hold_id, 'PHP', amount_minor, held_at, held_at
FROM buffer.hold INNER JOIN buffer.wallet ON wallet_id = payee_wallet_id ORDER BY hold_id;
INSERT INTO buffer.delivery (
  notification_id, endpoint, owner, created_at, next_attempt_at, state, attempts, first_attempt_at, settled_at
)
SELECT notification_id, 'app', owner, created_at, created_at, 'DELIVERED', 1, created_at, created_at
FROM buffer.notification ORDER BY notification_id;
INSERT INTO buffer.backjob (
  job, requested_by, reason, requested_at, state, decided_by, decision_reason, decided_at
)
SELECT job, 'client-1', 'it leaks', held_at, 'REJECTED', 'admin-1', 'it does not', held_at
FROM buffer.hold WHERE hold_id <= {BACKJOBS} ORDER BY hold_id;
INSERT INTO buffer.hold_freeze (
  hold_id, kind, backjob_id, opened_by, reason, opened_at, closed_by, closing_reason, closed_at
)
SELECT hold_id, kind, CASE WHEN kind = 'BACKJOB' THEN backjob_id END, 'admin-1', 'a look', requested_at,
  'admin-1', 'all is well', requested_at
FROM buffer.backjob INNER JOIN buffer.hold ON backjob.job = hold.job
CROSS JOIN unnest(ARRAY['BACKJOB', 'ADMIN']) AS given (kind)
ORDER BY backjob_id
"""

_UNSETTLED: Final = f"""
INSERT INTO buffer.unsettled_hold (hold_id, state, payee_wallet_id, currency, amount_minor, release_date)
SELECT hold_id, CASE WHEN hold_id > {LAST - 400} THEN 'FROZEN' ELSE 'BUFFERED' END,
  payee_wallet_id, currency, amount_minor, original_release_date
FROM buffer.hold WHERE hold_id > {SETTLED} ORDER BY hold_id
"""

# What is under way: open freezes, messages that wait, and some that were given up.
_UNDER_WAY: Final = f"""
INSERT INTO buffer.backjob (job, requested_by, reason, requested_at)
SELECT job, 'client-1', 'it leaks', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}'
FROM buffer.hold WHERE hold_id > {LAST - 200} ORDER BY hold_id;
UPDATE buffer.job SET open_backjob_id = backjob_id
FROM buffer.backjob WHERE backjob.job = job.job AND state = 'OPEN';
INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)
SELECT hold_id, 'BACKJOB', backjob_id, 'client-1', 'it leaks', requested_at
FROM buffer.backjob INNER JOIN buffer.hold ON backjob.job = hold.job
WHERE state = 'OPEN' ORDER BY backjob_id;
INSERT INTO buffer.hold_freeze (hold_id, kind, opened_by, reason, opened_at)
SELECT hold_id, 'ADMIN', 'admin-1', 'a look', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}'
FROM buffer.hold
WHERE hold_id > {LAST - 400} AND hold_id <= {LAST - 200} ORDER BY hold_id;
INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at, dispatched_at)
SELECT 'PAYMENT_RELEASED', 'owner-' || 1 + number % {WALLETS}, number, 'PHP', 10000,
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}',
  CASE WHEN number <= 5000 THEN timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' END
FROM generate_series(1, 10000) AS number;
INSERT INTO buffer.delivery (notification_id, endpoint, owner, created_at, next_attempt_at)
SELECT notification_id, 'app', owner, created_at, created_at
FROM buffer.notification
WHERE type = 'PAYMENT_RELEASED' AND dispatched_at IS NOT NULL ORDER BY notification_id;
INSERT INTO buffer.delivery (
  notification_id, endpoint, owner, created_at, next_attempt_at, state, attempts, first_attempt_at,
  settled_at, reason
)
SELECT notification_id, 'mail', owner, created_at, created_at, 'DEAD', 5, created_at, created_at, 'no answer'
FROM buffer.notification WHERE notification_id <= 100 ORDER BY notification_id
"""


def _run(url: str, *scripts: str) -> None:
    # Triggers and foreign keys are off, or each row would be looked at.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for script in scripts:
            for statement in script.split(";\n"):
                connection.execute(statement.encode())


@pytest.fixture(scope="module", params=["15", "18"])
def version(request: pytest.FixtureRequest) -> Any:
    """A server of each version: the newest with the settings for a solid-state disk that the embedded one
    has, the oldest with PostgreSQL's own, by which what is read here and there costs four times as much.
    """
    return request.getfixturevalue("server" if request.param == "18" else "server_15")


@pytest.fixture(scope="module", params=["current", "behind-a-drain"])
def books_url(request: pytest.FixtureRequest, version: Any) -> Iterator[str]:
    """Books of a size, with statistics that are true or that say that nothing waits; the superuser's URL."""
    with fresh_books(version) as owners_url:
        url = owners_url.replace("postgresql+psycopg://buffer@", "postgresql://postgres@")
        # What the planner believes is to stay as it is made here.
        _run(url, *(f"ALTER TABLE buffer.{table} SET (autovacuum_enabled = off)" for table in LARGE))
        if request.param == "current":
            _run(url, _HISTORY, _UNSETTLED, _UNDER_WAY, "VACUUM ANALYZE")
        else:
            _run(url, _HISTORY, _UNSETTLED, "DELETE FROM buffer.unsettled_hold", "ANALYZE")
            _run(url, _UNSETTLED, _UNDER_WAY)
        yield url


@pytest.fixture
def plans(books_url: str) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection to the books, rolled back at the end, and the plans of all that runs on it."""
    found: list[Any] = []
    engine = make_engine(books_url)
    with engine.connect() as connection:
        for statement in (
            "LOAD 'auto_explain'",
            "SET auto_explain.log_min_duration = 0",
            "SET auto_explain.log_nested_statements = on",
            "SET auto_explain.log_format = json",
            "SET auto_explain.log_level = notice",
            # From here on with the privileges that a platform has.
            "SET SESSION AUTHORIZATION buffer",
        ):
            connection.execute(text(statement))
        connection.commit()
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(
            lambda diagnostic: found.append(json.loads(diagnostic.message_primary.split("plan:\n", 1)[1]))
        )
        yield connection, found
        connection.rollback()
    engine.dispose()


def earnings(count: int) -> list[Earning]:
    """Return new earnings, half of them of new owners."""
    return [
        Earning(
            reference=f"new-{number}",
            job=f"new-job-{number}",
            payee=f"owner-{number}" if number % 2 else f"worker-{number}",
            payer=f"owner-{number + 1}",
            amount="10.00",
            currency="PHP",
        )
        for number in range(count)
    ]


SINCE: Final = NOON - timedelta(days=2)
ADMIN: Final[dict[str, Any]] = {"by": "admin-1", "reason": "a look", "now": NOON}


def _deliver(connection: Connection) -> None:
    claimed = claim(
        connection, endpoint="app", owners_limit=50, per_owner_limit=5, lease_seconds=60, now=NOON
    )
    assert claimed
    settle(connection, [Settlement(claimed=one, outcome=Outcome.DELIVERED) for one in claimed], now=NOON)


def _stretch(connection: Connection, holds: int) -> None:
    """Release as many holds as a run does, from its beginning up to a milestone."""
    through = milestones(
        connection,
        due_by=NOON,
        after=ReleasePosition(),
        every=holds,
        milestones_max=1,
        shard=Shard(),
        whole_hours=True,
    )[0]
    stretch = Stretch(after=ReleasePosition(), through=through, shard=Shard())
    batch = release_stretch(connection, stretch=stretch, now=NOON, due_by=NOON, source="test")
    assert batch.holds_released == holds


def _milestones(connection: Connection, *, shard: Shard, whole_hours: bool) -> None:
    assert milestones(
        connection,
        due_by=NOON,
        after=ReleasePosition(),
        every=10,
        milestones_max=20,
        shard=shard,
        whole_hours=whole_hours,
    )


HOT: Final[dict[str, Callable[[Connection], object]]] = {
    "release 1": lambda books: release_matured(books, now=NOON, batch_limit=1),
    "release 100": lambda books: release_matured(books, now=NOON, batch_limit=100),
    "release 5,000": lambda books: release_matured(books, now=NOON, batch_limit=5_000),
    "release a stretch of 100": lambda books: _stretch(books, 100),
    "release a stretch of 5,000": lambda books: _stretch(books, 5_000),
    "milestones": lambda books: _milestones(books, shard=Shard(), whole_hours=True),
    "milestones of a shard": lambda books: _milestones(
        books, shard=Shard(after=0, through=WALLETS // 20), whole_hours=True
    ),
    "milestones of this hour": lambda books: _milestones(books, shard=Shard(), whole_hours=False),
    "release early by id": lambda books: release_early(books, hold_id=LAST - 500, as_admin=True, **ADMIN),
    "release early by job": lambda books: release_early(
        books, job=f"job-{LAST - 500}", as_admin=True, **ADMIN
    ),
    "part wallets": lambda books: part_wallets(books, due_by=NOON, shards=4),
    "request backjob": lambda books: request_backjob(
        books, job=f"job-{LAST - 500}", by="client-1", reason="it leaks", now=NOON
    ),
    "reject backjob": lambda books: reject_backjob(books, backjob_id=BACKJOBS + 1, **ADMIN),
    "withdraw backjob": lambda books: withdraw_backjob(books, backjob_id=BACKJOBS + 2, **ADMIN),
    "approve backjob": lambda books: approve_backjob(books, backjob_id=BACKJOBS + 3, **ADMIN),
    "approve part of backjob": lambda books: approve_backjob(
        books, backjob_id=BACKJOBS + 4, amount="1.00", **ADMIN
    ),
    "freeze": lambda books: freeze_hold(books, hold_id=LAST - 500, kind=FreezeKind.RISK, **ADMIN),
    "unfreeze": lambda books: unfreeze_hold(books, freeze_id=2 * BACKJOBS + 300, **ADMIN),
    "add 1": lambda books: add_many_pending_earnings(books, earnings(1), now=NOON),
    "add 100": lambda books: add_many_pending_earnings(books, earnings(100), now=NOON),
    "deposit": lambda books: deposit(
        books, owner="owner-1", amount="1.00", currency="PHP", reference="in-1", now=NOON
    ),
    "withdraw": lambda books: withdraw(
        books, owner="owner-1", amount="1.00", currency="PHP", reference="out-1", now=NOON
    ),
    "dispatch": lambda books: dispatch(books, [Route(name="app")], batch_limit=500, now=NOON),
    "deliver": _deliver,
    "what to send": lambda books: to_send(books, endpoints=["app", "mail"], now=NOON),
    "delivery figures": delivery_figures,
    "list deliveries": lambda books: list_deliveries(books, limit=20),
    "list undispatched": lambda books: list_undispatched(books, limit=20),
    "replay": lambda books: replay(books, now=NOON, batch_limit=10),
    "count an hour": lambda books: compute_counts(books, start=SINCE, end=SINCE + HOUR),
    "first hour": first_hour,
    "newest transaction": lambda books: fetch(books, "history/newest"),
    "first transaction": lambda books: fetch(books, "history/first_line", after_id=LAST, through_id=2**40),
    "digest 1,000": lambda books: fetch(books, "history/digest_lines", after_id=LAST - 1000, through_id=LAST),
    "what is due": lambda books: reports.due_holds(books, due_by=NOON - timedelta(minutes=50)),
    "list overdue": lambda books: reports.list_holds(books, due_by=NOON - timedelta(minutes=58), limit=20),
    "show hold": lambda books: reports.show_hold(books, hold_id=17),
    "list holds of job": lambda books: reports.list_holds(books, job="job-17"),
    "show hold by reference": lambda books: reports.show_hold(books, reference="earning-17"),
    "statement of a wallet": lambda books: reports.wallet_statement(books, owner="owner-17"),
    "released since": lambda books: reports.released_from(books, source="test", since=NOON - HOUR),
    "count stuck": lambda books: reports.count_stuck(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3)
    ),
    "list stuck": lambda books: reports.stuck_holds(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3), limit=20
    ),
    "untold stuck": lambda books: untold_stuck_payments(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3), period=NOON, shown=20
    ),
}


def read_whole(plan: Mapping[str, Any], *, to_the_end: bool = True) -> Iterator[str]:
    """Return the tables that a plan reads from end to end, in their own order or in that of an index of all
    their rows; a limit above it ends the reading.
    """
    to_the_end = to_the_end and plan["Node Type"] != "Limit"
    if plan["Node Type"] == "Seq Scan" or (
        (
            to_the_end
            and "Index Cond" not in plan
            and plan.get("Index Name", "").endswith(("_pkey", "_key", "hold_job_idx", "_wallet_idx"))
            and plan["Node Type"] in {"Index Scan", "Index Only Scan"}
            # Where statistics say that nothing waits, the view of holds reads once all that does.
            and plan["Relation Name"] != "unsettled_hold"
        )
        # By its second column alone a whole index is read too: of a wallet's lines the generation is asked.
        or (
            plan.get("Index Name") == "transaction_generation_to_wallet_idx"
            and ">> 17" not in plan.get("Index Cond", "")
        )
    ):
        yield str(plan["Relation Name"])
    for child in plan.get("Plans", []):
        yield from read_whole(child, to_the_end=to_the_end)


@pytest.mark.parametrize("name", HOT)
def test_no_large_table_is_read_from_end_to_end(plans: tuple[Connection, list[Any]], name: str) -> None:
    """Every row that a hot statement needs is found by an index, whatever the planner believes."""
    connection, found = plans
    large = LARGE - MAY_BE_READ.get(name, set())

    HOT[name](connection)
    # A statement ends when the next one begins, and has its plan told then.
    connection.execute(text("SELECT"))

    assert found
    assert [
        (table, plan["Query Text"]) for plan in found for table in read_whole(plan["Plan"]) if table in large
    ] == []
