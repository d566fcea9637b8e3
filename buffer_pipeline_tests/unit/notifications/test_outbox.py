"""Deliveries in the database: dispatched, settled, listed, counted."""

import re
from datetime import timedelta
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, insert, text

from buffer_pipeline.database import migrate, statement_text
from buffer_pipeline.notifications.outbox import (
    DeliveryState,
    Dispatched,
    Outcome,
    Route,
    delivery_figures,
    list_deliveries,
    settle,
)
from buffer_pipeline.tables import contact
from buffer_pipeline_tests.support.builders import NOON, PAYEE, PAYER, all_at_once
from buffer_pipeline_tests.support.deliveries import (
    BACKEND,
    add_notifications,
    all_as,
    claim_from,
    dispatch_all,
    ids_of,
    rows,
)
from buffer_pipeline_tests.support.plans import nodes
from buffer_pipeline_tests.support.raw_sql import refusal_of

# ---- dispatch


def test_notification_is_dispatched_to_each_endpoint_once(connection: Connection) -> None:
    """One delivery per endpoint, and none at the second call."""
    ids = add_notifications(connection, "worker-17", "worker-18")

    first = dispatch_all(connection, BACKEND, Route(name="log"))
    second = dispatch_all(connection, BACKEND, Route(name="log"))

    assert first == Dispatched(notifications=2, deliveries=4)
    assert second == Dispatched(notifications=0, deliveries=0)
    assert [
        (row["notification_id"], row["endpoint"], row["owner"], row["state"]) for row in rows(connection)
    ] == [
        (ids[0], "backend", "worker-17", "WAITING"),
        (ids[0], "log", "worker-17", "WAITING"),
        (ids[1], "backend", "worker-18", "WAITING"),
        (ids[1], "log", "worker-18", "WAITING"),
    ]


def test_endpoint_gets_its_types_only(connection: Connection) -> None:
    """A notification that no endpoint takes counts as dispatched."""
    add_notifications(connection, "worker-17")

    dispatched = dispatch_all(
        connection,
        Route(name="one", types=frozenset({"PAYMENT_PENDING", "PAYMENT_RELEASED"})),
        Route(name="other", types=frozenset({"PAYMENT_RELEASED"})),
    )
    nobody = [
        add_notifications(connection, "worker-18"),
        dispatch_all(connection, Route(name="o", types=frozenset({"X"}))),
    ]

    assert dispatched == Dispatched(notifications=1, deliveries=1)
    assert nobody[1] == Dispatched(notifications=1, deliveries=0)
    assert [row["endpoint"] for row in rows(connection)] == ["one"]
    assert [(figures.endpoint, figures.waiting) for figures in delivery_figures(connection)] == [("one", 1)]


def test_mail_goes_to_owners_with_an_address(connection: Connection) -> None:
    """An endpoint that needs an address gets nothing for owners without one."""
    add_notifications(connection, "worker-17", "worker-18", "worker-19")
    connection.execute(
        insert(contact),
        [
            {"owner": "worker-17", "email": "ana@example.com", "updated_at": NOON},
            {"owner": "worker-18", "email": None, "updated_at": NOON},
        ],
    )

    dispatched = dispatch_all(connection, Route(name="mail", needs_address=True))

    assert dispatched == Dispatched(notifications=3, deliveries=1)
    assert [row["owner"] for row in rows(connection)] == ["worker-17"]


def test_two_dispatchers_write_each_delivery_once(engine: Engine) -> None:
    """The second waits for the first, then finds nothing left."""
    with engine.begin() as connection:
        add_notifications(connection, *["worker-17"] * 20)

    outcomes = all_at_once(engine, *[dispatch_all] * 3)

    with engine.connect() as connection:
        assert len(rows(connection)) == 20
    assert sorted(outcome.notifications for outcome in outcomes if isinstance(outcome, Dispatched)) == [
        0,
        0,
        20,
    ]


# ---- settle


def test_delivered_is_settled_once(connection: Connection) -> None:
    """The first settlement counts, and the second writes nothing."""
    add_notifications(connection, "worker-17")
    dispatch_all(connection)
    settlements = all_as(claim_from(connection), Outcome.DELIVERED)

    assert settle(connection, settlements, now=NOON) == {settlements[0].claimed.delivery_id}
    assert settle(connection, settlements, now=NOON + timedelta(hours=1)) == set()

    row = rows(connection)[0]
    assert (row["state"], row["attempts"], row["settled_at"], row["lease"]) == ("DELIVERED", 1, NOON, None)


def test_lost_lease_settles_nothing(connection: Connection) -> None:
    """A drainer whose lease was given to another changes nothing."""
    add_notifications(connection, "worker-17")
    dispatch_all(connection)
    lost = claim_from(connection)
    later = NOON + timedelta(seconds=61)
    held = claim_from(connection, now=later)

    assert settle(connection, all_as(lost, Outcome.DEAD, reason="late"), now=later) == set()
    assert settle(connection, all_as(held, Outcome.DELIVERED), now=later) == {held[0].delivery_id}
    assert rows(connection)[0]["state"] == "DELIVERED"


def test_retry_blocks_the_lane_until_it_is_due(connection: Connection) -> None:
    """The failed one goes first. Untried ones count as never claimed."""
    ids = add_notifications(connection, "worker-17", "worker-17")
    dispatch_all(connection)
    head, rest = claim_from(connection)
    due = NOON + timedelta(minutes=5)

    settle(
        connection,
        [
            *all_as([head], Outcome.RETRY, reason="503\nService\0 Unavailable", next_attempt_at=due),
            *all_as([rest], Outcome.UNSENT),
        ],
        now=NOON,
    )

    assert claim_from(connection, now=due - timedelta(seconds=1)) == []
    again = claim_from(connection, now=due)
    assert ids_of(again) == ids
    assert [(each.attempts, each.first_attempt_at) for each in again] == [(1, NOON), (0, None)]
    assert [row["reason"] for row in rows(connection)] == ["503 Service Unavailable", None]


# ---- lists and figures


def test_list_narrows_and_pages(connection: Connection) -> None:
    """By state, owner, type and endpoint; newest first, in pages."""
    add_notifications(connection, "worker-17", "worker-18", "worker-17")
    dispatch_all(connection, BACKEND, Route(name="log"))
    every = [row["delivery_id"] for row in rows(connection)][::-1]

    def listed(**narrowed: Any) -> list[int]:
        return [each.delivery_id for each in list_deliveries(connection, **narrowed)]

    assert listed(limit=4) == every[:4]
    assert listed(limit=4, before_id=every[3]) == every[4:]
    assert listed(owner="worker-18", endpoint="log") == [every[2]]
    assert listed(type_="PAYMENT_PENDING", state=DeliveryState.WAITING) == every
    assert listed(type_="PAYMENT_RELEASED") == listed(state=DeliveryState.DEAD) == listed(owner="x") == []


def test_figures_count_unfinished_deliveries(connection: Connection) -> None:
    """Waiting and dead ones by endpoint, and undispatched notifications."""
    add_notifications(connection, "worker-17", "worker-18", created_at=NOON - timedelta(hours=3))
    dispatch_all(connection, BACKEND, Route(name="log"))
    claimed = claim_from(connection)
    settle(connection, all_as(claimed[:1], Outcome.DEAD, reason="no"), now=NOON)
    settle(connection, all_as(claimed[1:], Outcome.DELIVERED), now=NOON)
    add_notifications(connection, "worker-19")

    assert [
        (figures.endpoint, figures.waiting, figures.dead, figures.oldest_waiting)
        for figures in delivery_figures(connection)
    ] == [(None, 1, 0, NOON), ("backend", 0, 1, None), ("log", 2, 0, NOON - timedelta(hours=3))]


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        (
            "state = 'SENT', settled_at = now(), attempts = 1, first_attempt_at = now(), reason = 'x'",
            "delivery_state_is_known",
        ),
        ("state = 'DELIVERED', settled_at = now()", "delivery_settled_only_after_an_attempt"),
        ("settled_at = now()", "delivery_settled_at_iff_not_waiting"),
        ("attempts = 1", "delivery_first_attempt_iff_attempted"),
        ("attempts = -1, first_attempt_at = now()", "delivery_attempts_not_negative"),
        ("reason = 'why'", "delivery_reason_iff_failed"),
        (
            "state = 'DEAD', settled_at = now(), attempts = 1, first_attempt_at = now()",
            "delivery_reason_iff_failed",
        ),
        ("lease = gen_random_uuid()", "delivery_lease_has_an_end"),
        (
            "state = 'DELIVERED', settled_at = now(), attempts = 1, first_attempt_at = now(),"
            " lease = gen_random_uuid(), leased_until = now()",
            "delivery_leased_only_while_waiting",
        ),
    ],
)
def test_check_refuses_impossible_rows(connection: Connection, change: str, constraint: str) -> None:
    """What no statement writes, the table's named CHECK refuses."""
    add_notifications(connection, PAYEE, PAYER + "-2")
    dispatch_all(connection)

    code, message = refusal_of(connection, f"UPDATE buffer.delivery SET {change}")

    assert code == "23514"
    assert constraint in message


def test_states_are_spelled_alike(connection: Connection) -> None:
    """Python and the table's CHECK have the same states."""
    definition: str = connection.execute(
        text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'delivery_state_is_known'")
    ).scalar_one()

    assert set(re.findall(r"'([A-Z]+)'", definition)) == set(DeliveryState)


def test_claim_reads_only_what_it_takes(engine: Engine) -> None:
    """A claim of ten owners reads a few rows for each, however many owners and deliveries wait."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO buffer.delivery (notification_id, endpoint, owner, created_at, next_attempt_at)"
                " SELECT number, 'backend', 'worker-' || number % 2000, :now, :now"
                " FROM generate_series(1, 20000) AS number"
            ),
            {"now": NOON},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE buffer.delivery"))

    lanes = {"endpoint": "backend", "after_owner": "", "owners_limit": 10, "probe": False, "now": NOON}
    with engine.connect() as connection:
        owners = list(connection.scalars(text(statement_text("outbox/lock_lanes")), lanes))
        plans = [
            connection.execute(
                text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement_text(name)}"), parameters
            ).scalar_one()
            for name, parameters in (
                ("outbox/lock_lanes", lanes),
                (
                    "outbox/claim_deliveries",
                    {
                        "endpoint": "backend",
                        "owners": owners,
                        "per_owner_limit": 3,
                        "lease": "00000000-0000-0000-0000-000000000001",
                        "lease_seconds": 60,
                        "now": NOON,
                    },
                ),
            )
        ]

    assert len(owners) == 10
    for plan in plans:
        most = max(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes(plan[0]["Plan"])
        )
        assert most <= 100


def test_deliveries_of_revision_0002_are_kept(engine: Engine) -> None:
    """What it had delivered is not sent again; the rest is dispatched."""
    with engine.begin() as connection:
        add_notifications(connection, "worker-17", "worker-18")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "buffer_pipeline:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        connection.execute(
            text("UPDATE buffer.notification SET delivered_at = now() WHERE owner = 'worker-17'")
        )

    migrate(engine)

    with engine.begin() as connection:
        assert dispatch_all(connection) == Dispatched(notifications=1, deliveries=1)
        assert [row["owner"] for row in rows(connection)] == ["worker-18"]
