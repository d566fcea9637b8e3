"""Retry times and the circuit breaker, without a clock or a network."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from buffer_pipeline.notifications.breaker import Breaker
from buffer_pipeline.notifications.retry import DELAY_MAX, DELAY_MIN, GIVE_UP_AFTER, next_attempt
from buffer_pipeline_tests.support.builders import NOON


def after(attempts: int, *, jitter: float = 1.0, after_seconds: float | None = None) -> timedelta:
    """Return the delay after an attempt that had `attempts` before it."""
    at = next_attempt(
        now=NOON, attempts=attempts, first_attempt_at=NOON, jitter=jitter, after_seconds=after_seconds
    )
    assert at is not None
    return at - NOON


def test_delay_doubles_up_to_six_hours() -> None:
    """At most 10 s after the first attempt, then twice as long each time, never more than 6 hours."""
    assert [after(attempts).total_seconds() for attempts in (0, 1, 2, 11, 12, 500)] == [
        10, 20, 40, 20_480, 21_600, 21_600,
    ]  # fmt: skip


def test_jitter_is_full() -> None:
    """Any delay from a second to the longest."""
    assert [after(3, jitter=jitter).total_seconds() for jitter in (0.0, 0.25, 1.0)] == [1, 20, 80]


def test_retry_after_is_a_minimum() -> None:
    """Up to three days. A longer delay of our own stays."""
    assert after(0, after_seconds=120) == timedelta(seconds=120)
    assert after(5, after_seconds=1) == timedelta(seconds=320)
    assert after(0, after_seconds=86_400) == timedelta(days=1)
    assert after(0, after_seconds=1e12) == timedelta(days=3)


@given(
    attempts=st.integers(0, 10_000),
    seconds=st.floats(0, GIVE_UP_AFTER.total_seconds(), exclude_max=True),
    jitter=st.floats(0, 1),
    requested_seconds=st.none() | st.floats(0, 1e15),
)
def test_next_attempt_is_later_and_not_after_three_days(
    attempts: int, seconds: float, jitter: float, requested_seconds: float | None
) -> None:
    """At most 6 hours or Retry-After later, and the last attempt at three days."""
    now = NOON + timedelta(seconds=seconds)

    at = next_attempt(
        now=now, attempts=attempts, first_attempt_at=NOON, jitter=jitter, after_seconds=requested_seconds
    )

    if now < NOON + GIVE_UP_AFTER:
        assert at is not None
        last = NOON + GIVE_UP_AFTER
        asked_for = timedelta(seconds=min(requested_seconds or 0, GIVE_UP_AFTER.total_seconds()))
        assert now < at <= min(now + max(DELAY_MAX, asked_for), last)
        assert at >= min(now + asked_for, last)
        assert at >= min(now + DELAY_MIN, NOON + GIVE_UP_AFTER)


def test_given_up_three_days_after_the_first() -> None:
    """A failed attempt at three days or later is the last."""
    last = NOON + GIVE_UP_AFTER

    assert next_attempt(now=last, attempts=20, first_attempt_at=NOON) is None
    just_before = next_attempt(now=last - timedelta(microseconds=1), attempts=20, first_attempt_at=NOON)
    assert isinstance(just_before, datetime)
    assert just_before == last


def test_breaker_opens_after_five_in_a_row() -> None:
    """An answer in between resets the count."""
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(now=0)
    breaker.succeeded()
    for _ in range(4):
        breaker.failed(now=0)
    assert breaker.is_closed()

    breaker.failed(now=0)

    assert not breaker.is_closed()
    assert [breaker.seconds_to_probe(now=now) for now in (0, 29, 30, 99)] == [30, 1, 0, 0]


def test_probe_decides() -> None:
    """A failed probe opens the breaker for another 30 seconds, an answered one closes it."""
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(now=0)

    breaker.failed(now=1)
    assert breaker.seconds_to_probe(now=1) == 29
    breaker.failed(now=31)
    assert breaker.seconds_to_probe(now=31) == 30
    breaker.succeeded()
    assert breaker.is_closed()


def test_retry_after_extends_the_open_breaker() -> None:
    """Retry-After opens the breaker for as long."""
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(now=0, pause_seconds=90)

    assert breaker.seconds_to_probe(now=0) == 90


def test_longest_retry_after_in_a_row_counts() -> None:
    """From any of the failures, including later ones, up to three days."""
    breaker = Breaker()
    for requested_seconds in (90, None, 60, None, 30):
        breaker.failed(now=0, pause_seconds=requested_seconds)
    assert breaker.seconds_to_probe(now=0) == 90

    breaker.failed(now=10, pause_seconds=100)
    assert breaker.seconds_to_probe(now=10) == 100
    breaker.failed(now=10, pause_seconds=1e12)
    assert breaker.seconds_to_probe(now=10) == GIVE_UP_AFTER.total_seconds()


def test_breaker_that_was_open_before_is_probed_once() -> None:
    """One failure opens it again, one answer closes it."""
    breaker = Breaker()
    breaker.open_until = 100.0

    assert breaker.seconds_to_probe(now=40) == 60
    breaker.failed(now=100)
    assert breaker.seconds_to_probe(now=100) == 30
    breaker.succeeded()
    assert breaker.is_closed()
