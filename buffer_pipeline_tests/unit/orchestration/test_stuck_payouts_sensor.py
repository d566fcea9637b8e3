"""The sensor of stuck payouts, tick by tick, with a real HTTP receiver."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.payouts import approve_payout_batch, cancel_payout_batch, send_payout_batch
from buffer_pipeline.policy import PayoutPolicy, Policy
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    MAKER,
    make_batch,
    mark,
    payable,
    request,
    said,
)
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.runs import rows_of
from buffer_pipeline_tests.support.sensors import DAGSTER_URL, Sensor, date_alerts_back, evaluation_in

pytestmark = pytest.mark.usefixtures("this_hour")


@pytest.fixture
def sensor(books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of stuck payouts."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor("stuck_payouts", lasting_instance, books=books_of, alerts=alerts)


def ago(**span: float) -> datetime:
    """Return a time before now."""
    return datetime.now(UTC) - timedelta(**span)


def place(connection: Connection, owner: str, *, made: datetime, sent: datetime | None = None) -> int:
    """Make a batch with a payout of 100 pesos; approve and send it at `sent`. Return its id."""
    payable(connection, owner)
    request(connection, owner, now=made)
    id_ = make_batch(connection, now=made).payout_batch_id
    if sent is not None:
        approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=sent)
        send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=sent)
    return id_


def test_what_is_stuck_is_flagged_and_reported(engine: Engine, sensor: Sensor, receiver: Receiver) -> None:
    """Sent for more than five days, not approved and not sent for more than one; nothing that is younger."""
    with engine.begin() as connection:
        sent = place(connection, "worker-1", made=ago(days=7), sent=ago(days=6))
        place(connection, "worker-2", made=ago(days=5), sent=ago(days=4))
        made = place(connection, "worker-3", made=ago(hours=30))
        approved = place(connection, "worker-4", made=ago(days=9))
        approve_payout_batch(connection, payout_batch_id=approved, by=APPROVER, now=ago(hours=25))
        late = place(connection, "worker-5", made=ago(days=9))
        approve_payout_batch(connection, payout_batch_id=late, by=APPROVER, now=ago(hours=23))
        place(connection, "worker-6", made=ago(hours=23))

    tick = sensor.tick()

    evaluation = evaluation_in(tick)
    assert (evaluation.check_name, evaluation.passed) == ("no_payout_stuck", False)
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert [(row["stage"], row["payout_batch_id"]) for row in rows_of(evaluation, "batches")] == [
        ("UNANSWERED", sent),
        ("UNAPPROVED", made),
        ("UNSENT", approved),
    ]
    assert tick.skip_message == "3 batches of payouts stuck; reported"
    [(title, message)] = receiver.got
    assert title == "3 batches of payouts stuck: 300.00 PHP"
    assert f"batch {sent} sent {ago(days=6):%Y-%m-%d}" in message
    assert "UTC, no status of 1 payout, 100.00 PHP" in message
    assert f"batch {made} made " in message
    assert "by finance-1, not approved: 1 payout, 100.00 PHP" in message
    assert "not sent, so it has no file yet: 1 payout, 100.00 PHP" in message
    assert f"{DAGSTER_URL}/assets/payout_batches" in message


def test_each_batch_is_reported_once_a_day(engine: Engine, sensor: Sensor, receiver: Receiver) -> None:
    """A later one alone. On the next day, what is still stuck."""
    with engine.begin() as connection:
        first = place(connection, "worker-1", made=ago(days=2))
    sensor.tick()
    same_day = sensor.tick()
    with engine.begin() as connection:
        second = place(connection, "worker-2", made=ago(days=3))
    later = sensor.tick()
    date_alerts_back(engine, "1 day")
    next_day = sensor.tick()

    assert same_day.asset_events == []
    assert same_day.skip_message == "1 batch of payouts stuck, the same as before; already reported today"
    assert later.skip_message == "2 batches of payouts stuck; 1 of them reported"
    assert next_day.skip_message == "2 batches of payouts stuck, the same as before; reported"
    messages = [message for _, message in receiver.got]
    assert [f"batch {first} " in message for message in messages] == [True, False, True]
    assert [f"batch {second} " in message for message in messages] == [False, True, True]


def test_payouts_without_a_batch_are_reported_once_a_day(
    engine: Engine, sensor: Sensor, receiver: Receiver
) -> None:
    """With what keeps them. A later one alone; and nothing waits when a batch has taken them."""
    with engine.begin() as connection:
        place(connection, "worker-1", made=ago(days=2))
        payable(connection, "worker-2")
        early = request(connection, "worker-2", now=ago(days=9)).payout_id
        request(connection, "worker-2", now=ago(days=6))
    tick, again = sensor.tick(), sensor.tick()
    with engine.begin() as connection:
        late = request(connection, "worker-2", now=ago(days=8)).payout_id
    later = sensor.tick()
    with engine.begin() as connection:
        make_batch(connection, now=ago(hours=1))

    after = sensor.tick()

    assert [row["payout_id"] for row in rows_of(evaluation_in(tick), "payouts")] == [early]
    assert tick.skip_message == "1 batch of payouts and 1 payout without a batch stuck; reported"
    assert again.asset_events == []
    assert later.skip_message == "1 batch of payouts and 2 payouts without a batch stuck; 1 of them reported"
    (title, message), (_, second) = receiver.got
    assert title == "1 batch of payouts and 1 payout without a batch stuck: 200.00 PHP"
    assert f"payout {early} of worker-2 requested {ago(days=9):%Y-%m-%d}" in message
    assert "in no batch, 100.00 PHP by IBAN: nobody makes a batch" in message
    assert "buffer-pipeline payout batch make" in message
    assert [f"payout {id_} " in second for id_ in (early, late)] == [False, True]
    assert after.skip_message == "1 batch of payouts stuck; already reported today"
    assert [row["stage"] for row in rows_of(evaluation_in(after), "batches")] == ["UNAPPROVED"]


def test_what_was_answered_or_cancelled_passes(engine: Engine, sensor: Sensor, receiver: Receiver) -> None:
    """The tick after it reports that nothing waits."""
    with engine.begin() as connection:
        payable(connection)
        payout_id = request(connection).payout_id
        sent = make_batch(connection, now=ago(days=8))
        approve_payout_batch(connection, payout_batch_id=sent.payout_batch_id, by=APPROVER, now=ago(days=7))
        send_payout_batch(connection, payout_batch_id=sent.payout_batch_id, by=MAKER, now=ago(days=7))
        made = place(connection, "worker-2", made=ago(days=2))
    before = sensor.tick()
    with engine.begin() as connection:
        mark(connection, sent, said(payout_id), now=ago(days=1))
        cancel_payout_batch(connection, payout_batch_id=made, by=MAKER, reason="wrong", now=ago(hours=1))

    after, again = sensor.tick(), sensor.tick()

    assert not evaluation_in(before).passed
    assert evaluation_in(after).passed
    assert after.skip_message == again.skip_message == "no payout waits for too long"
    assert again.asset_events == []
    assert len(receiver.got) == 1


def test_settings_say_how_long(
    engine: Engine, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """Days until an answer, and hours until an approval."""
    with engine.begin() as connection:
        place(connection, "worker-1", made=ago(days=8), sent=ago(days=7))
        place(connection, "worker-2", made=ago(hours=30))
    patient = Books(
        engine=engine, policy=Policy(), payout_policy=PayoutPolicy(answer_days=10, approval_hours=48)
    )
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)

    tick = Sensor("stuck_payouts", lasting_instance, books=patient, alerts=alerts).tick()

    assert evaluation_in(tick).passed
    assert receiver.got == []
