"""When a message that could not be sent is tried again, and when it is given up."""

import random
from datetime import datetime, timedelta
from typing import Final

FIRST_DELAY: Final = timedelta(seconds=10)
DELAY_MAX: Final = timedelta(hours=6)
DELAY_MIN: Final = timedelta(seconds=1)
GIVE_UP_AFTER: Final = timedelta(days=3)


def next_attempt(
    *,
    now: datetime,
    attempts: int,
    first_attempt_at: datetime | None,
    after_seconds: float | None = None,
    jitter: float | None = None,
) -> datetime | None:
    """Return when to try again after the attempt at `now`, None to give up.

    Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015). The delay is
    random: up to 10 s after the first attempt, up to twice as much after each further one, up to 6 hours.
    It is at least 1 s, and at least `after_seconds` if the receiver asked for that. The last attempt is
    three days after the first one at the latest.

    `attempts` were made before this one, the first of them at `first_attempt_at`. `jitter` is from 0 to 1.
    """
    last_at = (first_attempt_at or now) + GIVE_UP_AFTER
    if now >= last_at:
        return None
    # From 2 ** 20 on, DELAY_MAX applies anyway.
    ceiling: timedelta = min(DELAY_MAX, FIRST_DELAY * 2.0 ** min(attempts, 20))
    delay = ceiling * (random.random() if jitter is None else jitter)  # noqa: S311 - spreads load
    asked_for = timedelta(seconds=min(after_seconds or 0.0, GIVE_UP_AFTER.total_seconds()))
    return min(last_at, now + max(DELAY_MIN, delay, asked_for))
