"""Texts and times from callers, before they reach the books."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from buffer_pipeline import (
    Earning,
    FreezeKind,
    HoldState,
    add_many_pending_earnings,
    add_pending_earnings,
    approve_backjob,
    deposit,
    freeze_hold,
    mark_all_read,
    mark_read,
    reject_backjob,
    release_early,
    release_matured,
    request_backjob,
    set_contact,
    unfreeze_hold,
    withdraw,
    withdraw_backjob,
)
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.inputs import (
    EARLIEST,
    LATEST,
    NAME_LENGTH_MAX,
    parse_time,
    require_id,
    require_text,
    require_time,
)
from buffer_pipeline.policy import BACKJOBS_PER_JOB_MAX, COOLDOWN_HOURS_MAX, Policy
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYEE, PAYER, books, place_hold
from buffer_pipeline_tests.support.read_rows import all_holds


@pytest.mark.parametrize(
    "value",
    [
        "worker-17",
        "a",
        "x" * NAME_LENGTH_MAX,
        "Łódź 2",
        "👷🏽",
        "job/8?x=1&y=2",
        "'; DROP TABLE hold; --",
        "0",
    ],
)
def test_text_comes_back_unchanged(value: str) -> None:
    """The platform's ids are stored unchanged."""
    assert require_text("owner", value) == value


@pytest.mark.parametrize("value", ["", " ", "\t", "\n", "\u00a0"])
def test_empty_text_is_refused(value: str) -> None:
    """So is white space only."""
    with pytest.raises(InvalidInput, match="owner: must not be empty"):
        require_text("owner", value)


def test_optional_text_may_be_empty_but_not_blank() -> None:
    """White space only is refused."""
    assert require_text("title", "", optional=True) == ""

    with pytest.raises(InvalidInput, match="title: must not be empty"):
        require_text("title", " ", optional=True)


def test_too_long_text_is_refused_with_both_lengths() -> None:
    """It is never cut."""
    with pytest.raises(InvalidInput, match="owner: 201 characters long; at most 200"):
        require_text("owner", "x" * (NAME_LENGTH_MAX + 1))


@pytest.mark.parametrize("value", [" worker-17", "worker-17 ", "worker-17\n", "\u2003worker-17"])
def test_space_around_text_is_refused(value: str) -> None:
    """Two ids that look the same would be two owners."""
    with pytest.raises(InvalidInput, match="starts or ends with a space"):
        require_text("owner", value)


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "a\tb", "a\x7fb", "a\x85b", "a\ud800b", "\x00"])
def test_control_characters_are_refused(value: str) -> None:
    """PostgreSQL cannot store some of them, and log lines cannot show others."""
    with pytest.raises(InvalidInput, match="contains a control character"):
        require_text("owner", value)


@pytest.mark.parametrize("value", [None, 17, b"worker-17", ["worker-17"]])
def test_non_text_is_refused_by_its_type(value: object) -> None:
    """A number is not silently converted to an id."""
    with pytest.raises(InvalidInput, match=f"owner: needs text, got {type(value).__name__}"):
        require_text("owner", value)  # type: ignore[arg-type]


def test_accepted_text_is_stored_unchanged(connection: Connection) -> None:
    """PostgreSQL returns every character."""

    @settings(deadline=None)  # The first statement opens the connection.
    @given(st.text(max_size=40))
    def stored(value: str) -> None:
        try:
            accepted = require_text("owner", value)
        except InvalidInput:
            return
        assert connection.execute(text("SELECT CAST(:value AS text)"), {"value": accepted}).scalar() == value

    stored()


def test_naive_time_is_refused_with_an_example() -> None:
    """The refusal shows the correct form."""
    with pytest.raises(InvalidInput, match="now 2026-03-02T12:00:00: has no time zone") as refusal:
        require_time("now", datetime(2026, 3, 2, 12))  # noqa: DTZ001 - it is what is refused

    assert "2026-03-02T12:00:00Z" in str(refusal.value)


def test_time_of_another_zone_becomes_utc() -> None:
    """Noon in Manila is 04:00 UTC."""
    manila = datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=8)))

    assert require_time("now", manila) == manila
    assert require_time("now", manila).isoformat() == "2026-03-02T04:00:00+00:00"


@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_time_that_has_no_utc_is_refused(value: datetime) -> None:
    """A time outside the calendar in UTC is bad input, not a crash."""
    with pytest.raises(InvalidInput, match="now"):
        require_time("now", value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2026-11-18T23:35Z", datetime(2026, 11, 18, 23, 35, tzinfo=UTC)),
        ("2026-11-18 23:35:01+00:00", datetime(2026, 11, 18, 23, 35, 1, tzinfo=UTC)),
        (" 2026-11-19T07:35+08:00 ", datetime(2026, 11, 18, 23, 35, tzinfo=UTC)),
    ],
)
def test_written_time_is_read_into_utc(written: str, value: datetime) -> None:
    """ISO 8601 with a zone."""
    assert parse_time("now", written) == value


@pytest.mark.parametrize("written", ["", "tomorrow", "18/11/2026", "2026-13-01T00:00Z", "1789000000"])
def test_malformed_time_is_refused(written: str) -> None:
    """The refusal shows how to write a time."""
    with pytest.raises(InvalidInput, match="not an ISO 8601 time such as 2026-11-18T23:35Z"):
        parse_time("now", written)


@pytest.mark.parametrize("written", ["2026-11-18T23:35", "2026-11-18"])
def test_written_time_without_zone_is_refused(written: str) -> None:
    """A time in text needs its zone too."""
    with pytest.raises(InvalidInput, match="has no time zone"):
        parse_time("now", written)


# ---- what every verb refuses

NO_ID: Final = (1.5, True, "2", Decimal(1), None, b"1")
AGES: Final = (
    EARLIEST - timedelta(microseconds=1),
    LATEST,
    datetime(9999, 12, 31, tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
)
BY: Final[dict[str, Any]] = {"by": ADMIN, "reason": "looked at"}

BY_ID: Final[dict[str, tuple[Callable[..., object], str, dict[str, Any]]]] = {
    "release_early": (release_early, "hold_id", {**BY, "as_admin": True}),
    "reject_backjob": (reject_backjob, "backjob_id", BY),
    "approve_backjob": (approve_backjob, "backjob_id", BY),
    "withdraw_backjob": (withdraw_backjob, "backjob_id", BY),
    "freeze_hold": (freeze_hold, "hold_id", {**BY, "kind": FreezeKind.RISK}),
    "unfreeze_hold": (unfreeze_hold, "freeze_id", BY),
    "mark_all_read": (mark_all_read, "up_to", {"owner": PAYEE}),
}
MONEY: Final = {"amount": "5", "currency": "PHP"}
OTHERS: Final[dict[str, tuple[Callable[..., object], dict[str, Any]]]] = {
    "add_pending_earnings": (
        add_pending_earnings,
        {"reference": "late", "job": JOB, "payee": PAYEE, "payer": PAYER, **MONEY},
    ),
    "add_many_pending_earnings": (
        add_many_pending_earnings,
        {
            "earnings": [
                Earning(reference="late", job=JOB, payee=PAYEE, payer=PAYER, amount="5", currency="PHP")
            ]
        },
    ),
    "release_matured": (release_matured, {"batch_limit": 10}),
    "request_backjob": (request_backjob, {"job": JOB, **BY}),
    "deposit": (deposit, {"owner": PAYEE, "reference": "late", **MONEY}),
    "withdraw": (withdraw, {"owner": PAYEE, "reference": "late", **MONEY}),
    "set_contact": (set_contact, {"owner": PAYEE}),
    "mark_read": (mark_read, {"owner": PAYEE, "notification_ids": [1]}),
}


@pytest.mark.parametrize("value", NO_ID, ids=repr)
@pytest.mark.parametrize("verb", BY_ID)
def test_id_that_is_no_int_is_refused(connection: Connection, verb: str, value: object) -> None:
    """By its type, because PostgreSQL would round it to another id."""
    call, argument, others = BY_ID[verb]
    for _ in range(3):
        place_hold(connection, state=HoldState.FROZEN)
    before = books(connection)
    if verb == "release_early" and value is None:
        return  # Without an id it would mean a job.

    with pytest.raises(InvalidInput, match=f"{type(value).__name__}$"):
        call(connection, **{argument: value}, **others, now=NOON)

    assert books(connection) == before


@pytest.mark.parametrize("value", [2**63, 10**5_000, -(10**5_000), 0], ids=int.bit_length)
def test_an_id_that_no_row_has_is_not_found(value: int) -> None:
    """With any number of digits, even more than Python prints."""
    with pytest.raises(NotFound, match=r"hold .*: does not exist"):
        require_id("hold", value)


@pytest.mark.parametrize("now", AGES, ids=str)
@pytest.mark.parametrize("verb", [*BY_ID, *OTHERS])
def test_clock_out_of_range_is_refused(connection: Connection, verb: str, now: datetime) -> None:
    """No verb writes a time, or one computed from it, that could not be read again."""
    place_hold(connection, state=HoldState.FROZEN)
    before = books(connection)
    if verb in BY_ID:
        call, argument, others = BY_ID[verb]
        given_values = {argument: 1, **others}
    else:
        call, given_values = OTHERS[verb]

    with pytest.raises(InvalidInput, match=r"^now .*: lies outside the years 1970 to 2999$"):
        call(connection, **given_values, now=now)

    assert books(connection) == before


def test_the_latest_rejection_can_be_listed(connection: Connection) -> None:
    """The longest cooldown on the last possible day is a date that every reader can show."""
    policy = Policy(cooldown_hours=COOLDOWN_HOURS_MAX)
    last = LATEST - timedelta(microseconds=1)
    hold_id = place_hold(connection, held_at=NOON, release_date=last)
    requested = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)

    reject_backjob(
        connection, backjob_id=requested.backjob_id, by=ADMIN, reason="no", now=last, policy=policy
    )

    listed = all_holds(connection)
    assert [row["release_date"] for row in listed] == [last + policy.cooldown]
    assert show_hold(connection, hold_id=hold_id)["release_date"] == last + policy.cooldown
    assert last + BACKJOBS_PER_JOB_MAX * policy.cooldown < datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["buffer_days", "cooldown_hours", "max_backjobs_per_job", "stuck_after_hours"]
)
@pytest.mark.parametrize("figure", [-1, 10**7, 10**5_000], ids=int.bit_length)
def test_policy_out_of_range_is_refused(name: str, figure: int) -> None:
    """It has the limits of the settings."""
    with pytest.raises(InvalidInput, match=f"^{name}: must be from 0 to "):
        Policy(**{name: figure})
