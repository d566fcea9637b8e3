"""Texts and times from outside, before they reach the books."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import NAME_LENGTH_MAX, parse_time, require_text, require_time


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
    """The platform's own ids are taken as they are."""
    assert require_text("owner", value) == value


@pytest.mark.parametrize("value", ["", " ", "\t", "\n", "\u00a0"])
def test_empty_text_is_refused(value: str) -> None:
    """A name of nothing but white space is no name."""
    with pytest.raises(InvalidInput, match="owner: must not be empty"):
        require_text("owner", value)


def test_optional_text_may_be_empty_but_not_blank() -> None:
    """Where a text may be left out it is left out wholly."""
    assert require_text("title", "", optional=True) == ""

    with pytest.raises(InvalidInput, match="title: must not be empty"):
        require_text("title", " ", optional=True)


def test_too_long_text_is_refused_with_both_lengths() -> None:
    """One character above the limit is refused, never cut."""
    with pytest.raises(InvalidInput, match="owner: 201 characters long; at most 200"):
        require_text("owner", "x" * (NAME_LENGTH_MAX + 1))


@pytest.mark.parametrize("value", [" worker-17", "worker-17 ", "worker-17\n", "\u2003worker-17"])
def test_space_around_text_is_refused(value: str) -> None:
    """Two ids that look the same would be two owners."""
    with pytest.raises(InvalidInput, match="starts or ends with a space"):
        require_text("owner", value)


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "a\tb", "a\x7fb", "a\x85b", "a\ud800b", "\x00"])
def test_control_characters_are_refused(value: str) -> None:
    """What PostgreSQL cannot store, or a log line cannot show, is no id."""
    with pytest.raises(InvalidInput, match="contains a control character"):
        require_text("owner", value)


@pytest.mark.parametrize("value", [None, 17, b"worker-17", ["worker-17"]])
def test_what_is_not_text_is_refused_by_its_type(value: object) -> None:
    """A number is not silently made into an id."""
    with pytest.raises(InvalidInput, match=f"owner: needs text, got {type(value).__name__}"):
        require_text("owner", value)  # type: ignore[arg-type]


def test_accepted_text_is_stored_as_it_was_written(connection: Connection) -> None:
    """Whatever passes comes back from PostgreSQL character by character."""

    @settings(deadline=None)  # The first statement opens the way to the server.
    @given(st.text(max_size=40))
    def stored(value: str) -> None:
        try:
            accepted = require_text("owner", value)
        except InvalidInput:
            return
        assert connection.execute(text("SELECT CAST(:value AS text)"), {"value": accepted}).scalar() == value

    stored()


def test_naive_time_is_refused_with_what_to_write() -> None:
    """A time without a zone could be any of forty moments."""
    with pytest.raises(InvalidInput, match="now 2026-03-02T12:00:00: has no time zone") as refusal:
        require_time("now", datetime(2026, 3, 2, 12))  # noqa: DTZ001 - it is what is refused

    assert "2026-03-02T12:00:00Z" in str(refusal.value)


def test_time_of_another_zone_becomes_utc() -> None:
    """Manila's noon is four in the morning UTC, and the same moment."""
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
    """A time that falls off the calendar in UTC is bad input, not a crash."""
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
    """ISO 8601 with a zone is a moment."""
    assert parse_time("now", written) == value


@pytest.mark.parametrize("written", ["", "tomorrow", "18/11/2026", "2026-13-01T00:00Z", "1789000000"])
def test_written_time_that_is_none_is_refused(written: str) -> None:
    """The refusal shows how a time is written."""
    with pytest.raises(InvalidInput, match="not an ISO 8601 time such as 2026-11-18T23:35Z"):
        parse_time("now", written)


@pytest.mark.parametrize("written", ["2026-11-18T23:35", "2026-11-18"])
def test_written_time_without_zone_is_refused(written: str) -> None:
    """A written time needs its zone too."""
    with pytest.raises(InvalidInput, match="has no time zone"):
        parse_time("now", written)
