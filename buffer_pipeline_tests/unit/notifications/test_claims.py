"""Deliveries are claimed by lanes, with a lease, by one drainer at a time."""

import threading
import uuid
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

from buffer_pipeline.database import fetch
from buffer_pipeline.notifications.outbox import Claimed, Outcome, Route, replay, settle
from buffer_pipeline_tests.support.builders import NOON, all_at_once, one_after_the_other
from buffer_pipeline_tests.support.deliveries import (
    BACKEND,
    LEASE,
    add_notifications,
    all_as,
    claim_from,
    dispatch_all,
    ids_of,
    rows,
)


def test_claim_takes_an_owners_deliveries_in_order(connection: Connection) -> None:
    """A limited number of owners, and for each a limited number from the first on."""
    ids = add_notifications(
        connection, "worker-18", "worker-17", "worker-17", "worker-18", "worker-17", "worker-19"
    )
    dispatch_all(connection)

    claimed = claim_from(connection, owners=2, each=2)

    assert ids_of(claimed) == [ids[1], ids[2], ids[0], ids[3]]
    assert {each.notification.owner for each in claimed} == {"worker-17", "worker-18"}
    assert all(row["leased_until"] in {None, NOON + timedelta(seconds=60)} for row in rows(connection))


def test_claimed_lane_is_skipped_during_its_lease(connection: Connection) -> None:
    """No delivery of an owner is claimed while an earlier one is being sent."""
    ids = add_notifications(connection, "worker-17", "worker-17", "worker-17")
    dispatch_all(connection)
    first = claim_from(connection, each=1)

    before = claim_from(connection, now=NOON + timedelta(seconds=59))
    after = claim_from(connection, now=NOON + timedelta(seconds=60))

    assert ids_of(first) == ids[:1]
    assert before == []
    assert ids_of(after) == ids


def test_owners_come_in_turn(connection: Connection) -> None:
    """With `after_owner`, a claim continues after the previous one, until the last owner."""
    add_notifications(connection, "worker-17", "worker-18", "worker-19")
    dispatch_all(connection)

    first = claim_from(connection, owners=2)
    second = claim_from(connection, owners=2, after_owner=first[-1].notification.owner)
    third = claim_from(connection, owners=2, after_owner=second[-1].notification.owner)

    assert [each.notification.owner for each in first + second] == ["worker-17", "worker-18", "worker-19"]
    assert third == []


def test_endpoints_do_not_wait_for_each_other(connection: Connection) -> None:
    """A lane at one endpoint is claimed whatever waits at another."""
    ids = add_notifications(connection, "worker-17")
    dispatch_all(connection, BACKEND, Route(name="log"))
    claim_from(connection)

    assert ids_of(claim_from(connection, endpoint="log")) == ids


def test_two_drainers_never_hold_the_same_delivery(engine: Engine) -> None:
    """Concurrent claims share what is due, without a common delivery or owner."""
    with engine.begin() as connection:
        add_notifications(connection, *[f"worker-{number % 20}" for number in range(100)])
        dispatch_all(connection)

    outcomes = all_at_once(engine, *[lambda each: claim_from(each, owners=9)] * 4)

    claims = [outcome for outcome in outcomes if isinstance(outcome, list)]
    owners = [{each.notification.owner for each in claimed} for claimed in claims]
    every = [each.delivery_id for claimed in claims for each in claimed]
    assert len(claims) == 4
    assert len(every) == len(set(every)) > 0
    assert sum(len(each) for each in owners) == len(set().union(*owners))


def test_claim_skips_what_an_open_claim_has_locked(engine: Engine) -> None:
    """While one claim is not committed, the next skips what it locked."""
    with engine.begin() as connection:
        ids = add_notifications(connection, "worker-17", "worker-18")
        dispatch_all(connection)

    first, second = one_after_the_other(
        engine, lambda connection: claim_from(connection, owners=1), claim_from
    )

    assert isinstance(second, list)
    assert (ids_of(first), ids_of(second)) == (ids[:1], ids[1:])


def test_claim_rechecks_rows_after_locking_them(engine: Engine) -> None:
    """If its snapshot is older than another claim's commit, it reads the row again."""
    with engine.begin() as connection:
        add_notifications(connection, "worker-17")
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
    """The first delivery of the lane is replayed. The next claim takes nothing that the other holds."""
    with engine.begin() as connection:
        add_notifications(connection, *["worker-17"] * 4)
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


def test_claim_checks_for_a_lease_after_its_lock(engine: Engine) -> None:
    """A lease that another claim has taken since the snapshot counts."""
    with engine.begin() as connection:
        add_notifications(connection, *["worker-17"] * 4)
        dispatch_all(connection)
        settle(connection, all_as(claim_from(connection, each=1), Outcome.DEAD, reason="no"), now=NOON)
    with engine.connect() as one, engine.connect() as two:
        one.begin()
        held = claim_from(one)
        with engine.begin() as connection:
            replay(connection, now=NOON, batch_limit=9)
        one.commit()
        two.begin()
        # As in `claim`, if the lane was free at the lock but the lock's statement read long before.
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


def test_leased_deliveries_keep_the_lane_despite_many_replays(connection: Connection) -> None:
    """Even if more are replayed before them than a claim takes."""
    add_notifications(connection, *["worker-17"] * 20, "worker-18")
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
