"""Lists of holds: each filter finds what it says, in both orders, page by page."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.reads import Hold, Role, find_hold, list_holds
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.builders import DAY_7, NOON, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.read_rows import all_holds

HOUR: Final = timedelta(hours=1)

STATES: Final = (HoldState.BUFFERED, HoldState.FROZEN, HoldState.RELEASED, HoldState.REFUNDED)


def place_many(connection: Connection) -> list[Hold]:
    """Place holds of several owners, jobs, currencies and states, and earnings with shares."""
    for number in range(16):
        place_hold(
            connection,
            job=f"job-{number // 2 if number % 4 else number}-{number % 4}",
            payee=f"worker-{number % 3}",
            payer=f"client-{number % 2}",
            currency="PHP" if number % 5 else "JPY",
            amount="1000",
            state=STATES[number % 4],
            held_at=NOON + number * HOUR,
        )
    for number in range(2):
        add_pending_earnings(
            connection,
            reference=f"shared-{number}",
            job=f"shared-{number}",
            payee="worker-1",
            payer="client-0",
            amount="1000.00",
            currency="PHP",
            shares=WITH_A_FEE,
            metadata={"order": "17", "visits": number},
            now=NOON,
        )
    ids = [row["hold_id"] for row in all_holds(connection)]
    return [find_hold(connection, hold_id=each) for each in ids]


def _in(state: HoldState, payee: str | None = None) -> Callable[[Hold], bool]:
    return lambda hold: hold.state is state and payee in (None, hold.payee)


FILTERS: Final[dict[str, tuple[Mapping[str, Any], Callable[[Hold], bool]]]] = {
    "none": ({}, lambda _: True),
    "payee": ({"owner": "worker-1"}, lambda hold: hold.payee == "worker-1"),
    "payer": ({"owner": "client-0", "role": Role.PAYER}, lambda hold: hold.payer == "client-0"),
    "payer as text": ({"owner": "client-1", "role": "PAYER"}, lambda hold: hold.payer == "client-1"),
    "nobody": ({"owner": "nobody"}, lambda _: False),
    "job": ({"job": "shared-1"}, lambda hold: hold.job == "shared-1"),
    **{f"state {state}": ({"state": state}, _in(state)) for state in STATES},
    **{
        f"payee and {state}": ({"state": state, "owner": "worker-1"}, _in(state, "worker-1"))
        for state in STATES
    },
    "payer and frozen": (
        {"state": "FROZEN", "owner": "client-1", "role": "PAYER"},
        lambda hold: hold.state is HoldState.FROZEN and hold.payer == "client-1",
    ),
    "kind": ({"kind": ShareKind.FEE}, lambda hold: hold.kind is ShareKind.FEE),
    "kind of payee": (
        {"kind": "RESERVE", "owner": "worker-1"},
        lambda hold: hold.kind is ShareKind.RESERVE and hold.payee == "worker-1",
    ),
    "due": (
        {"due_by": DAY_7 + 8 * HOUR},
        lambda hold: hold.state is HoldState.BUFFERED and hold.release_date <= DAY_7 + 8 * HOUR,
    ),
    "due of a payee": (
        {"due_by": DAY_7, "owner": "worker-1"},
        lambda hold: (
            hold.state is HoldState.BUFFERED and hold.release_date <= DAY_7 and hold.payee == "worker-1"
        ),
    ),
    "held since": ({"held_since": NOON + 5 * HOUR}, lambda hold: hold.held_at >= NOON + 5 * HOUR),
    "held before": ({"held_before": NOON + 5 * HOUR}, lambda hold: hold.held_at < NOON + 5 * HOUR),
    "held between, and kind": (
        {"held_since": NOON, "held_before": NOON + HOUR, "kind": "PAYEE"},
        lambda hold: hold.held_at == NOON and hold.kind is ShareKind.PAYEE,
    ),
    "metadata": ({"metadata": {"order": "17"}}, lambda hold: hold.metadata.get("order") == "17"),
    "two keys, one a number": (
        {"metadata": {"order": "17", "visits": "1"}},
        lambda hold: hold.metadata.get("visits") == 1,
    ),
    "metadata and payer": (
        {"metadata": {"visits": "0"}, "owner": "client-0", "role": "PAYER"},
        lambda hold: hold.metadata.get("visits") == 0,
    ),
}


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest first", "oldest first"])
@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_finds_what_it_says(connection: Connection, name: str, oldest_first: bool) -> None:
    """Pages of three have every hold that matches once, in the order in which they were added."""
    filters, matches = FILTERS[name]
    expected = [hold for hold in place_many(connection) if matches(hold)]

    found: list[Hold] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = list_holds(connection, **filters, oldest_first=oldest_first, limit=3, cursor=cursor)
        assert len(page.items) <= 3
        found += page.items
        cursor, pages = page.next_cursor, pages + 1

    assert found == (expected if oldest_first else expected[::-1])
    assert pages == max(1, -(-len(expected) // 3))


def test_a_hold_has_its_amounts_and_its_rule(connection: Connection) -> None:
    """What was held, refunded, released and is left, with the currency's places and the rule."""
    hold_id = place_hold(connection, amount="1000", currency="JPY", reference="job-8-done")

    found = find_hold(connection, reference="job-8-done")

    assert found == find_hold(connection, hold_id=hold_id)
    assert (found.amount_minor, found.left_minor, found.released_minor, found.refunded_minor) == (
        1000,
        1000,
        0,
        0,
    )
    assert (found.currency, found.places, found.state) == ("JPY", 0, HoldState.BUFFERED)
    assert (found.rule, found.rule_version, found.metadata) == ("standard", None, {})
    assert (found.held_at, found.release_date, found.settled_at) == (NOON, DAY_7, None)


def test_a_reference_finds_the_earnings_own_hold(connection: Connection) -> None:
    """Its shares have the same reference."""
    hold_id = place_hold(connection, reference="job-8-done", shares=WITH_A_FEE)

    found = find_hold(connection, reference="job-8-done")

    assert (found.hold_id, found.kind, found.earning_minor) == (hold_id, ShareKind.PAYEE, 100_000)


@pytest.mark.parametrize(
    ("named", "refusal"),
    [
        ({"hold_id": 41}, NotFound),
        ({"reference": "unknown"}, NotFound),
        ({"hold_id": 0}, NotFound),
        ({}, InvalidInput),
        ({"hold_id": 1, "reference": "one"}, InvalidInput),
    ],
)
def test_what_is_not_there_is_refused(
    connection: Connection, named: dict[str, Any], refusal: type[Exception]
) -> None:
    """By id and by reference; one of them is given."""
    with pytest.raises(refusal):
        find_hold(connection, **named)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit 0: must be from 1 to 1000"),
        ({"limit": 1001}, "limit 1001: must be from 1 to 1000"),
        ({"limit": True}, "limit True: needs an int, got bool"),
        ({"state": "LOST"}, "state 'LOST': must be one of BUFFERED, FROZEN, RELEASED, REFUNDED"),
        ({"role": "OWNER"}, "role 'OWNER': must be one of PAYEE, PAYER"),
        ({"kind": "TIP"}, "kind 'TIP': must be one of PAYEE, FEE, TAX, RESERVE"),
        ({"owner": ""}, "owner: must not be empty"),
        ({"held_since": NOON.replace(tzinfo=None)}, "held_since 2026-03-02T12:00:00: has no time zone"),
    ],
)
def test_a_wrong_argument_is_refused(connection: Connection, arguments: dict[str, Any], message: str) -> None:
    """By its name, with what is allowed."""
    with pytest.raises(InvalidInput) as refused:
        list_holds(connection, **arguments)

    assert str(refused.value).startswith(message)
