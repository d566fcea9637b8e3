"""The numbers of a hold's rule count after intake: the cooldown, the backjobs, the days at least."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, withdraw_backjob
from buffer_pipeline.errors import BackjobRefused, DateRefused, WindowClosed
from buffer_pipeline.policy import Policy
from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
from buffer_pipeline_tests.support.backjobs import decide, freeze, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYER,
    WITH_A_FEE,
    books,
    place_hold,
    release_date_of,
)
from buffer_pipeline_tests.support.rules import SELLER, add, shares_of

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def place_for_each(connection: Connection, *rules: str | None) -> list[int]:
    """Hold an earning of another payee of JOB for each rule; return the holds' ids."""
    return [place_hold(connection, payee=f"worker-{number}", rule=rule) for number, rule in enumerate(rules)]


def reject(connection: Connection, *, times: int, policy: Policy | None = None) -> None:
    """Request a backjob on JOB and reject it, so many times."""
    for _ in range(times):
        opened = request(connection, policy=policy)
        decide(connection, reject_backjob, opened.backjob_id, policy=policy)


# ---- cooldown


def test_a_rejected_backjob_adds_the_cooldown_of_each_holds_rule(connection: Connection) -> None:
    """A rule's 48 hours, another's none, and the policy's where the rule has none or there is no rule."""
    add(connection, "long", cooldown_hours=48)
    add(connection, "none", cooldown_hours=0)
    add(connection, "silent")
    long, none, silent, without = place_for_each(connection, "long", "none", "silent", None)

    reject(connection, times=1, policy=Policy(cooldown_hours=12))

    dates = [release_date_of(connection, hold_id) for hold_id in (long, none, silent, without)]
    assert dates == [DAY_7 + 48 * HOUR, DAY_7, DAY_7 + 12 * HOUR, DAY_7 + 12 * HOUR]


def test_a_cooldown_is_counted_from_now_if_the_date_has_passed(connection: Connection) -> None:
    """Of a backjob that is rejected after the release date, the cooldown begins with the decision."""
    add(connection, cooldown_hours=6)
    hold_id = place_hold(connection, rule=SELLER)
    opened = request(connection)

    decide(connection, reject_backjob, opened.backjob_id, now=DAY_7 + DAY)

    assert release_date_of(connection, hold_id) == DAY_7 + DAY + 6 * HOUR


def test_all_shares_of_an_earning_get_its_cooldown(connection: Connection) -> None:
    """The fee and the reserve are moved as far as the payee's own share."""
    add(connection, cooldown_hours=3)
    first = place_hold(connection, shares=WITH_A_FEE, rule=SELLER)

    reject(connection, times=1)

    dates = {kind: release_date_of(connection, each) for kind, each in shares_of(connection, first).items()}
    assert dates == {
        "PAYEE": DAY_7 + 3 * HOUR,
        "FEE": DAY_7 + 3 * HOUR,
        "RESERVE": NOON + 90 * DAY + 3 * HOUR,
    }


def test_a_withdrawn_backjob_adds_no_cooldown_of_a_rule(connection: Connection) -> None:
    """The date is unchanged, whatever the rule's cooldown is."""
    add(connection, cooldown_hours=48)
    hold_id = place_hold(connection, rule=SELLER)
    opened = request(connection)

    decide(connection, withdraw_backjob, opened.backjob_id)

    assert release_date_of(connection, hold_id) == DAY_7


def test_a_hold_that_another_freeze_covers_gets_no_cooldown_of_a_rule(connection: Connection) -> None:
    """It stays frozen with its date."""
    add(connection, cooldown_hours=48)
    hold_id = place_hold(connection, rule=SELLER)
    opened = request(connection)
    freeze(connection, hold_id)

    decide(connection, reject_backjob, opened.backjob_id)

    assert release_date_of(connection, hold_id) == DAY_7


def test_the_longest_cooldown_is_explained(connection: Connection) -> None:
    """Five years, added three times, are a date that the invariants accept."""
    add(connection, cooldown_hours=43_800)
    hold_id = place_hold(connection, rule=SELLER)

    reject(connection, times=3)

    assert release_date_of(connection, hold_id) == DAY_7 + 3 * 43_800 * HOUR
    assert reconcile(connection) == []


# ---- backjobs


def test_a_backjob_freezes_only_holds_whose_rule_allows_one_more(connection: Connection) -> None:
    """After one rejection, the hold that allows one is left alone, and those that allow more are frozen."""
    add(connection, "one", max_backjobs=1)
    add(connection, "many", max_backjobs=9)
    _, many, without = place_for_each(connection, "one", "many", None)
    reject(connection, times=1)

    opened = request(connection)

    assert opened.hold_ids == (many, without)


def test_a_hold_whose_rule_allows_no_backjob_is_never_frozen(connection: Connection) -> None:
    """With 0 the first request leaves it out, with all its shares; the others of the job are frozen."""
    add(connection, max_backjobs=0)
    place_hold(connection, shares=WITH_A_FEE, rule=SELLER)
    other = place_hold(connection, payee="worker-2")

    opened = request(connection)

    assert opened.hold_ids == (other,)


def test_a_rule_can_allow_more_backjobs_than_the_settings(connection: Connection) -> None:
    """The fourth is accepted for the hold whose rule allows five, although the settings allow three."""
    add(connection, max_backjobs=5)
    more, without = place_for_each(connection, SELLER, None)
    reject(connection, times=3)

    opened = request(connection)

    assert opened.hold_ids == (more,)
    assert release_date_of(connection, without) == DAY_7 + 3 * DAY


def test_a_request_beyond_every_limit_is_refused(connection: Connection) -> None:
    """The refusal names the largest limit of the holds that would have been frozen, and writes nothing."""
    add(connection, "one", max_backjobs=1)
    add(connection, "two", max_backjobs=2)
    place_for_each(connection, "one", "two")
    reject(connection, times=2)
    before = books(connection)

    with pytest.raises(BackjobRefused, match=r"^job 'job-8': 2 backjobs were rejected; at most 2$"):
        request(connection)

    assert books(connection) == before


def test_a_limit_of_a_hold_whose_window_is_closed_does_not_count(connection: Connection) -> None:
    """Only the hold in its window is at its limit, so the request is refused for that limit."""
    place_hold(connection, payee="worker-2", release_date=NOON + HOUR)
    add(connection, max_backjobs=0)
    place_hold(connection, rule=SELLER)

    with pytest.raises(BackjobRefused, match=r"0 backjobs were rejected; at most 0$"):
        request(connection, now=NOON + 2 * HOUR)


def test_a_closed_window_is_named_where_the_limit_is_not_reached(connection: Connection) -> None:
    """A rule that allows more backjobs does not open the window again."""
    add(connection, max_backjobs=9)
    place_hold(connection, rule=SELLER)

    with pytest.raises(WindowClosed):
        request(connection, now=DAY_7)


# ---- days at least


def move(connection: Connection, hold_id: int, to: datetime, **changes: object) -> Rescheduled:
    """Move a date as the payer, with some of it changed."""
    asked = {"by": PAYER, "reason": "all is well", "now": NOON}
    return reschedule_hold(connection, hold_id=hold_id, to=to, **{**asked, **changes})  # type: ignore[arg-type]


def test_a_payer_moves_a_date_only_to_after_the_rules_minimum(connection: Connection) -> None:
    """To three days after the hold began, and not to a moment before; the policy's minimum does not count."""
    add(connection, min_days=3)
    hold_id = place_hold(connection, rule=SELLER)
    before = books(connection)

    with pytest.raises(
        DateRefused, match=r"its payer may move it to 2026-03-05T12:00:00\+00:00 at the earliest"
    ):
        move(connection, hold_id, NOON + 3 * DAY - HOUR, policy=Policy(min_days=1))

    assert books(connection) == before
    moved = move(connection, hold_id, NOON + 3 * DAY, policy=Policy(min_days=5))
    assert moved.release_date == NOON + 3 * DAY


def test_without_a_rules_minimum_the_policys_counts(connection: Connection) -> None:
    """A rule that says nothing of it leaves the settings' minimum."""
    add(connection)
    hold_id = place_hold(connection, rule=SELLER)

    with pytest.raises(DateRefused, match=r"2026-03-04T12:00:00\+00:00 at the earliest"):
        move(connection, hold_id, NOON + DAY, policy=Policy(min_days=2))


def test_an_admin_moves_a_date_to_before_the_rules_minimum(connection: Connection) -> None:
    """The minimum is the payer's limit, not an admin's."""
    add(connection, min_days=3)
    hold_id = place_hold(connection, rule=SELLER)

    moved = move(connection, hold_id, NOON + DAY, by=ADMIN, as_admin=True)

    assert moved.release_date == NOON + DAY
