"""A dead letter does not block the next delivery, and can be replayed."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from buffer_pipeline.notifications.outbox import DeliveryState, Outcome, list_deliveries, replay, settle
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.deliveries import (
    add_notifications,
    all_as,
    claim_from,
    dispatch_all,
    ids_of,
    rows,
)


def kill(connection: Connection, *, now: datetime = NOON) -> None:
    """Claim what is due and give it up."""
    claimed = claim_from(connection, now=now)
    settled = settle(connection, all_as(claimed, Outcome.DEAD, reason="410 Gone"), now=now)
    assert settled == {each.delivery_id for each in claimed} != set()


def test_dead_letter_lets_the_next_one_pass(connection: Connection) -> None:
    """It no longer blocks its owner's lane."""
    ids = add_notifications(connection, "worker-17", "worker-17")
    dispatch_all(connection)
    settle(connection, all_as(claim_from(connection, each=1), Outcome.DEAD, reason="410 Gone"), now=NOON)

    assert ids_of(claim_from(connection)) == ids[1:]
    dead = list_deliveries(connection, state=DeliveryState.DEAD)
    assert [(each.notification_id, each.reason, each.settled_at) for each in dead] == [
        (ids[0], "410 Gone", NOON)
    ]


def test_replayed_dead_letter_starts_afresh(connection: Connection) -> None:
    """It returns once to its old place, with all its attempts."""
    ids = add_notifications(connection, "worker-17")
    dispatch_all(connection)
    kill(connection)
    later_ids = add_notifications(connection, "worker-17")
    dispatch_all(connection)
    dead = [each.delivery_id for each in list_deliveries(connection, state=DeliveryState.DEAD)]
    later = NOON + timedelta(days=4)

    assert replay(connection, ids=dead, now=later, batch_limit=10) == dead
    assert replay(connection, ids=dead, now=later, batch_limit=10) == []

    claimed = claim_from(connection, now=later)
    assert ids_of(claimed) == ids + later_ids
    assert (claimed[0].attempts, claimed[0].first_attempt_at) == (0, None)


def test_replay_by_time_and_endpoint(connection: Connection) -> None:
    """From `since` to before `until`, oldest first, up to a limit."""
    for hour in range(4):
        add_notifications(connection, f"worker-{hour}")
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


def test_replayed_dead_letter_waits_for_leased_deliveries(connection: Connection) -> None:
    """It is not sent while later ones are being sent."""
    add_notifications(connection, "worker-17")
    dispatch_all(connection)
    kill(connection)
    add_notifications(connection, "worker-17")
    dispatch_all(connection)
    out = claim_from(connection)
    replay(connection, now=NOON, batch_limit=10)

    assert claim_from(connection) == []
    settle(connection, all_as(out, Outcome.DELIVERED), now=NOON)
    assert len(claim_from(connection)) == 1
