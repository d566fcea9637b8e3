"""A wallet ends where a bigint does: whoever would go beyond is refused by name, and nothing else is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import AnyConnection, database_clock, fetch
from buffer_pipeline.errors import JobConflict, Refused, WalletFull
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import (
    AddedHold,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
)
from buffer_pipeline.metrics import BooksCollector
from buffer_pipeline.money import AMOUNT_MINOR_MAX, WALLET_MINOR_MAX, format_amount
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_matured
from buffer_pipeline.reports import totals, wallet_statement
from buffer_pipeline.wallet import deposit, open_balance, withdraw
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    WAIT_SECONDS_MAX,
    all_at_once,
    books,
    place_hold,
    row_counts,
    waiting_for_a_lock,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

LINES: Final = text(
    """
    INSERT INTO buffer.transaction (
      type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor, reference,
      recorded_at
    )
    SELECT
      'OPENING_BALANCE', 'OPENING', 'BALANCE', wallet_id, currency, amount_minor,
      CAST(sum(amount_minor) OVER (ORDER BY line) AS bigint), owner || '-' || line, CAST(:now AS timestamptz)
    FROM (
      SELECT
        wallet.*, line,
        CASE line WHEN 0 THEN CAST(:rest_minor AS bigint) ELSE CAST(:line_minor AS bigint) END
          AS amount_minor
      FROM buffer.wallet
      CROSS JOIN generate_series(0, CAST(:lines AS bigint)) AS line
      WHERE owner = :owner
    ) AS line
    WHERE amount_minor > 0
    ORDER BY line
    """
)


def fill(connection: Connection, owner: str, *, room_minor: int) -> None:
    """Give an owner without lines a balance that leaves so much room, line by line."""
    balance_minor = WALLET_MINOR_MAX - room_minor
    lines, rest_minor = divmod(balance_minor, AMOUNT_MINOR_MAX)
    fetch(connection, "add_currencies", currencies=["PHP"], places=[2])
    fetch(connection, "ensure_wallets", owners=[owner], currencies=["PHP"])
    parameters = {"owner": owner, "lines": lines, "rest_minor": rest_minor, "line_minor": AMOUNT_MINOR_MAX}
    connection.execute(LINES, {**parameters, "now": NOON})
    connection.execute(
        text("UPDATE buffer.wallet SET balance_minor = :balance WHERE owner = :owner"),
        {"owner": owner, "balance": balance_minor},
    )


def earning(reference: str, *, amount: str = "0.60", payee: str = PAYEE) -> Earning:
    """Return an earning of some centavos."""
    return Earning(reference=reference, job=JOB, payee=payee, payer=PAYER, amount=amount, currency="PHP")


def add(connection: AnyConnection, reference: str, amount: str = "0.60") -> AddedHold:
    """Hold one earning of the payee's."""
    return add_pending_earnings(
        connection,
        reference=reference,
        job=JOB,
        payee=PAYEE,
        payer=PAYER,
        amount=amount,
        currency="PHP",
        now=NOON,
    )


@pytest.mark.parametrize("verb", [deposit, open_balance])
def test_a_deposit_fills_a_wallet_and_no_more(connection: Connection, verb: Callable[..., object]) -> None:
    """The last centavo goes in; the next is refused by name, writes nothing and leaves the transaction."""
    fill(connection, PAYEE, room_minor=60)
    pay = {"owner": PAYEE, "currency": "PHP", "now": NOON}
    verb(connection, amount="0.60", reference="fits", **pay)
    before = books(connection)

    with pytest.raises(WalletFull) as refused:
        verb(connection, amount="0.01", reference="does not", **pay)

    assert str(refused.value) == (
        "wallet of 'worker-17': cannot take 0.01 PHP more; a wallet holds at most 92233720368547758.07"
    )
    assert books(connection) == before
    assert reconcile(connection) == []


def test_what_waits_counts_too(connection: Connection) -> None:
    """Balance and pending earnings share the room, so that a release needs none."""
    fill(connection, PAYEE, room_minor=60)
    add(connection, "waits", "0.50")

    with pytest.raises(WalletFull):
        deposit(connection, owner=PAYEE, amount="0.11", currency="PHP", reference="in-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="0.01", currency="PHP", reference="out-1", now=NOON)
    deposit(connection, owner=PAYEE, amount="0.11", currency="PHP", reference="in-1", now=NOON)

    assert wallet_of(connection, PAYEE).balance_minor == WALLET_MINOR_MAX - 50


def test_an_earning_beyond_it_is_refused(connection: Connection) -> None:
    """By name, with nothing written; what fits comes in, and a reference that stands is repeated."""
    fill(connection, PAYEE, room_minor=100)
    first = add(connection, "fits")
    before = books(connection)

    with pytest.raises(WalletFull, match=r"wallet of 'worker-17': cannot take 0\.60 PHP more"):
        add(connection, "does not")

    assert books(connection) == before
    assert add(connection, "fits").hold_id == first.hold_id
    assert not add(connection, "smaller", "0.40").replayed


def test_of_many_only_what_does_not_fit_is_refused(connection: Connection) -> None:
    """One after the other: what comes later and is smaller may fit; other payees' come in."""
    fill(connection, PAYEE, room_minor=100)
    earnings = [
        earning("first"),
        earning("other", payee="worker-18"),
        earning("too much"),
        earning("smaller", amount="0.40"),
        earning("too much"),
        earning("nothing left", amount="0.01"),
    ]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    held = [isinstance(outcome, AddedHold) for outcome in outcomes]
    assert held == [True, True, False, True, False, False]
    assert all(isinstance(outcome, AddedHold | WalletFull) for outcome in outcomes)
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 100
    assert reconcile(connection) == []


def test_more_than_a_bigint_at_once(connection: Connection) -> None:
    """A sum that no bigint holds comes in as far as there is room."""
    largest = format_amount(AMOUNT_MINOR_MAX, 2)
    earnings = [earning(f"earning-{number}", amount=largest) for number in range(9_300)]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    refused = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert refused == list(range(9_223, 9_300))
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 9_223 * AMOUNT_MINOR_MAX


def test_a_psycopg_connection_goes_on_too(engine: Engine) -> None:
    """The refusal leaves the caller's own transaction as it was, with what it wrote before and after."""
    with engine.begin() as connection:
        fill(connection, PAYEE, room_minor=60)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    with psycopg.connect(url) as own:
        own.execute(sql.SQL("CREATE TEMPORARY TABLE job (name text)"))
        with pytest.raises(WalletFull):
            add(own, "does not", "0.61")
        add(own, "fits")
        own.execute(sql.SQL("INSERT INTO job VALUES ('job-8')"))

    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE).pending_earnings_minor == 60
        assert reconcile(connection) == []


def test_two_at_once_for_the_room_of_one(engine: Engine) -> None:
    """Who comes second behind the lock is refused by name."""
    with engine.begin() as connection:
        fill(connection, PAYEE, room_minor=100)
        fetch(connection, "ensure_wallets", owners=[PAYER], currencies=["PHP"])

    outcomes = all_at_once(
        engine,
        lambda connection: add_many_pending_earnings(connection, [earning("first")], now=NOON),
        lambda connection: add_many_pending_earnings(connection, [earning("second")], now=NOON),
    )

    found = sorted(type(one).__name__ for each in outcomes if isinstance(each, list) for one in each)
    assert found == ["AddedHold", "WalletFull"]


def test_a_full_wallet_is_released_to_like_any_other(connection: Connection) -> None:
    """A release moves within the wallet, so it never overflows; a rejection before it neither."""
    fill(connection, PAYEE, room_minor=100_000)
    place_hold(connection)
    place_hold(connection, payee="worker-18", job="job-9")
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)

    batch = release_matured(connection, now=DAY_7.replace(day=20), batch_limit=10)

    assert batch.holds_released == 2
    assert wallet_of(connection, PAYEE).balance_minor == WALLET_MINOR_MAX
    assert reconcile(connection) == []


TURNOVER: Final = text(
    """
    INSERT INTO buffer.transaction (
      type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
      balance_after_minor, reference, recorded_at
    )
    SELECT
      CASE WHEN line % 2 = 0 THEN 'DEPOSIT' ELSE 'WITHDRAWAL' END,
      CASE WHEN line % 2 = 0 THEN 'EXTERNAL' ELSE 'BALANCE' END,
      CASE WHEN line % 2 = 1 THEN wallet_id END,
      CASE WHEN line % 2 = 0 THEN 'BALANCE' ELSE 'EXTERNAL' END,
      CASE WHEN line % 2 = 0 THEN wallet_id END,
      currency, 1000000000000000, CASE WHEN line % 2 = 0 THEN 1000000000000000 ELSE 0 END,
      'turnover-' || line, CAST(:now AS timestamptz)
    FROM buffer.wallet
    CROSS JOIN generate_series(0, 19999) AS line
    WHERE owner = 'worker-1'
    ORDER BY line
    """
)


def test_books_beyond_a_bigint_are_proved_and_read(engine: Engine) -> None:
    """Three full wallets of a currency, and a turnover of more than a bigint each way: all sums are exact."""
    with engine.begin() as connection:
        for owner in ("worker-2", "worker-3", PAYEE):
            fill(connection, owner, room_minor=100_000)
        place_hold(connection)
        fetch(connection, "ensure_wallets", owners=["worker-1"], currencies=["PHP"])
        connection.execute(TURNOVER, {"now": NOON})

    with engine.connect() as connection:
        found = reconcile(connection)
        lines = {row["type"]: row["amount_minor"] for row in totals(connection).transactions}
        statement = wallet_statement(connection, owner="worker-1")
        last = wallet_statement(connection, owner=PAYEE)[-1]
        counted = row_counts(connection)["transaction"]

    assert found == []
    assert lines["DEPOSIT"] == lines["WITHDRAWAL"] == 10_000 * AMOUNT_MINOR_MAX > WALLET_MINOR_MAX
    assert lines["OPENING_BALANCE"] == 3 * (WALLET_MINOR_MAX - 100_000)
    assert [row["balance_after_minor"] for row in statement[-2:]] == [AMOUNT_MINOR_MAX, 0]
    assert last["balance_after_minor"] + last["pending_earnings_after_minor"] == WALLET_MINOR_MAX
    assert counted == 20_000 + 3 * 9_224 + 1


def test_metrics_of_books_beyond_a_bigint(engine: Engine) -> None:
    """What waits in a currency may be more than a bigint, and so may what came in."""
    largest = format_amount(AMOUNT_MINOR_MAX, 2)
    with engine.begin() as connection:
        for payee in ("worker-1", "worker-2"):
            earnings = [
                replace(earning(f"{payee}-{number}", amount=largest, payee=payee), held_at=NOON)
                for number in range(5_000)
            ]
            add_many_pending_earnings(connection, earnings, now=database_clock(connection))

    families = BooksCollector(engine, policy=Policy(), endpoints=[]).collect()
    figures = {sample.name: sample.value for family in families for sample in family.samples if sample.value}

    assert figures["buffer_up"] == 1
    assert figures["buffer_held_amount_minor"] == figures["buffer_due_amount_minor"] == 10**19
    assert figures["buffer_added_amount_minor_total"] == 10**19


def test_a_batch_may_come_to_more_than_a_bigint(connection: Connection) -> None:
    """A batch's total in a currency is bounded by no wallet."""
    largest = format_amount(AMOUNT_MINOR_MAX, 2)
    for payee in ("worker-1", "worker-2", "worker-3"):
        many = [earning(f"{payee}-{number}", amount=largest, payee=payee) for number in range(4_000)]
        add_many_pending_earnings(connection, many, now=NOON)

    batch = release_matured(connection, now=DAY_7, batch_limit=20_000)

    assert batch.amounts_minor == {"PHP": 12_000 * AMOUNT_MINOR_MAX}


def _approve(connection: Connection, hold_id: int) -> object:  # noqa: ARG001 - as the other
    backjob_id = connection.scalar(text("SELECT backjob_id FROM buffer.backjob"))
    return approve_backjob(connection, backjob_id=backjob_id, by=ADMIN, reason="agreed", now=NOON)


def _refund(connection: Connection, hold_id: int) -> object:
    return refund_hold(connection, hold_id=hold_id, by=ADMIN, reason="agreed", reference="refund-1", now=NOON)


@pytest.mark.parametrize("refund", [_approve, _refund])
def test_a_refund_to_a_full_wallet_is_refused_and_writes_nothing(
    connection: Connection, refund: Callable[[Connection, int], object]
) -> None:
    """A payer whose wallet has no room gets no refund, and the transaction can go on."""
    hold_id = place_hold(connection)
    if refund is _refund:
        freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
    else:
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
    fill(connection, PAYER, room_minor=0)
    before = books(connection)

    with pytest.raises(WalletFull, match="its payer's wallet cannot take so much more"):
        refund(connection, hold_id)

    assert books(connection) == before


@pytest.mark.parametrize("many", [False, True])
def test_what_does_not_fit_leaves_its_job_to_others(connection: Connection, many: bool) -> None:
    """A refused earning writes nothing: not even a job and its payer, nor a wallet, nor a currency."""
    fill(connection, PAYEE, room_minor=0)
    before = books(connection)
    refused = replace(earning("first"), job="job-new", payer="client-5")

    if many:
        outcomes = add_many_pending_earnings(connection, [refused], now=NOON)
        assert isinstance(outcomes[0], WalletFull)
    else:
        with pytest.raises(WalletFull):
            add_pending_earnings(connection, **asdict(refused), now=NOON)

    assert books(connection) == before
    assert place_hold(connection, job="job-new", payer="client-6", payee="worker-18")


def test_the_next_payer_gets_the_job_of_what_did_not_fit(connection: Connection) -> None:
    """In one call too: the first of a job that is held gives it its payer."""
    fill(connection, PAYEE, room_minor=0)
    refused = replace(earning("first"), job="job-new", payer="client-5")
    held = replace(earning("second", payee="worker-18"), job="job-new", payer="client-6")

    outcomes = add_many_pending_earnings(connection, [refused, held], now=NOON)

    assert [type(outcome) for outcome in outcomes] == [WalletFull, AddedHold]


def test_what_is_another_payers_takes_no_room(connection: Connection) -> None:
    """With room for 1.00: 0.60 on another payer's job is refused, 0.60 comes in, 2.00 does not fit."""
    place_hold(connection, payee="worker-18")
    fill(connection, PAYEE, room_minor=100)
    asked = [
        replace(earning("one"), payer="client-6"),
        replace(earning("two"), job="job-9"),
        replace(earning("three", amount="2.00"), job="job-9"),
    ]

    outcomes = add_many_pending_earnings(connection, asked, now=NOON)

    assert [type(outcome) for outcome in outcomes] == [JobConflict, AddedHold, WalletFull]


def test_what_was_committed_meanwhile_is_repeated_though_its_wallet_is_full(engine: Engine) -> None:
    """A reference that another session holds, found only behind its lock, is no earning that does not fit."""
    with engine.begin() as connection:
        fill(connection, PAYEE, room_minor=100)
        place_hold(connection, payee="worker-18")

    with ThreadPoolExecutor(1) as threads, engine.connect() as watching:
        with engine.begin() as first:
            add(first, "raced")
            adding = threads.submit(add_two, engine)
            while not waiting_for_a_lock(watching):
                pass

        outcomes = adding.result(timeout=WAIT_SECONDS_MAX)

    assert isinstance(outcomes[0], AddedHold)
    assert outcomes[0].replayed
    assert isinstance(outcomes[1], WalletFull)


def add_two(engine: Engine) -> list[AddedHold | Refused]:
    """Hold one that fits, if it is alone, and one that doesn't."""
    with engine.begin() as connection:
        return add_many_pending_earnings(
            connection, [earning("raced"), earning("above", amount="2.00")], now=NOON
        )
