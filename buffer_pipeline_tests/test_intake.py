"""Rule 1: an earning is held once, whatever is repeated or raced."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from threading import Barrier
from typing import Any, Final, cast

import pytest
from sqlalchemy import Connection, Engine, event, func, select

from buffer_pipeline import intake
from buffer_pipeline.database import AnyConnection, Row, fetch, statement_text
from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.hold import HoldState
from buffer_pipeline.inputs import EARLIEST, LATEST
from buffer_pipeline.intake import (
    AddedHold,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
    check_earning,
)
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import notification
from buffer_pipeline_tests.builders import (
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    WAIT_SECONDS_MAX,
    Wallet,
    all_at_once,
    books,
    hold_row,
    notifications_of,
    one_behind_the_other,
    place_hold,
    release_date_of,
    row_counts,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

EARNING: dict[str, Any] = {
    "reference": "invoice-1",
    "job": JOB,
    "payee": PAYEE,
    "payer": PAYER,
    "amount": "1000.00",
    "currency": "PHP",
}

STATEMENTS_OF_MANY: Final = (
    "currencies",
    "find_holds",
    "enter_hour",
    "lock_jobs",
    "add_holds",
    "buffer_holds",
)
"""What `add_many_pending_earnings` asks for where owners and jobs are known and nothing is a repetition."""


def add(connection: Connection, **changes: Any) -> AddedHold:
    """Hold EARNING with some of it changed."""
    return add_pending_earnings(connection, **{**EARNING, "now": NOON, **changes})


def test_earning_is_held_with_its_transaction_and_notification(connection: Connection) -> None:
    """A new earning is pending, on the books, and its payee is told."""
    added = add(connection, title="A logo")

    row = hold_row(connection, added.hold_id)
    assert (added.state, added.replayed, added.reference) == (HoldState.BUFFERED, False, "invoice-1")
    assert (row["job"], row["title"], row["amount_minor"], row["currency"]) == (JOB, "A logo", 100_000, "PHP")
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=0, pending_earnings_minor=100_000)
    assert wallet_of(connection, PAYER) == Wallet()
    assert transactions_of(connection, added.hold_id) == [("PENDING_EARNING", 100_000)]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"]
    assert notifications_of(connection, PAYER) == []


def test_notification_says_how_much_and_until_when(connection: Connection) -> None:
    """The PAYMENT_PENDING carries the amount and the release date."""
    added = add(connection)

    told = connection.execute(select(notification)).mappings().one()
    assert (told["hold_id"], told["amount_minor"], told["currency"]) == (added.hold_id, 100_000, "PHP")
    assert (told["release_date"], told["created_at"], told["dispatched_at"]) == (DAY_7, NOON, None)


def test_release_date_is_seven_days_after_held_at(connection: Connection) -> None:
    """By default a hold matures seven days after it began, to the second."""
    added = add(connection, held_at=NOON - timedelta(days=2))

    assert added.release_date == NOON + timedelta(days=5)
    assert release_date_of(connection, added.hold_id) == added.release_date


def test_hold_begins_at_now_when_no_other_time_is_given(connection: Connection) -> None:
    """Without held_at the buffer begins at the clock."""
    added = add(connection)

    assert hold_row(connection, added.hold_id)["held_at"] == NOON
    assert added.release_date == DAY_7


def test_zero_buffer_days_mean_zero(connection: Connection) -> None:
    """With buffer_days 0 a hold is due the moment it is held, not after the default."""
    added = add(connection, policy=Policy(buffer_days=0))

    assert added.release_date == NOON
    assert release_matured(connection, now=NOON, batch_limit=10).holds_released == 1
    assert state_of(connection, added.hold_id) is HoldState.RELEASED


def test_given_release_date_overrides_the_policy(connection: Connection) -> None:
    """The platform may name the date itself, in any time zone, and as early as held_at."""
    manila = timezone(timedelta(hours=8))
    at_once = add(connection, reference="invoice-2", release_date=NOON)

    added = add(connection, release_date=datetime(2026, 3, 3, 20, tzinfo=manila))

    assert added.release_date == datetime(2026, 3, 3, 12, tzinfo=UTC)
    assert at_once.release_date == NOON


@pytest.mark.parametrize(
    ("amount", "currency", "amount_minor"),
    [("1250", "JPY", 1250), ("1.234", "KWD", 1234), (Decimal("0.01"), "PHP", 1), (5, "PHP", 500)],
)
def test_amount_is_held_in_its_currencys_minor_unit(
    connection: Connection, amount: Decimal | int | str, currency: str, amount_minor: int
) -> None:
    """Yen have no cents, Kuwaiti dinars a thousand fils."""
    added = add(connection, amount=amount, currency=currency)

    assert hold_row(connection, added.hold_id)["amount_minor"] == amount_minor
    assert wallet_of(connection, PAYEE, currency).pending_earnings_minor == amount_minor


def test_a_team_has_a_hold_each(connection: Connection) -> None:
    """A job may have several holds, of several payees and currencies."""
    add(connection)
    add(connection, reference="invoice-2", payee="worker-18", amount="300.00")
    add(connection, reference="invoice-3", amount="9.99", currency="USD")

    assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000
    assert wallet_of(connection, "worker-18").pending_earnings_minor == 30_000
    assert wallet_of(connection, PAYEE, "USD").pending_earnings_minor == 999
    assert row_counts(connection)["hold"] == 3


def test_replay_returns_the_first_hold_and_writes_nothing(connection: Connection) -> None:
    """The same reference with the same content is the same hold, at any later time."""
    first = add(connection, title="A logo")
    before = books(connection)

    again = add(connection, title="A logo", amount=Decimal(1000), now=NOON + timedelta(days=3))

    assert again.replayed
    assert (again.hold_id, again.reference) == (first.hold_id, "invoice-1")
    assert again.release_date == first.release_date
    assert books(connection) == before


def test_replay_tells_how_the_hold_stands_now(connection: Connection) -> None:
    """After its release a replay returns the released hold, and holds nothing again."""
    hold_id = place_hold(connection, reference="invoice-1", state=HoldState.RELEASED)
    before = books(connection)

    again = add(connection)

    assert (again.hold_id, again.state, again.replayed) == (hold_id, HoldState.RELEASED, True)
    assert books(connection) == before


def test_replay_with_the_same_dates_is_a_replay(connection: Connection) -> None:
    """Dates that are given must repeat; those of the default follow the clock."""
    dates = {"held_at": NOON, "release_date": DAY_7 + timedelta(hours=1)}
    first = add(connection, **dates)

    assert add(connection, **dates, now=DAY_7).hold_id == first.hold_id


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"amount": "1000.01"}, "amount 1000.00 PHP, not amount 1000.01 PHP"),
        ({"job": "job-9"}, "job 'job-8', not job 'job-9'"),
        ({"payee": "worker-18"}, "payee 'worker-17', not payee 'worker-18'"),
        ({"payer": "client-4"}, "payer 'client-3', not payer 'client-4'"),
        ({"currency": "USD"}, "currency 'PHP', not currency 'USD'"),
        ({"title": "A logo"}, "title '', not title 'A logo'"),
        (
            {"held_at": NOON + timedelta(hours=1)},
            "with held_at 2026-03-02T12:00:00+00:00, not held_at 2026-03-02T13:00:00+00:00",
        ),
        (
            {"release_date": DAY_7 + timedelta(hours=1)},
            "with release_date 2026-03-09T12:00:00+00:00, not release_date 2026-03-09T13:00:00+00:00",
        ),
    ],
)
def test_same_reference_with_other_content_is_refused(
    connection: Connection, change: dict[str, Any], fact: str
) -> None:
    """A reference that stands for another earning is refused, naming the difference."""
    first = add(connection)
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=re.escape(fact)) as refusal:
        add(connection, **change)

    assert f"hold {first.hold_id}" in str(refusal.value)
    assert books(connection) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "-1"}, "above zero"),
        ({"amount": "0"}, "above zero"),
        ({"amount": "10.005"}, "PHP has 2 places"),
        ({"amount": "10.5", "currency": "JPY"}, "JPY has 0 places"),
        ({"amount": "1.0005", "currency": "KWD"}, "KWD has 3 places"),
        ({"amount": "10000000000000.01"}, "too large"),
        ({"amount": "ten"}, "not a plain decimal number"),
        ({"amount": 10.5}, "never a float"),
        ({"amount": Decimal("NaN")}, "not a plain decimal number"),
        ({"currency": "QQQ"}, "not an ISO 4217 code"),
        ({"currency": ""}, "not an ISO 4217 code"),
        ({"payee": ""}, "payee: must not be empty"),
        ({"payer": "x" * 201}, "payer: 201 characters long"),
        ({"payee": "worker\x0017"}, "payee .* control character"),
        ({"job": " job-8"}, "job ' job-8': starts or ends with a space"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"reference": "x" * 201}, "reference: 201 characters long"),
        ({"reference": "a\nb"}, "reference .* control character"),
        ({"title": "x" * 501}, "title: 501 characters long; at most 500"),
        ({"payee": PAYER}, "payer 'client-3': is the payee too"),
        ({"now": datetime(2026, 3, 2)}, "now .* no time zone"),  # noqa: DTZ001
        ({"held_at": datetime(2026, 3, 2)}, "held_at .* no time zone"),  # noqa: DTZ001
        ({"release_date": datetime(2026, 3, 9)}, "release_date .* no time zone"),  # noqa: DTZ001
        ({"release_date": NOON - timedelta(seconds=1)}, "before held_at"),
        ({"held_at": datetime(9999, 12, 30, tzinfo=UTC)}, "held_at .* outside the years"),
        ({"now": datetime(9999, 12, 31, tzinfo=UTC)}, "now .* outside the years"),
        pytest.param({"amount": 10**5_000}, "amount: an int of more than 30 digits", id="an int"),
        ({"amount": "9" * 5_000}, "not a plain decimal number"),
        ({"amount": Decimal(10**5_000)}, "not a plain decimal number"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """What can never be held is refused by its name, before a wallet or a hold is written."""
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        add(connection, **change)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"held_at": EARLIEST - timedelta(seconds=1)}, "held_at 1969-12-31T23:59:59+00:00"),
        ({"held_at": LATEST}, "held_at 3000-01-01T00:00:00+00:00"),
        ({"held_at": EARLIEST, "release_date": LATEST}, "release_date 3000-01-01T00:00:00+00:00"),
        ({"held_at": LATEST - timedelta(days=7)}, "release_date 3000-01-01T00:00:00+00:00"),
    ],
)
def test_date_of_another_age_is_refused(
    connection: Connection, dates: dict[str, datetime], message: str
) -> None:
    """The first moment that is outside is refused by its name, with the years that are inside."""
    with pytest.raises(InvalidInput) as refusal:
        add(connection, **dates)

    assert str(refusal.value) == f"{message}: lies outside the years 1970 to 2999"


def test_date_at_either_end_is_held(connection: Connection) -> None:
    """The first and the last moment that a hold may have are its dates."""
    last = LATEST - timedelta(microseconds=1)

    added = add(connection, held_at=EARLIEST, release_date=last)

    assert hold_row(connection, added.hold_id)["held_at"] == EARLIEST
    assert added.release_date == last


@pytest.mark.parametrize("name", ["held_at", "release_date"])
def test_date_that_has_no_utc_is_refused(connection: Connection, name: str) -> None:
    """A date that falls off the calendar in UTC is refused by its own name."""
    off_the_calendar = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))

    with pytest.raises(InvalidInput, match=f"^{name}"):
        add(connection, **{name: off_the_calendar})


def test_earnings_may_come_one_by_one(connection: Connection) -> None:
    """A generator is held like a list, each outcome at its place."""
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
    """Of many, each has its outcome at its place; a refused one keeps no other out."""
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


def test_many_earnings_need_to_know_the_time(connection: Connection) -> None:
    """A clock without a time zone is no earning's fault: the call is refused, not each earning."""
    with pytest.raises(InvalidInput, match=r"^now .* no time zone"):
        add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON.replace(tzinfo=None))


def test_checked_earnings_have_the_same_outcomes(connection: Connection) -> None:
    """What was checked ahead is held at the time of the call, and its dates are still looked at."""
    checked = [
        check_earning(Earning(**EARNING), places={}),
        check_earning(Earning(**{**EARNING, "reference": "invoice-2"}, release_date=NOON), places={}),
    ]

    first, second = add_many_pending_earnings(connection, checked, now=NOON)
    again, late = add_many_pending_earnings(connection, checked, now=NOON + timedelta(days=1))

    assert isinstance(first, AddedHold)
    assert isinstance(again, AddedHold)
    assert (first.release_date, again.replayed) == (DAY_7, True)
    assert isinstance(second, AddedHold)
    assert isinstance(late, InvalidInput)
    assert "before held_at" in str(late)


def test_text_is_held_as_it_was_written(connection: Connection) -> None:
    """Quotes, braces, commas, backslashes and NULL are text as any other, one by one and by the dozen."""
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


def test_replay_marks_no_hour(engine: Engine) -> None:
    """A replay writes into no hour, so no count waits for it."""
    marked = select(func.current_setting("buffer.entered_hour", True))
    with engine.begin() as connection:
        add(connection)
        assert connection.scalar(marked)

    with engine.begin() as connection:
        assert add(connection).replayed

        assert not connection.scalar(marked)


def test_hour_is_marked_before_anything_is_written(engine: Engine) -> None:
    """However long the holds of an import wait for a wallet, a count of the hour waits for them."""
    marks: list[str] = []

    def look(_connection: object, cursor: Any, statement: str, *_others: object) -> None:
        if "INSERT INTO buffer.hold" in statement:
            found = cursor.connection.execute("SELECT current_setting('buffer.entered_hour', true)")
            marks.append(found.fetchone()[0])

    event.listen(engine, "before_cursor_execute", look)
    with engine.begin() as connection:
        add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON)

    assert set(marks) == {str(int(NOON.timestamp()) // 3600)}


def test_first_earning_of_an_owner_and_later_ones_are_the_same(connection: Connection) -> None:
    """Whether or not the wallets are there, a hold, its transaction and its notification are written."""
    first = add(connection)
    second = add(connection, reference="invoice-2")

    assert transactions_of(connection, first.hold_id) == transactions_of(connection, second.hold_id)
    rows = [
        {**hold_row(connection, hold_id), "hold_id": None, "reference": None}
        for hold_id in (first.hold_id, second.hold_id)
    ]
    assert rows[0] == rows[1]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"] * 2
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=200_000)


def test_no_earnings_are_no_outcomes(connection: Connection) -> None:
    """An empty list is no error and writes nothing."""
    assert add_many_pending_earnings(connection, [], now=NOON) == []
    assert set(row_counts(connection).values()) == {0}


def test_reference_twice_in_one_call_is_held_once(connection: Connection) -> None:
    """The first to name a new reference adds it, the second repeats it."""
    first, second = add_many_pending_earnings(connection, [Earning(**EARNING), Earning(**EARNING)], now=NOON)

    assert isinstance(first, AddedHold)
    assert isinstance(second, AddedHold)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.hold_id == second.hold_id
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000


def test_reference_twice_with_other_content_holds_the_first(connection: Connection) -> None:
    """Of two earnings under one new reference the first is held, whichever is due earlier."""
    earnings = [
        Earning(**EARNING, release_date=DAY_7),
        Earning(**{**EARNING, "amount": "5000.00"}, release_date=DAY_7 - timedelta(days=1)),
    ]

    first, second = add_many_pending_earnings(connection, earnings, now=NOON)

    assert isinstance(first, AddedHold)
    assert isinstance(second, ReferenceConflict)
    assert hold_row(connection, first.hold_id)["amount_minor"] == 100_000
    assert release_date_of(connection, first.hold_id) == first.release_date == DAY_7


def test_payees_are_told_of_each_of_many(connection: Connection) -> None:
    """Also where all owners are known, so that one statement holds them."""
    add(connection)
    add(connection, reference="invoice-2", payee="worker-18")
    more = [
        Earning(**{**EARNING, "reference": f"more-{payee}", "payee": payee}) for payee in (PAYEE, "worker-18")
    ]

    add_many_pending_earnings(connection, more, now=NOON)

    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"] * 2
    assert notifications_of(connection, "worker-18") == ["PAYMENT_PENDING"] * 2


def test_earnings_of_known_owners_take_few_statements(connection: Connection) -> None:
    """One earning takes one; many, one for each of what they read, lock and write, and a savepoint."""
    add(connection)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        header = statement.splitlines()[0].partition(" sa_savepoint")[0]
        asked.append(re.sub(r"%\((\w+)\)s", r":\1", header))

    event.listen(connection, "before_cursor_execute", note)
    add(connection, reference="invoice-2")
    many = [Earning(**{**EARNING, "reference": reference}) for reference in ("invoice-3", "invoice-4")]
    add_many_pending_earnings(connection, many, now=NOON)

    headers = {statement_text(name).splitlines()[0]: name for name in ("add_hold", *STATEMENTS_OF_MANY)}
    assert [headers.get(one, one) for one in asked] == [
        "add_hold",
        *STATEMENTS_OF_MANY[:3],
        "SAVEPOINT",
        *STATEMENTS_OF_MANY[3:],
        "RELEASE SAVEPOINT",
    ]


def test_payee_is_not_told_of_what_comes_over(connection: Connection) -> None:
    """With notify=False a hold is written and nobody is told again."""
    add_many_pending_earnings(connection, [Earning(**EARNING)], now=NOON, notify=False)

    assert row_counts(connection)["hold"] == 1
    assert row_counts(connection)["notification"] == 0


def test_same_reference_raced_is_held_once(engine: Engine) -> None:
    """Many threads that add the same earning at once get one hold, which one of them added."""
    outcomes = all_at_once(engine, *[add] * 6)

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert len(added) == 6
    assert len({outcome.hold_id for outcome in added}) == 1
    assert sorted(outcome.replayed for outcome in added) == [False, *[True] * 5]
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).pending_earnings_minor == 100_000
        assert row_counts(connection)["notification"] == 1


def test_same_reference_waits_for_who_came_first(engine: Engine) -> None:
    """An add of a reference that another transaction is adding waits, and repeats it."""
    first, second = one_behind_the_other(engine, add, add)

    assert isinstance(second, AddedHold)
    assert (second.hold_id, second.replayed) == (first.hold_id, True)


def test_other_content_raced_is_refused(engine: Engine) -> None:
    """The reference belongs to whoever commits it first; other content is refused behind it."""
    first, second = one_behind_the_other(
        engine, add, lambda connection: add(connection, amount="5000.00", payee="worker-18")
    )

    assert isinstance(second, ReferenceConflict)
    with engine.connect() as connection:
        assert hold_row(connection, first.hold_id)["amount_minor"] == 100_000
        assert wallet_of(connection, "worker-18") == Wallet()
        assert row_counts(connection)["hold"] == 1


def test_rolled_back_reference_is_free_again(engine: Engine) -> None:
    """Whoever waits behind an add that rolls back holds the earning itself."""
    with engine.connect() as connection, connection.begin() as transaction:
        add(connection)
        transaction.rollback()

    with engine.begin() as connection:
        added = add(connection)

    assert not added.replayed


def test_different_references_raced_add_up(engine: Engine) -> None:
    """Holds of one payee that come at once, the wallet's first ones, are all counted."""

    def numbered(number: int) -> Any:
        return lambda connection: add(connection, reference=f"invoice-{number}")

    outcomes = all_at_once(engine, *[numbered(number) for number in range(6)])

    assert all(isinstance(outcome, AddedHold) for outcome in outcomes)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).pending_earnings_minor == 600_000
        assert row_counts(connection)["wallet"] == 2


def test_new_owners_beside_known_ones_do_not_deadlock(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wallets are locked once in a call and by id, also where some of them have to be made first."""
    with engine.begin() as connection:
        for number in (1, 2):
            add_pending_earnings(connection, **vars(team(f"first-{number}", f"worker-{number}")), now=NOON)
    both_there = Barrier(2)

    def meet(connection: AnyConnection, name: str, **parameters: object) -> Sequence[Row]:
        if name == "ensure_wallets":
            both_there.wait(timeout=WAIT_SECONDS_MAX)
        return fetch(connection, name, **parameters)

    monkeypatch.setattr(intake, "fetch", meet)
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
