"""The sensor of stuck payments, tick by tick, with a real HTTP receiver."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import Engine, select

from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    WITH_A_FEE,
    place_hold,
    state_of,
)
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.runs import corrupt, rows_of
from buffer_pipeline_tests.support.sensors import (
    DAGSTER_URL,
    Sensor,
    date_alerts_back,
    evaluation_in,
    place,
)

# One alert per day or hour, so no test may run across the full hour.
pytestmark = pytest.mark.usefixtures("this_hour")


def test_a_stuck_payment_is_flagged_and_reported(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """It is observed, fails the check that lists it, and operators get the owner, the amount and the time."""
    stuck = place(engine, state=HoldState.FROZEN)

    tick = stuck_sensor.tick()

    evaluation = evaluation_in(tick)
    assert (evaluation.check_name, evaluation.passed) == ("no_payment_stuck", False)
    assert evaluation.metadata["stuck_holds"].value == 1
    assert rows_of(evaluation, "holds") == [
        {
            "hold_id": stuck,
            "job": "job-8",
            "payee": PAYEE,
            "frozen_since": NOON.isoformat(),
            "kinds": "ADMIN",
        }
    ]
    observation = next(event for event in tick.asset_events if isinstance(event, dg.AssetObservation))
    assert observation.asset_key == dg.AssetKey("frozen_payments")
    assert observation.metadata == evaluation.metadata
    assert tick.skip_message == "1 payment frozen for more than 72 hours; reported"
    [(title, message)] = receiver.got
    assert "without an open freeze" not in message
    assert title == "1 payment frozen for more than 72 hours: 1000.00 PHP"
    assert (
        f"hold {stuck}, job job-8, to {PAYEE}, 1000.00 PHP, frozen since 2026-03-02 12:00 UTC"
        " (frozen by an admin)" in message
    )
    assert f"{DAGSTER_URL}/assets/frozen_payments" in message


def test_without_a_stuck_payment_the_check_passes_and_no_alert_is_sent(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """A payment frozen an hour too short does not count, and the next tick skips."""
    place(engine, state=HoldState.FROZEN, held_at=datetime.now(UTC) - timedelta(hours=71))

    first, second = stuck_sensor.tick(), stuck_sensor.tick()

    assert evaluation_in(first).passed
    assert first.skip_message == "no payment has been frozen for more than 72 hours"
    assert second.asset_events == []
    assert second.skip_message == first.skip_message
    assert receiver.got == []


def test_a_payment_is_reported_once_a_day(engine: Engine, stuck_sensor: Sensor, receiver: Receiver) -> None:
    """A second tick is silent. On the next day it is reported and observed again."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()

    same_day = stuck_sensor.tick()
    alerts_by_then = len(receiver.got)
    date_alerts_back(engine, "1 day")
    next_day = stuck_sensor.tick()

    assert same_day.asset_events == []
    assert (
        same_day.skip_message
        == "1 payment frozen for more than 72 hours, the same as before; already reported today"
    )
    assert alerts_by_then == 1
    assert not evaluation_in(next_day).passed
    assert next_day.skip_message == "1 payment frozen for more than 72 hours, the same as before; reported"
    assert len(receiver.got) == 2


def test_a_frozen_earning_is_one_line(engine: Engine, stuck_sensor: Sensor, receiver: Receiver) -> None:
    """With the number of its shares and their remaining sum."""
    first = place(engine, state=HoldState.FROZEN, shares=WITH_A_FEE)

    stuck_sensor.tick()

    [(title, message)] = receiver.got
    assert title == "3 payments frozen for more than 72 hours: 1000.00 PHP"
    assert f"hold {first}, job job-8, to {PAYEE}, 1000.00 PHP, 3 shares, frozen since" in message
    assert "more" not in message.replace("for more than", "")


def test_a_frozen_owner_is_one_line_reported_once_a_day(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """Also if more payments get stuck later. A payment with its own freeze has its own line."""
    for number in range(25):
        place(engine, job=f"job-{number}", payee="worker-cold", amount="10.00")
    own = place(engine, state=HoldState.FROZEN, payee="worker-cold")
    with engine.begin() as connection:
        freeze_owner(
            connection, owner="worker-cold", kind=FreezeKind.RISK, by="risk-2", reason="stolen", now=NOON
        )

    tick = stuck_sensor.tick()
    later = place(engine, job="job-99", payee="worker-cold", held_at=NOON + timedelta(seconds=1))
    second = stuck_sensor.tick()
    date_alerts_back(engine, "1 day")
    next_day = stuck_sensor.tick()

    evaluation = evaluation_in(tick)
    assert evaluation.metadata["stuck_holds"].value == 26
    assert [row["hold_id"] for row in rows_of(evaluation, "holds")] == [own]
    assert rows_of(evaluation, "frozen_owners") == [
        {
            "owner": "worker-cold",
            "holds": 25,
            "left": "250.00",
            "currency": "PHP",
            "kind": "RISK",
            "opened_by": "risk-2",
            "frozen_since": NOON.isoformat(),
        }
    ]
    (title, message), (_, of_next_day) = receiver.got
    assert title == "26 payments frozen for more than 72 hours: 1250.00 PHP"
    assert message.startswith(
        "owner worker-cold has been frozen since 2026-03-02 12:00 UTC by risk-2"
        " (frozen by risk control): 25 payments, 250.00 PHP\n"
        f"hold {own}, "
    )
    assert "more" not in message.splitlines()[2]
    assert "until the owner is unfrozen" in message
    assert later
    assert second.skip_message == "27 payments frozen for more than 72 hours; already reported today"
    assert next_day.skip_message == "27 payments frozen for more than 72 hours, the same as before; reported"
    assert "26 payments, 1250.00 PHP" in of_next_day


def test_a_payment_that_gets_stuck_later_is_reported_alone(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """A later message on that day names only the new one; the check lists both."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    later = place(engine, state=HoldState.FROZEN, job="job-9", amount="250.50")

    tick = stuck_sensor.tick()

    assert tick.skip_message == "2 payments frozen for more than 72 hours; 1 of them reported"
    assert evaluation_in(tick).metadata["stuck_holds"].value == 2
    title, message = receiver.got[-1]
    assert title == "1 payment frozen for more than 72 hours: 250.50 PHP"
    assert f"hold {later}, job job-9" in message
    assert "job-8" not in message
    assert len(receiver.got) == 2


def test_when_the_last_freeze_is_lifted_the_check_passes_again(engine: Engine, stuck_sensor: Sensor) -> None:
    """The tick after an unfreeze reports that nothing is stuck."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    with engine.begin() as connection:
        freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="looked", now=DAY_7)

    tick = stuck_sensor.tick()

    assert evaluation_in(tick).passed
    assert tick.skip_message == "no payment has been frozen for more than 72 hours"


def test_equal_number_of_other_stuck_payments_is_a_change(engine: Engine, stuck_sensor: Sensor) -> None:
    """The check is evaluated again."""
    first = place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    with engine.begin() as connection:
        freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="looked", now=DAY_7)
        second = place_hold(connection, state=HoldState.FROZEN)

    tick = stuck_sensor.tick()

    assert [row["hold_id"] for row in rows_of(evaluation_in(tick), "holds")] == [second] != [first]


def test_a_flood_of_stuck_payments_is_one_message(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """All are counted and summed by currency. The check lists a hundred, the message twenty."""
    with engine.begin() as connection:
        for number in range(101):
            place_hold(connection, state=HoldState.FROZEN, held_at=NOON + timedelta(seconds=number))
        place_hold(connection, state=HoldState.FROZEN, currency="JPY", amount="700", held_at=DAY_7)

    tick = stuck_sensor.tick()

    evaluation = evaluation_in(tick)
    assert evaluation.metadata["stuck_holds"].value == 102
    shown = rows_of(evaluation, "holds")
    assert len(shown) == 100
    assert [row["frozen_since"] for row in shown] == sorted(row["frozen_since"] for row in shown)
    [(title, message)] = receiver.got
    assert title == "102 payments frozen for more than 72 hours: 700 JPY, 101000.00 PHP"
    assert message.count("hold ") == 20
    assert f"hold {shown[0]['hold_id']}," in message
    assert "and 82 more" in message


def test_a_payment_frozen_without_a_freeze_is_reported_at_once(
    engine: Engine, superuser_url: str, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """Nothing would ever release it, so it is stuck from the beginning. Opening and closing a freeze frees
    it.
    """
    now = datetime.now(UTC)
    alone = place(engine, held_at=now)
    long_frozen = place(engine, state=HoldState.FROZEN, job="job-9")
    corrupt(superuser_url, f"UPDATE buffer.unsettled_hold SET state = 'FROZEN' WHERE hold_id = {alone}")

    tick, again = stuck_sensor.tick(), stuck_sensor.tick()
    with engine.begin() as connection:
        freeze = freeze_hold(
            connection, hold_id=alone, kind=FreezeKind.ADMIN, by=ADMIN, reason="stray", now=now
        )
        unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="stray", now=now)
        state = state_of(connection, alone)
    after = stuck_sensor.tick()

    rows = rows_of(evaluation_in(tick), "holds")
    assert [(row["hold_id"], row["kinds"]) for row in rows] == [
        (alone, "no open freeze"),
        (long_frozen, "ADMIN"),
    ]
    assert again.skip_message is not None
    assert again.skip_message.endswith("already reported today")
    [(title, message)] = receiver.got
    assert title == "2 payments frozen for more than 72 hours or with no open freeze: 2000.00 PHP"
    assert (
        "A payment frozen without an open freeze is an error in the books; docs/runbook.md says how to"
        " release it.\n"
    ) in message
    assert (
        f"hold {alone}, job job-8, to {PAYEE}, 1000.00 PHP, frozen since {now:%Y-%m-%d %H:%M} UTC" in message
    )
    assert state is HoldState.BUFFERED
    assert [row["hold_id"] for row in rows_of(evaluation_in(after), "holds")] == [long_frozen]


def test_a_payment_under_two_freezes_is_one(engine: Engine, stuck_sensor: Sensor, receiver: Receiver) -> None:
    """It counts once with its amount, since the older freeze, and names both kinds."""
    hold_id = place(engine, state=HoldState.FROZEN)
    with engine.begin() as connection:
        freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.RISK, by="risk-1", reason="a pattern", now=DAY_7
        )

    tick = stuck_sensor.tick()

    assert tick.skip_message == "1 payment frozen for more than 72 hours; reported"
    [(title, message)] = receiver.got
    assert title.endswith(": 1000.00 PHP")
    assert "frozen since 2026-03-02 12:00 UTC (frozen by an admin, frozen by risk control)" in message
