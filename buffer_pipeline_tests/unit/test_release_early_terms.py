"""The idempotency key of an early release, and the minimum days before which a payer may make none."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import DateRefused, ReferenceConflict, StateRefused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    NOON,
    PAYER,
    WITH_A_FEE,
    books,
    place_hold,
    state_of,
)
from buffer_pipeline_tests.support.releases import early, release_all
from buffer_pipeline_tests.support.rules import add

DAY: Final = timedelta(days=1)
TICK: Final = timedelta(microseconds=1)
KEY: Final = "release-1"


@pytest.mark.parametrize("amount", ["250.50", "1000.00", None])
def test_the_same_early_release_again_returns_the_first(connection: Connection, amount: str | None) -> None:
    """Nothing is written, and the answer says that it is a replay."""
    hold_id = place_hold(connection)
    asked: dict[str, Any] = {"hold_id": hold_id, "amount": amount, "reference": KEY}
    first = early(connection, **asked)
    before = books(connection)

    again = early(connection, **{**asked, "now": NOON + DAY})

    assert again == ReleaseBatch(**{**vars(first), "replayed": True})
    assert books(connection) == before


def test_a_replay_says_what_is_left_now(connection: Connection) -> None:
    """After the hold is released, nothing is; the parts are those of the first call."""
    hold_id = place_hold(connection)
    early(connection, hold_id=hold_id, amount="250.50", reference=KEY)
    release_all(connection)

    again = early(connection, hold_id=hold_id, amount="250.50", reference=KEY)

    assert (again.amounts_minor, again.left_minor, again.replayed) == ({"PHP": 25_050}, {}, True)


def test_the_release_of_a_job_is_replayed(connection: Connection) -> None:
    """A hold that came to the job later is not released by it."""
    place_hold(connection, amount="10")
    place_hold(connection, amount="20", currency="USD")
    early(connection, job=JOB, reference=KEY)
    later = place_hold(connection)

    again = early(connection, job=JOB, reference=KEY)

    assert (again.holds_released, again.amounts_minor) == (2, {"PHP": 1_000, "USD": 2_000})
    assert again.replayed
    assert state_of(connection, later) is HoldState.BUFFERED


@pytest.mark.parametrize(
    ("first", "change"),
    [
        ({"amount": "250.50"}, {"amount": "250.51"}),
        ({"amount": "250.50"}, {"amount": None}),
        ({"amount": None}, {"amount": "250.50"}),
        ({}, {"by": ADMIN, "as_admin": True}),
        ({}, {"reason": "another"}),
        ({}, {"hold_id": "other"}),
        ({}, {"hold_id": None, "job": JOB}),
        ({"hold_id": None, "job": JOB}, {"hold_id": "same", "job": None}),
        ({"hold_id": None, "job": JOB}, {"job": "job-9"}),
    ],
)
def test_other_content_with_an_early_releases_reference_is_refused(
    connection: Connection, first: dict[str, Any], change: dict[str, Any]
) -> None:
    """Another hold, job, amount, person or reason is refused; the message says what the reference is for."""
    ids: dict[Any, int] = {"same": place_hold(connection), "other": place_hold(connection, job="job-9")}
    asked = {"hold_id": ids["same"], "reference": KEY, **first}
    early(connection, **asked)
    other = {**asked, **change}
    other["hold_id"] = ids.get(other["hold_id"], other["hold_id"])
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=f"^reference '{KEY}': already used for the early release"):
        early(connection, **other)

    assert books(connection) == before


def test_the_message_of_a_conflict_names_hold_amount_and_who(connection: Connection) -> None:
    """What the caller needs to find it."""
    hold_id = place_hold(connection)
    first = early(connection, hold_id=hold_id, amount="250.50", reference=KEY)

    with pytest.raises(ReferenceConflict) as refusal:
        early(connection, hold_id=hold_id, amount="1", reference=KEY)

    assert str(refusal.value) == (
        f"reference '{KEY}': already used for the early release of 250.50 PHP of hold {hold_id} by '{PAYER}',"
        f" batch {first.batch_id}"
    )
    assert (refusal.value.reference, refusal.value.hold_id) == (KEY, hold_id)


def test_the_message_of_a_conflict_lists_the_amounts_of_a_job(connection: Connection) -> None:
    """One amount for each currency, and no hold."""
    place_hold(connection, amount="250.50")
    place_hold(connection, amount="300", currency="JPY")
    first = early(connection, job=JOB, reference=KEY)

    with pytest.raises(ReferenceConflict) as refusal:
        early(connection, job=JOB, reference=KEY, reason="another")

    assert str(refusal.value) == (
        f"reference '{KEY}': already used for the early release of 300 JPY of 250.50 PHP by '{PAYER}',"
        f" batch {first.batch_id}"
    )


def test_a_refused_release_leaves_its_reference_free(connection: Connection) -> None:
    """A reference that was refused can be used again."""
    hold_id = place_hold(connection)
    frozen = place_hold(connection, state=HoldState.FROZEN)
    with pytest.raises(StateRefused):
        early(connection, hold_id=frozen, reference=KEY)

    assert not early(connection, hold_id=hold_id, reference=KEY).replayed


@pytest.mark.parametrize("asked", [{}, {"amount": "1", "reference": KEY}])
def test_a_payer_waits_for_the_minimum_days_of_the_policy(
    connection: Connection, asked: dict[str, Any]
) -> None:
    """Three days after it began, and not a moment before; an admin need not wait."""
    hold_id, other = place_hold(connection), place_hold(connection)
    policy = Policy(min_days=3)
    before = books(connection)

    with pytest.raises(DateRefused) as refusal:
        early(connection, hold_id=hold_id, policy=policy, now=NOON + 3 * DAY - TICK, **asked)

    assert str(refusal.value) == (
        f"hold {hold_id}: its payer may release it from 2026-03-05T12:00:00+00:00 on;"
        " an admin may before that"
    )
    assert refusal.value.hold_id == hold_id
    assert books(connection) == before
    assert early(connection, hold_id=hold_id, policy=policy, now=NOON + 3 * DAY, **asked).amounts_minor
    early(connection, hold_id=other, policy=policy, by=ADMIN, as_admin=True)


def test_without_minimum_days_a_payer_may_release_what_has_not_begun(connection: Connection) -> None:
    """A caller's clock may be slightly ahead of another's, which set `held_at`."""
    hold_id = place_hold(connection)

    assert early(connection, hold_id=hold_id, now=NOON - TICK).holds_released == 1


def test_the_policys_minimum_days_are_at_most_the_days_of_the_rule(connection: Connection) -> None:
    """A hold of two days is not kept from its payer for five."""
    add(connection, days=2)
    hold_id = place_hold(connection, rule="seller")

    released = early(connection, hold_id=hold_id, policy=Policy(min_days=5), now=NOON + 2 * DAY)

    assert released.holds_released == 1


def test_the_minimum_days_of_the_holds_rule_come_first(connection: Connection) -> None:
    """The rule's count, whatever the policy says, none included; without any, the policy's."""
    policy = Policy(min_days=5)
    add(connection, "two", min_days=2)
    add(connection, "none", min_days=0)
    add(connection, "unsaid")
    two, none, unsaid = (place_hold(connection, rule=name) for name in ("two", "none", "unsaid"))

    early(connection, hold_id=none, policy=policy)
    with pytest.raises(DateRefused, match=f"hold {two}: .* from 2026-03-04T12:00"):
        early(connection, hold_id=two, policy=policy)
    with pytest.raises(DateRefused, match=f"hold {unsaid}: .* from 2026-03-07T12:00"):
        early(connection, hold_id=unsaid, policy=policy)

    assert early(connection, hold_id=two, policy=policy, now=NOON + 2 * DAY).holds_released == 1


def test_one_young_hold_keeps_a_job_from_its_payer(connection: Connection) -> None:
    """All or nothing; the refusal names the hold that is too young."""
    place_hold(connection, held_at=NOON - 3 * DAY)
    young = place_hold(connection)

    with pytest.raises(DateRefused, match=f"^hold {young}: "):
        early(connection, job=JOB, policy=Policy(min_days=3))


def test_minimum_days_count_for_each_share(connection: Connection) -> None:
    """The payee's own hold includes its shares."""
    first = place_hold(connection, shares=WITH_A_FEE)

    with pytest.raises(DateRefused, match=f"^hold {first}: "):
        early(connection, hold_id=first, policy=Policy(min_days=1), now=NOON)

    assert early(connection, hold_id=first, policy=Policy(min_days=1), now=NOON + DAY).holds_released == 2
