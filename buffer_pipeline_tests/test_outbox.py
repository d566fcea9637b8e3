"""Deliveries in the database: dispatched, claimed by lanes under a lease, settled, given up, replayed."""

import re
import threading
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, insert, select, text

from buffer_pipeline.database import fetch, migrate, statement_text
from buffer_pipeline.outbox import (
    Claimed,
    DeliveryState,
    Dispatched,
    Outcome,
    Route,
    Settlement,
    claim,
    delivery_figures,
    dispatch,
    list_deliveries,
    replay,
    settle,
)
from buffer_pipeline.tables import contact, delivery, notification
from buffer_pipeline_tests.builders import PAYEE, PAYER, all_at_once, one_behind_the_other, place_hold
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.test_plans import nodes
from buffer_pipeline_tests.test_schema import refusal_of

BACKEND: Final = Route(name="backend")
LEASE: Final = 60.0


def notify(connection: Connection, *owners: str, created_at: datetime = NOON) -> list[int]:
    """Write a PAYMENT_PENDING for each owner in turn; return the notifications' ids."""
    before = connection.scalar(
        select(notification.c.notification_id).order_by(notification.c.notification_id.desc())
    )
    for owner in owners:
        place_hold(connection, payee=owner, held_at=created_at)
    return list(
        connection.scalars(
            select(notification.c.notification_id)
            .where(notification.c.notification_id > (before or 0))
            .order_by(notification.c.notification_id)
        )
    )


def dispatch_all(connection: Connection, *routes: Route, now: datetime = NOON) -> Dispatched:
    """Dispatch to the routes, the backend when none is named."""
    return dispatch(connection, routes or (BACKEND,), batch_limit=1_000, now=now)


def claim_from(
    connection: Connection,
    *,
    now: datetime = NOON,
    owners: int = 100,
    each: int = 100,
    after_owner: str = "",
    endpoint: str = "backend",
) -> list[Claimed]:
    """Claim at an endpoint."""
    return claim(
        connection,
        endpoint=endpoint,
        owners_limit=owners,
        per_owner_limit=each,
        lease_seconds=LEASE,
        now=now,
        after_owner=after_owner,
    )


def ids_of(claimed: Sequence[Claimed]) -> list[int]:
    """Return the ids of what was claimed."""
    return [each.notification.notification_id for each in claimed]


def all_as(
    claimed: Sequence[Claimed],
    outcome: Outcome,
    *,
    reason: str | None = None,
    next_attempt_at: datetime | None = None,
) -> list[Settlement]:
    """Return the same outcome for each."""
    return [
        Settlement(claimed=each, outcome=outcome, reason=reason, next_attempt_at=next_attempt_at)
        for each in claimed
    ]


def rows(connection: Connection) -> list[dict[str, Any]]:
    """Return all deliveries, the oldest first."""
    return [
        dict(row) for row in connection.execute(select(delivery).order_by(delivery.c.delivery_id)).mappings()
    ]


def kill(connection: Connection, *, now: datetime = NOON) -> None:
    """Claim what is due and give it up."""
    claimed = claim_from(connection, now=now)
    settled = settle(connection, all_as(claimed, Outcome.DEAD, reason="410 Gone"), now=now)
    assert settled == {each.delivery_id for each in claimed} != set()


# ---- dispatch


def test_notification_is_dispatched_to_each_endpoint_once(connection: Connection) -> None:
    """A delivery an endpoint, and none at the second call."""
    ids = notify(connection, "worker-17", "worker-18")

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
    """What no endpoint takes counts as dispatched all the same, and waits nowhere."""
    notify(connection, "worker-17")

    dispatched = dispatch_all(
        connection,
        Route(name="one", types=frozenset({"PAYMENT_PENDING", "PAYMENT_RELEASED"})),
        Route(name="other", types=frozenset({"PAYMENT_RELEASED"})),
    )
    nobody = [
        notify(connection, "worker-18"),
        dispatch_all(connection, Route(name="o", types=frozenset({"X"}))),
    ]

    assert dispatched == Dispatched(notifications=1, deliveries=1)
    assert nobody[1] == Dispatched(notifications=1, deliveries=0)
    assert [row["endpoint"] for row in rows(connection)] == ["one"]
    assert [(figures.endpoint, figures.waiting) for figures in delivery_figures(connection)] == [("one", 1)]


def test_mail_goes_to_owners_with_an_address(connection: Connection) -> None:
    """An endpoint that needs an address gets nothing for owners who have none."""
    notify(connection, "worker-17", "worker-18", "worker-19")
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
        notify(connection, *["worker-17"] * 20)

    outcomes = all_at_once(engine, *[dispatch_all] * 3)

    with engine.connect() as connection:
        assert len(rows(connection)) == 20
    assert sorted(outcome.notifications for outcome in outcomes if isinstance(outcome, Dispatched)) == [
        0,
        0,
        20,
    ]


# ---- claim


def test_claim_takes_an_owners_deliveries_in_order(connection: Connection) -> None:
    """At most so many owners, for each at most so many from its first on."""
    ids = notify(connection, "worker-18", "worker-17", "worker-17", "worker-18", "worker-17", "worker-19")
    dispatch_all(connection)

    claimed = claim_from(connection, owners=2, each=2)

    assert ids_of(claimed) == [ids[1], ids[2], ids[0], ids[3]]
    assert {each.notification.owner for each in claimed} == {"worker-17", "worker-18"}
    assert all(row["leased_until"] in {None, NOON + timedelta(seconds=60)} for row in rows(connection))


def test_claimed_lane_is_passed_over_until_its_lease_is_over(connection: Connection) -> None:
    """Nothing of an owner is claimed while an earlier delivery of theirs is out."""
    ids = notify(connection, "worker-17", "worker-17", "worker-17")
    dispatch_all(connection)
    first = claim_from(connection, each=1)

    before = claim_from(connection, now=NOON + timedelta(seconds=59))
    after = claim_from(connection, now=NOON + timedelta(seconds=60))

    assert ids_of(first) == ids[:1]
    assert before == []
    assert ids_of(after) == ids


def test_owners_come_in_turn(connection: Connection) -> None:
    """`after_owner` goes on where the claim before ended, and comes to an end."""
    notify(connection, "worker-17", "worker-18", "worker-19")
    dispatch_all(connection)

    first = claim_from(connection, owners=2)
    second = claim_from(connection, owners=2, after_owner=first[-1].notification.owner)
    third = claim_from(connection, owners=2, after_owner=second[-1].notification.owner)

    assert [each.notification.owner for each in first + second] == ["worker-17", "worker-18", "worker-19"]
    assert third == []


def test_endpoints_do_not_wait_for_each_other(connection: Connection) -> None:
    """A lane at one endpoint is claimed whatever stands at another."""
    ids = notify(connection, "worker-17")
    dispatch_all(connection, BACKEND, Route(name="log"))
    claim_from(connection)

    assert ids_of(claim_from(connection, endpoint="log")) == ids


def test_two_drainers_never_hold_the_same_delivery(engine: Engine) -> None:
    """Claims at once share what is due: no delivery and no owner twice."""
    with engine.begin() as connection:
        notify(connection, *[f"worker-{number % 20}" for number in range(100)])
        dispatch_all(connection)

    outcomes = all_at_once(engine, *[lambda each: claim_from(each, owners=9)] * 4)

    claims = [outcome for outcome in outcomes if isinstance(outcome, list)]
    owners = [{each.notification.owner for each in claimed} for claimed in claims]
    every = [each.delivery_id for claimed in claims for each in claimed]
    assert len(claims) == 4
    assert len(every) == len(set(every)) > 0
    assert sum(len(each) for each in owners) == len(set().union(*owners))


def test_claim_waits_for_nobody(engine: Engine) -> None:
    """While one claim is not committed, the next passes over what it locked."""
    with engine.begin() as connection:
        ids = notify(connection, "worker-17", "worker-18")
        dispatch_all(connection)

    first, second = one_behind_the_other(
        engine, lambda connection: claim_from(connection, owners=1), claim_from
    )

    assert isinstance(second, list)
    assert (ids_of(first), ids_of(second)) == (ids[:1], ids[1:])


def test_claim_that_comes_late_sees_what_was_leased_since(engine: Engine) -> None:
    """A claim whose snapshot is older than another's commit looks at the row again."""
    with engine.begin() as connection:
        notify(connection, "worker-17")
        dispatch_all(connection)
    with engine.begin() as locker, engine.connect() as other:
        locker.execute(text("LOCK TABLE buffer.delivery IN ACCESS EXCLUSIVE MODE"))
        answers: list[list[Claimed]] = []

        def second() -> None:
            with other.begin():
                answers.append(claim_from(other))

        thread = threading.Thread(target=second)
        thread.start()
        first = claim_from(locker)
        locker.commit()
        thread.join()

    assert len(first) == 1
    assert answers == [[]]


def test_replay_while_a_claim_is_not_committed_gives_no_delivery_to_two(engine: Engine) -> None:
    """The first of the lane comes back by replay: whoever claims then takes nothing that the other holds."""
    with engine.begin() as connection:
        notify(connection, *["worker-17"] * 4)
        dispatch_all(connection)
        first = claim_from(connection, each=1)
        settle(connection, all_as(first, Outcome.DEAD, reason="no"), now=NOON)
    with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        one.begin()
        held = claim_from(one)
        with engine.begin() as connection:
            assert len(replay(connection, now=NOON, batch_limit=9)) == 1
        two.begin()
        beside = claim_from(two)
        one.commit()
        behind = claim_from(two)
        two.commit()
        three.begin()
        settled = settle(three, all_as(held, Outcome.DELIVERED), now=NOON)
        again = claim_from(three)
        three.commit()

    assert (len(held), beside, behind, len(settled)) == (3, [], [], 3)
    assert ids_of(again) == ids_of(first)


def test_claim_that_saw_the_lane_before_another_leased_it_takes_nothing(engine: Engine) -> None:
    """What was seen before the lock counts for nothing: the other's lease is looked for behind it."""
    with engine.begin() as connection:
        notify(connection, *["worker-17"] * 4)
        dispatch_all(connection)
        settle(connection, all_as(claim_from(connection, each=1), Outcome.DEAD, reason="no"), now=NOON)
    with engine.connect() as one, engine.connect() as two:
        one.begin()
        held = claim_from(one)
        with engine.begin() as connection:
            replay(connection, now=NOON, batch_limit=9)
        one.commit()
        two.begin()
        # As `claim` has it when the lane was free at the lock, with what the lock's statement saw long ago.
        beside = fetch(
            two,
            "outbox/claim_deliveries",
            endpoint="backend",
            owners=["worker-17"],
            per_owner_limit=100,
            lease=uuid.uuid4(),
            lease_seconds=LEASE,
            now=NOON,
        )

    assert (len(held), list(beside)) == (3, [])


def test_lane_is_claimed_by_one_however_much_is_replayed_before_what_is_out(connection: Connection) -> None:
    """With more replayed than a claim takes, the leased ones behind it still hold the lane."""
    notify(connection, *["worker-17"] * 20, "worker-18")
    dispatch_all(connection)
    settle(
        connection,
        all_as(claim_from(connection, owners=1, each=16), Outcome.DEAD, reason="no"),
        now=NOON,
    )
    out = claim_from(connection, owners=1, each=16)
    assert len(replay(connection, now=NOON, batch_limit=99)) == 16

    beside = claim_from(connection, owners=1, each=16)
    after = claim_from(connection, owners=1, each=16, now=NOON + timedelta(seconds=LEASE))

    assert [each.notification.owner for each in out] == ["worker-17"] * 4
    assert [each.notification.owner for each in beside] == ["worker-18"]
    assert [each.notification.owner for each in after] == ["worker-17"] * 16


# ---- settle


def test_delivered_is_settled_once(connection: Connection) -> None:
    """The first settlement counts, and the second writes nothing."""
    notify(connection, "worker-17")
    dispatch_all(connection)
    settlements = all_as(claim_from(connection), Outcome.DELIVERED)

    assert settle(connection, settlements, now=NOON) == {settlements[0].claimed.delivery_id}
    assert settle(connection, settlements, now=NOON + timedelta(hours=1)) == set()

    row = rows(connection)[0]
    assert (row["state"], row["attempts"], row["settled_at"], row["lease"]) == ("DELIVERED", 1, NOON, None)


def test_lost_lease_settles_nothing(connection: Connection) -> None:
    """A drainer that comes back after its lease was given to another changes nothing."""
    notify(connection, "worker-17")
    dispatch_all(connection)
    lost = claim_from(connection)
    later = NOON + timedelta(seconds=61)
    held = claim_from(connection, now=later)

    assert settle(connection, all_as(lost, Outcome.DEAD, reason="late"), now=later) == set()
    assert settle(connection, all_as(held, Outcome.DELIVERED), now=later) == {held[0].delivery_id}
    assert rows(connection)[0]["state"] == "DELIVERED"


def test_retry_holds_the_lane_back_until_it_is_due(connection: Connection) -> None:
    """What failed goes first when its time has come; what was not tried counts as never claimed."""
    ids = notify(connection, "worker-17", "worker-17")
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


# ---- dead letters


def test_dead_letter_lets_the_next_one_pass(connection: Connection) -> None:
    """What is given up no longer holds its owner's lane."""
    ids = notify(connection, "worker-17", "worker-17")
    dispatch_all(connection)
    settle(connection, all_as(claim_from(connection, each=1), Outcome.DEAD, reason="410 Gone"), now=NOON)

    assert ids_of(claim_from(connection)) == ids[1:]
    dead = list_deliveries(connection, state=DeliveryState.DEAD)
    assert [(each.notification_id, each.reason, each.settled_at) for each in dead] == [
        (ids[0], "410 Gone", NOON)
    ]


def test_replayed_is_as_if_never_tried(connection: Connection) -> None:
    """A dead letter comes back at its old place, with all its attempts, once."""
    ids = notify(connection, "worker-17")
    dispatch_all(connection)
    kill(connection)
    later_ids = notify(connection, "worker-17")
    dispatch_all(connection)
    dead = [each.delivery_id for each in list_deliveries(connection, state=DeliveryState.DEAD)]
    later = NOON + timedelta(days=4)

    assert replay(connection, ids=dead, now=later, batch_limit=10) == dead
    assert replay(connection, ids=dead, now=later, batch_limit=10) == []

    claimed = claim_from(connection, now=later)
    assert ids_of(claimed) == ids + later_ids
    assert (claimed[0].attempts, claimed[0].first_attempt_at) == (0, None)


def test_replay_by_time_and_endpoint(connection: Connection) -> None:
    """From `since` on, before `until`, the oldest first, at most so many."""
    for hour in range(4):
        notify(connection, f"worker-{hour}")
        dispatch_all(connection)
        kill(connection, now=NOON + timedelta(hours=hour))
    deliveries = [row["delivery_id"] for row in rows(connection)]

    other = replay(connection, endpoint="log", now=NOON, batch_limit=10)
    between = replay(
        connection, since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3), now=NOON, batch_limit=10
    )
    oldest = replay(connection, now=NOON, batch_limit=1)
    none = replay(connection, ids=[], now=NOON, batch_limit=10)

    assert (other, between, oldest, none) == ([], deliveries[1:3], deliveries[:1], [])


def test_replayed_waits_for_what_is_out(connection: Connection) -> None:
    """A dead letter that comes back while later ones are being sent is not sent beside them."""
    notify(connection, "worker-17")
    dispatch_all(connection)
    kill(connection)
    notify(connection, "worker-17")
    dispatch_all(connection)
    out = claim_from(connection)
    replay(connection, now=NOON, batch_limit=10)

    assert claim_from(connection) == []
    settle(connection, all_as(out, Outcome.DELIVERED), now=NOON)
    assert len(claim_from(connection)) == 1


# ---- lists and figures


def test_list_narrows_and_pages(connection: Connection) -> None:
    """By state, owner, type and endpoint; the newest first, page by page."""
    notify(connection, "worker-17", "worker-18", "worker-17")
    dispatch_all(connection, BACKEND, Route(name="log"))
    every = [row["delivery_id"] for row in rows(connection)][::-1]

    def listed(**narrowed: Any) -> list[int]:
        return [each.delivery_id for each in list_deliveries(connection, **narrowed)]

    assert listed(limit=4) == every[:4]
    assert listed(limit=4, before_id=every[3]) == every[4:]
    assert listed(owner="worker-18", endpoint="log") == [every[2]]
    assert listed(type_="PAYMENT_PENDING", state=DeliveryState.WAITING) == every
    assert listed(type_="PAYMENT_RELEASED") == listed(state=DeliveryState.DEAD) == listed(owner="x") == []


def test_figures_count_what_is_not_through(connection: Connection) -> None:
    """What waits and what is dead by endpoint, and what is not dispatched yet."""
    notify(connection, "worker-17", "worker-18", created_at=NOON - timedelta(hours=3))
    dispatch_all(connection, BACKEND, Route(name="log"))
    claimed = claim_from(connection)
    settle(connection, all_as(claimed[:1], Outcome.DEAD, reason="no"), now=NOON)
    settle(connection, all_as(claimed[1:], Outcome.DELIVERED), now=NOON)
    notify(connection, "worker-19")

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
def test_check_refuses_what_cannot_be(connection: Connection, change: str, constraint: str) -> None:
    """What no statement writes, the table's named CHECK refuses."""
    notify(connection, PAYEE, PAYER + "-2")
    dispatch_all(connection)

    code, message = refusal_of(connection, f"UPDATE buffer.delivery SET {change}")

    assert code == "23514"
    assert constraint in message


def test_states_are_spelled_alike(connection: Connection) -> None:
    """Python and the table's CHECK know the same states."""
    definition: str = connection.execute(
        text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'delivery_state_is_known'")
    ).scalar_one()

    assert set(re.findall(r"'([A-Z]+)'", definition)) == set(DeliveryState)


def test_claim_walks_no_further_than_it_takes(engine: Engine) -> None:
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


def test_books_of_the_log_channel_go_on(engine: Engine) -> None:
    """What revision 0002 had delivered is not sent again; what it had not is dispatched."""
    with engine.begin() as connection:
        notify(connection, "worker-17", "worker-18")
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
