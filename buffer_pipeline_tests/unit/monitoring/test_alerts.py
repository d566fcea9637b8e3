"""Alerts: their settings, sending them, and recording what was sent."""

import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import SettingError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.monitoring import alerts as delivery
from buffer_pipeline.monitoring.alerts import Alert, send_alert
from buffer_pipeline.monitoring.sent_alerts import (
    AlertKind,
    day_of,
    is_alert_sent,
    record_sent_alert,
    unreported_stuck_payments,
)
from buffer_pipeline.reports.stuck import count_stuck, stuck_holds
from buffer_pipeline.settings import Settings, load_settings
from buffer_pipeline_tests.support.builders import NOON, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.earnings import OF_A_FEW_UNITS
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.refunds import freeze_for_risk, refund
from buffer_pipeline_tests.support.rules import shares_of

SECRET: Final = "hunter2"
DAY_4: Final = NOON + timedelta(days=4)
THREE_DAYS: Final = timedelta(days=3)
ALERT: Final = Alert(title="3 payments overdue", body="hold 1\nhold 2\nhold 3")


# ---- the settings


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("", ()),
        (" \n", ()),
        ("json://one.example.com/a", ("json://one.example.com/a",)),
        ("json://one.example.com,xml://two.example.com", ("json://one.example.com", "xml://two.example.com")),
        (
            " json://one.example.com ,\n\txml://two.example.com, ",
            ("json://one.example.com", "xml://two.example.com"),
        ),
        (
            f"mailto://me:{SECRET}@example.com?to=a@example.com,b@example.com json://one.example.com",
            (f"mailto://me:{SECRET}@example.com?to=a@example.com,b@example.com", "json://one.example.com"),
        ),
    ],
    ids=["unset", "blank", "one", "comma", "white space", "comma inside"],
)
def test_alert_urls_are_separated_by_commas_or_white_space(
    monkeypatch: pytest.MonkeyPatch, given: str, urls: tuple[str, ...]
) -> None:
    """A comma inside a URL stays there. An empty variable is no URL."""
    monkeypatch.setenv("BUFFER_ALERT_URLS", given)

    settings = load_settings()

    assert settings.alert_urls == urls
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (SECRET, "URL 1 of 1"),
        (f"https://hooks.example.com/{SECRET}", "URL 1 of 1"),
        (f"json://one.example.com slack://{SECRET}", "URL 2 of 2"),
        (f"unknown://{SECRET}, json://one.example.com", "URL 1 of 2"),
        (f"json://me:{SECRET}@[broken", "URL 1 of 1"),
    ],
    ids=["no URL", "web hook", "incomplete", "unknown", "broken"],
)
def test_a_wrong_alert_url_is_named_by_its_place(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    given: str,
    place: str,
) -> None:
    """The message has the variable and the URL's position, but not the URL, which is secret."""
    monkeypatch.setenv("BUFFER_ALERT_URLS", given)

    with caplog.at_level(logging.DEBUG), pytest.raises(SettingError) as refused:
        load_settings().known_alert_urls()

    message = str(refused.value)
    assert message.startswith(f"BUFFER_ALERT_URLS: {place} is not one that Apprise can use")
    assert "\n" not in message
    shown = message + caplog.text + "".join(capfd.readouterr())
    assert SECRET not in shown
    assert "example.com/" not in shown
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("", "http://127.0.0.1:3000"),
        ("https://dagster.example.com/", "https://dagster.example.com"),
        ("http://10.0.0.5:3000/dagster", "http://10.0.0.5:3000/dagster"),
    ],
)
def test_dagster_url_is_the_base_of_links(monkeypatch: pytest.MonkeyPatch, given: str, base: str) -> None:
    """Without its last slash. The default is the address of Dagster's webserver."""
    monkeypatch.setenv("BUFFER_DAGSTER_URL", given)

    settings = load_settings()

    assert settings.dagster_url == base


@pytest.mark.parametrize(
    "given",
    [
        "dagster.example.com",
        "ftp://dagster.example.com",
        f"https://me:{SECRET}@dagster.example.com",
        f"https://dagster.example.com/?token={SECRET}",
        f"https://dagster.example.com:{SECRET}",
        "https://[broken",
    ],
)
def test_dagster_url_with_a_user_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Every receiver of an alert would see it. The refusal does not repeat it."""
    monkeypatch.setenv("BUFFER_DAGSTER_URL", given)

    with pytest.raises(SettingError, match="BUFFER_DAGSTER_URL: not a base for links") as refused:
        load_settings()

    assert SECRET not in str(refused.value)


# ---- sending


def test_an_alert_goes_to_every_url(receiver: Receiver) -> None:
    """Each receiver gets the title and the text."""
    sent = send_alert(ALERT, urls=[receiver.url, f"{receiver.url}?+X-Second=yes"])

    assert sent
    assert receiver.got == [(ALERT.title, ALERT.body)] * 2


def test_without_urls_an_alert_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning with its full text, and it counts as sent."""
    sent = send_alert(ALERT, urls=Settings().alert_urls)

    assert sent
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("buffer_pipeline.monitoring.sent_alerts", "WARNING", f"{ALERT.title}\n{ALERT.body}")
    ]


def test_refused_alert_is_not_sent(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """It raises nothing. The log names the receiver by position, without the URL's secrets."""
    receiver.answers(500)

    sent = send_alert(ALERT, urls=[f"{receiver.url}?+X-Token={SECRET}"])

    assert not sent
    assert "alert not taken by receiver 1 of 1, JSON: FAILURE (3 payments overdue)" in caplog.messages
    assert SECRET not in caplog.text


def test_alert_accepted_by_one_receiver_is_sent(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """The others do not get it again when one is down; that one is logged."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sent = send_alert(ALERT, urls=[f"json://127.0.0.1:{nobody.getsockname()[1]}/", receiver.url])

    assert sent
    assert len(receiver.got) == 1
    assert "alert not taken by receiver 1 of 2, JSON: FAILURE (3 payments overdue)" in caplog.messages


def test_hanging_receiver_times_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes no longer than the time limit of an alert."""
    monkeypatch.setattr(delivery, "ALERT_SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        began = time.monotonic()

        sent = send_alert(ALERT, urls=[f"json://127.0.0.1:{hanging.getsockname()[1]}/?rto=60&cto=60"])

        seconds = time.monotonic() - began
    assert not sent
    assert seconds < 3
    assert "alert not taken by receiver 1 of 1, JSON: TIMEOUT (3 payments overdue)" in caplog.messages


def test_an_alert_too_long_for_a_service_is_cut(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a limit gets the beginning."""
    from apprise.plugins.custom_json import NotifyJSON

    monkeypatch.setattr(NotifyJSON, "body_maxlen", 100)

    sent = send_alert(Alert(title="a flood", body="hold 1\n" * 1000), urls=[receiver.url])

    assert sent
    [(_, message)] = receiver.got
    assert message.startswith("hold 1\n")
    assert len(message) <= 100


# ---- recording


def test_payment_is_reported_once_per_utc_day(connection: Connection) -> None:
    """Again from midnight UTC on, not before."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    midnight = datetime(2026, 3, 8, tzinfo=UTC)
    sent_at = midnight - timedelta(hours=1)
    record_sent_alert(
        connection,
        kind=AlertKind.STUCK_PAYMENT,
        hold_ids=f"{{{hold_id}}}",
        period=day_of(sent_at),
        now=sent_at,
    )

    unreported = [
        unreported_stuck_payments(
            connection, now=now, older_than=THREE_DAYS, period=day_of(now), shown=10
        ).shown_ids
        for now in (sent_at, midnight - timedelta(microseconds=1), midnight)
    ]

    assert unreported == [[], [], [hold_id]]


def test_day_of_an_alert_is_in_utc() -> None:
    """Half past midnight in Manila is the day before."""
    manila = datetime.fromisoformat("2026-03-08T00:30:00+08:00")

    assert day_of(manila) == datetime(2026, 3, 7, tzinfo=UTC)


def test_unreported_payments_have_their_amounts(connection: Connection) -> None:
    """The longest frozen first, and amounts by currency."""
    later = place_hold(
        connection, state=HoldState.FROZEN, held_at=NOON + timedelta(minutes=1), amount="10.50"
    )
    first = place_hold(connection, state=HoldState.FROZEN, amount="20.25")
    yen = place_hold(
        connection, state=HoldState.FROZEN, held_at=NOON + timedelta(minutes=2), amount="700", currency="JPY"
    )
    reported = place_hold(connection, state=HoldState.FROZEN)
    place_hold(connection, state=HoldState.FROZEN, held_at=DAY_4 - THREE_DAYS)
    place_hold(connection)
    period = day_of(DAY_4)
    record_sent_alert(
        connection, kind=AlertKind.STUCK_PAYMENT, hold_ids=f"{{{reported}}}", period=period, now=DAY_4
    )

    unreported = unreported_stuck_payments(
        connection, now=DAY_4, older_than=THREE_DAYS, period=period, shown=2
    )

    assert unreported.holds == 3
    assert unreported.shown_ids == [first, later]
    assert sorted(unreported.hold_ids.strip("{}").split(",")) == sorted(map(str, (first, later, yen)))
    assert unreported.amounts_minor == {"PHP": 3075, "JPY": 700}


def test_an_alert_is_of_its_kind_and_period(connection: Connection) -> None:
    """An alert of this hour does not count for the next hour, nor for another kind."""
    record_sent_alert(connection, kind=AlertKind.OVERDUE_RELEASE, period=NOON, now=NOON)

    this_hour = is_alert_sent(connection, kind=AlertKind.OVERDUE_RELEASE, period=NOON)
    next_hour = is_alert_sent(connection, kind=AlertKind.OVERDUE_RELEASE, period=NOON + timedelta(hours=1))
    other_kind = is_alert_sent(connection, kind=AlertKind.STUCK_PAYMENT, period=NOON)

    assert (this_hour, next_hour, other_kind) == (True, False, False)


def test_several_alerts_of_a_day_add_up(connection: Connection) -> None:
    """Each payment in any of them counts as reported once."""
    hold_ids = [place_hold(connection, state=HoldState.FROZEN) for _ in range(4)]
    period = day_of(DAY_4)
    for reported in (hold_ids[:2], hold_ids[1:3]):
        ids = f"{{{','.join(map(str, reported))}}}"
        record_sent_alert(connection, kind=AlertKind.STUCK_PAYMENT, hold_ids=ids, period=period, now=DAY_4)

    unreported = unreported_stuck_payments(
        connection, now=DAY_4, older_than=THREE_DAYS, period=period, shown=2
    )

    assert unreported.shown_ids == hold_ids[3:]
    assert unreported.hold_ids == f"{{{hold_ids[3]}}}"


# ---- the reports


def test_stuck_payments_are_counted_as_they_are_listed(connection: Connection) -> None:
    """The count and the fingerprint match the rows."""
    first = place_hold(connection, state=HoldState.FROZEN)
    one = count_stuck(connection, now=DAY_4, older_than=THREE_DAYS)
    second = place_hold(connection, state=HoldState.FROZEN, held_at=NOON - timedelta(hours=1))
    place_hold(connection, state=HoldState.FROZEN, held_at=DAY_4 - THREE_DAYS)
    two = count_stuck(connection, now=DAY_4, older_than=THREE_DAYS)

    rows = stuck_holds(connection, now=DAY_4, older_than=THREE_DAYS)
    limited = stuck_holds(connection, now=DAY_4, older_than=THREE_DAYS, limit=1)
    chosen = stuck_holds(connection, now=DAY_4, older_than=THREE_DAYS, hold_ids=[first])

    assert [row["hold_id"] for row in rows] == [second, first]
    assert [row["hold_id"] for row in limited] == [second]
    assert [row["hold_id"] for row in chosen] == [first]
    assert (one.holds, two.holds) == (1, 2)
    assert one.fingerprint != two.fingerprint
    assert count_stuck(connection, now=NOON, older_than=THREE_DAYS).holds == 0


def test_a_frozen_earning_is_one_row(connection: Connection) -> None:
    """For all shares with no other freeze, with their remaining sum. Each counts as a payment."""
    first = place_hold(connection, shares=WITH_A_FEE, state=HoldState.FROZEN)
    of_two = place_hold(connection, shares=WITH_A_FEE, state=HoldState.FROZEN)
    fee = shares_of(connection, of_two)["FEE"]
    freeze_for_risk(connection, fee)

    rows = stuck_holds(connection, now=DAY_4, older_than=THREE_DAYS)

    assert [(row["hold_id"], row["holds"], row["left_minor"], row["kinds"]) for row in rows] == [
        (first, 3, 100_000, ["ADMIN"]),
        (of_two, 2, 88_000, ["ADMIN"]),
        (fee, 1, 12_000, ["ADMIN", "RISK"]),
    ]
    assert count_stuck(connection, now=DAY_4, older_than=THREE_DAYS).holds == 6


def test_shares_are_listed_one_by_one_after_the_first_was_refunded(connection: Connection) -> None:
    """The refund has closed the first freeze, so it cannot represent the others."""
    first = place_hold(connection, amount="0.05", shares=OF_A_FEW_UNITS, state=HoldState.FROZEN)
    refund(connection, first, amount="0.03")
    shares = shares_of(connection, first)

    rows = stuck_holds(connection, now=DAY_4, older_than=THREE_DAYS)

    assert [(row["hold_id"], row["holds"], row["left_minor"]) for row in rows] == [
        (shares["FEE"], 1, 1),
        (shares["TAX"], 1, 1),
    ]
