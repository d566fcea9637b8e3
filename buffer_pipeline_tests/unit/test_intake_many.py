"""Rule 1: each of many earnings in one call has an outcome, with few statements."""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any, Final, cast

import pytest
from sqlalchemy import Connection, Engine, event

from buffer_pipeline.database import AnyConnection, Row, fetch, statement_text
from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.intake import (
    AddedHold,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
    check_earning,
)
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    WAIT_SECONDS_MAX,
    all_at_once,
    hold_row,
    notifications_of,
    place_hold,
    row_counts,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import EARNING, add

STATEMENTS_OF_MANY: Final = (
    "currencies/currencies",
    "intake/find_holds",
    "rules/find_rules",
    "hours/enter_hour",
    "intake/lock_jobs",
    "intake/add_holds",
    "intake/buffer_holds",
)
"""The statements of `add_many_pending_earnings` if owners and jobs are known and nothing is a replay."""


def test_earnings_may_come_from_a_generator(connection: Connection) -> None:
    """With the same result as a list."""
    earnings = (Earning(**{**EARNING, "reference": reference}) for reference in ("one", "two", "", "one"))

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    first, second, refused, again = outcomes
    assert isinstance(first, AddedHold)
    assert isinstance(second, AddedHold)
    assert isinstance(refused, InvalidInput)
    assert isinstance(again, AddedHold)
    assert (first.reference, second.reference, again.replayed) == ("one", "two", True)
    assert row_counts(connection)["hold"] == 2


def test_many_earnings_have_their_outcomes_in_order(connection: Connection) -> None:
    """A refused one does not affect the others."""
    standing = place_hold(connection, reference="invoice-1")
    earnings = [
        Earning(**{**EARNING, "reference": "invoice-3"}),
        Earning(**{**EARNING, "reference": "invoice-2", "amount": "-1"}),
        Earning(**EARNING),
        Earning(**{**EARNING, "amount": "7"}),
        Earning(**{**EARNING, "reference": "invoice-0", "payee": "worker-18"}),
    ]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    third, bad, replayed, conflict, fifth = outcomes
    assert isinstance(third, AddedHold)
    assert isinstance(fifth, AddedHold)
    assert isinstance(replayed, AddedHold)
    assert isinstance(bad, InvalidInput)
    assert isinstance(conflict, ReferenceConflict)
    assert (third.reference, third.replayed) == ("invoice-3", False)
    assert (fifth.reference, fifth.replayed) == ("invoice-0", False)
    assert (replayed.hold_id, replayed.replayed) == (standing, True)
    assert row_counts(connection)["hold"] == 3
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 200_000
    assert wallet_of(connection, "worker-18").pending_earnings_minor == 100_000


def test_naive_clock_refuses_the_whole_call(connection: Connection) -> None:
    """Not each earning."""
    with pytest.raises(InvalidInput, match=r"^now .* no time zone"):
        add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON.replace(tzinfo=None))


def test_checked_earnings_have_the_same_outcomes(connection: Connection) -> None:
    """Earnings checked in advance are held at the time of the call, and their dates are checked then."""
    checked = [
        check_earning(Earning(**{**EARNING, "reference": reference}, release_date=date), places={})
        for reference, date in (("invoice-1", None), ("invoice-2", NOON), ("invoice-3", NOON))
    ]

    first, second = add_many_pending_earnings(connection, checked[:2], now=NOON)
    again, _, late = add_many_pending_earnings(connection, checked, now=NOON + timedelta(days=1))

    assert isinstance(first, AddedHold)
    assert isinstance(again, AddedHold)
    assert (first.release_date, again.replayed) == (DAY_7, True)
    assert isinstance(second, AddedHold)
    assert isinstance(late, InvalidInput)
    assert "before held_at" in str(late)


def test_text_is_stored_unchanged(connection: Connection) -> None:
    """Quotes, braces, commas, backslashes and NULL are ordinary text, singly and in bulk."""
    texts = ['"', "\\", '\\"', "{a,b}", "NULL", "null", "'", "a b", "%s", ":now", "Ünïcode 🚰"]
    earnings = [
        Earning(**{**EARNING, "reference": text, "job": text, "payee": f"{text}-", "title": text})
        for text in texts
    ]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)
    again = [add(connection, reference=text, job=text, payee=f"{text}-", title=text) for text in texts]
    singles = [
        add(connection, reference=f"{text}.", job=text, payee=f"{text}-", title=text) for text in texts
    ]

    for text, outcome, replay, single in zip(texts, outcomes, again, singles, strict=True):
        assert isinstance(outcome, AddedHold)
        assert (replay.hold_id, replay.replayed) == (outcome.hold_id, True)
        for hold_id in (outcome.hold_id, single.hold_id):
            row = hold_row(connection, hold_id)
            assert (row["job"], row["title"]) == (text, text)
        assert notifications_of(connection, f"{text}-") == ["PAYMENT_PENDING"] * 2


def test_no_earnings_are_no_outcomes(connection: Connection) -> None:
    """An empty list writes nothing."""
    assert add_many_pending_earnings(connection, [], now=NOON) == []
    assert set(row_counts(connection).values()) == {0}


def test_payees_are_notified_of_each_of_many(connection: Connection) -> None:
    """Also if all owners are known, so that one statement adds them."""
    add(connection)
    add(connection, reference="invoice-2", payee="worker-18")
    more = [
        Earning(**{**EARNING, "reference": f"more-{payee}", "payee": payee}) for payee in (PAYEE, "worker-18")
    ]

    add_many_pending_earnings(connection, more, now=NOON)

    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"] * 2
    assert notifications_of(connection, "worker-18") == ["PAYMENT_PENDING"] * 2


def test_earnings_of_known_owners_take_few_statements(connection: Connection) -> None:
    """A single earning takes one. Many take a fixed number and a savepoint."""
    add(connection)
    executed: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        header = statement.splitlines()[0].partition(" sa_savepoint")[0]
        executed.append(re.sub(r"%\((\w+)\)s", r":\1", header))

    event.listen(connection, "before_cursor_execute", note)
    add(connection, reference="invoice-2")
    many = [Earning(**{**EARNING, "reference": reference}) for reference in ("invoice-3", "invoice-4")]
    add_many_pending_earnings(connection, many, now=NOON)

    headers = {
        statement_text(name).splitlines()[0]: name for name in ("intake/add_hold", *STATEMENTS_OF_MANY)
    }
    assert [headers.get(one, one) for one in executed] == [
        "intake/add_hold",
        *STATEMENTS_OF_MANY[:4],
        "SAVEPOINT",
        *STATEMENTS_OF_MANY[4:],
        "RELEASE SAVEPOINT",
    ]


def test_different_references_raced_add_up(engine: Engine) -> None:
    """Concurrent first holds of a payee are all counted in the wallet."""

    def numbered(number: int) -> Any:
        return lambda connection: add(connection, reference=f"invoice-{number}")

    outcomes = all_at_once(engine, *[numbered(number) for number in range(6)])

    assert all(isinstance(outcome, AddedHold) for outcome in outcomes)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).pending_earnings_minor == 600_000
        assert row_counts(connection)["wallet"] == 2


def test_new_and_known_owners_do_not_deadlock(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wallets are locked once per call and by id, even if some are created first."""
    with engine.begin() as connection:
        for number in (1, 2):
            add_pending_earnings(connection, **vars(team(f"first-{number}", f"worker-{number}")), now=NOON)
    both_there = Barrier(2)

    def meet(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
        if name == "wallet/ensure_wallets":
            both_there.wait(timeout=WAIT_SECONDS_MAX)
        return fetch(connection, name, **parameters)

    monkeypatch.setattr("buffer_pipeline.intake.add.fetch", meet)
    outcomes = all_at_once(
        engine,
        *(
            partial(
                add_many_pending_earnings,
                earnings=[
                    team(f"{first}-known", f"worker-{first}", job=f"job-known-{first}"),
                    team(f"{first}-new", f"worker-{second}", payer=f"client-new-{first}", job=f"job-{first}"),
                ],
                now=NOON,
            )
            for first, second in ((1, 2), (2, 1))
        ),
    )

    assert all(isinstance(one, AddedHold) for added in outcomes for one in cast(list[object], added))


def team(reference: str, payee: str, *, payer: str = PAYER, job: str = JOB) -> Earning:
    """Return an earning of 10.00 PHP."""
    return Earning(reference=reference, job=job, payee=payee, payer=payer, amount="10.00", currency="PHP")
