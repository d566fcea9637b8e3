"""A wallet's limit is a bigint. A payment beyond it is refused by name; everything else is accepted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import AnyConnection, database_clock, fetch
from buffer_pipeline.errors import JobConflict, Refused, WalletFull
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.money import AMOUNT_MINOR_MAX, WALLET_MINOR_MAX, format_amount
from buffer_pipeline.monitoring.metrics import BooksCollector
from buffer_pipeline.policy import Policy
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_matured
from buffer_pipeline.reports.totals import totals
from buffer_pipeline.wallet import deposit, open_balance, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
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
from buffer_pipeline_tests.support.full_wallets import earning, fill_wallet
from buffer_pipeline_tests.support.read_rows import all_lines


def add(connection: AnyConnection, reference: str, amount: str = "0.60") -> AddedHold:
    """Add one earning of the payee."""
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
    """The last centavo is accepted. The next deposit is refused, writes nothing and leaves the transaction
    usable.
    """
    fill_wallet(connection, PAYEE, capacity_minor=60)
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


def test_pending_earnings_count_towards_the_limit(connection: Connection) -> None:
    """Balance and pending earnings share the limit, so a release needs no additional room."""
    fill_wallet(connection, PAYEE, capacity_minor=60)
    add(connection, "waits", "0.50")

    with pytest.raises(WalletFull):
        deposit(connection, owner=PAYEE, amount="0.11", currency="PHP", reference="in-1", now=NOON)
    withdraw(connection, owner=PAYEE, amount="0.01", currency="PHP", reference="out-1", now=NOON)
    deposit(connection, owner=PAYEE, amount="0.11", currency="PHP", reference="in-1", now=NOON)

    assert wallet_of(connection, PAYEE).balance_minor == WALLET_MINOR_MAX - 50


def test_earning_beyond_the_limit_is_refused(connection: Connection) -> None:
    """The refusal names the wallet; nothing is written. Other earnings are added, and replays work."""
    fill_wallet(connection, PAYEE, capacity_minor=100)
    first = add(connection, "fits")
    before = books(connection)

    with pytest.raises(WalletFull, match=r"wallet of 'worker-17': cannot take 0\.60 PHP more"):
        add(connection, "does not")

    assert books(connection) == before
    assert add(connection, "fits").hold_id == first.hold_id
    assert not add(connection, "smaller", "0.40").replayed


def test_many_earnings_beyond_the_limit_are_refused_one_by_one(connection: Connection) -> None:
    """A later, smaller earning may fit. Earnings of other payees are added."""
    fill_wallet(connection, PAYEE, capacity_minor=100)
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


def test_many_earnings_may_exceed_a_bigint_in_sum(connection: Connection) -> None:
    """Those that fit are added."""
    largest = format_amount(AMOUNT_MINOR_MAX, 2)
    earnings = [earning(f"earning-{number}", amount=largest) for number in range(9_300)]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    refused = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
    assert refused == list(range(9_223, 9_300))
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 9_223 * AMOUNT_MINOR_MAX


def test_refusal_beyond_the_limit_leaves_a_psycopg_transaction_usable(engine: Engine) -> None:
    """The caller's writes before and after the refusal are kept."""
    with engine.begin() as connection:
        fill_wallet(connection, PAYEE, capacity_minor=60)
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


def test_one_of_two_concurrent_earnings_fits(engine: Engine) -> None:
    """The second one, which waited for the lock, is refused by name."""
    with engine.begin() as connection:
        fill_wallet(connection, PAYEE, capacity_minor=100)
        fetch(connection, "wallet/ensure_wallets", owners=[PAYER], currencies=["PHP"])

    outcomes = all_at_once(
        engine,
        lambda connection: add_many_pending_earnings(connection, [earning("first")], now=NOON),
        lambda connection: add_many_pending_earnings(connection, [earning("second")], now=NOON),
    )

    found = sorted(type(one).__name__ for each in outcomes if isinstance(each, list) for one in each)
    assert found == ["AddedHold", "WalletFull"]


def test_full_wallet_can_be_released_to(connection: Connection) -> None:
    """A release moves money within the wallet, so it never overflows; neither does a rejection."""
    fill_wallet(connection, PAYEE, capacity_minor=100_000)
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


def test_sums_beyond_a_bigint_are_exact(engine: Engine) -> None:
    """Three full wallets of a currency, and turnovers of more than a bigint."""
    with engine.begin() as connection:
        for owner in ("worker-2", "worker-3", PAYEE):
            fill_wallet(connection, owner, capacity_minor=100_000)
        place_hold(connection)
        fetch(connection, "wallet/ensure_wallets", owners=["worker-1"], currencies=["PHP"])
        connection.execute(TURNOVER, {"now": NOON})

    with engine.connect() as connection:
        found = reconcile(connection)
        lines = {row["type"]: row["amount_minor"] for row in totals(connection).transactions}
        statement = all_lines(connection, owner="worker-1")
        last = all_lines(connection, owner=PAYEE)[-1]
        counted = row_counts(connection)["transaction"]

    assert found == []
    assert lines["DEPOSIT"] == lines["WITHDRAWAL"] == 10_000 * AMOUNT_MINOR_MAX > WALLET_MINOR_MAX
    assert lines["OPENING_BALANCE"] == 3 * (WALLET_MINOR_MAX - 100_000)
    assert [row["balance_after_minor"] for row in statement[-2:]] == [AMOUNT_MINOR_MAX, 0]
    assert last["balance_after_minor"] + last["pending_earnings_after_minor"] == WALLET_MINOR_MAX
    assert counted == 20_000 + 3 * 9_224 + 1


def test_metrics_beyond_a_bigint(engine: Engine) -> None:
    """The amounts waiting and added in a currency may exceed a bigint."""
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


def test_batch_total_may_exceed_a_bigint(connection: Connection) -> None:
    """No wallet limits the total of a batch."""
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
    """The payer gets no refund, and the transaction stays usable."""
    hold_id = place_hold(connection)
    if refund is _refund:
        freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
    else:
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
    fill_wallet(connection, PAYER, capacity_minor=0)
    before = books(connection)

    with pytest.raises(WalletFull, match="its payer's wallet cannot take so much more"):
        refund(connection, hold_id)

    assert books(connection) == before


@pytest.mark.parametrize("many", [False, True])
def test_refused_earning_does_not_claim_its_job(connection: Connection, many: bool) -> None:
    """It writes nothing: no job with its payer, no wallet, no currency."""
    fill_wallet(connection, PAYEE, capacity_minor=0)
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


def test_next_payer_gets_the_job_of_a_refused_earning(connection: Connection) -> None:
    """In one call, the payer of the first accepted earning becomes the job's payer."""
    fill_wallet(connection, PAYEE, capacity_minor=0)
    refused = replace(earning("first"), job="job-new", payer="client-5")
    held = replace(earning("second", payee="worker-18"), job="job-new", payer="client-6")

    outcomes = add_many_pending_earnings(connection, [refused, held], now=NOON)

    assert [type(outcome) for outcome in outcomes] == [WalletFull, AddedHold]


def test_a_refused_earning_takes_no_capacity(connection: Connection) -> None:
    """With room for 1.00: 0.60 on another payer's job is refused, 0.60 is added, 2.00 does not fit."""
    place_hold(connection, payee="worker-18")
    fill_wallet(connection, PAYEE, capacity_minor=100)
    arguments = [
        replace(earning("one"), payer="client-6"),
        replace(earning("two"), job="job-9"),
        replace(earning("three", amount="2.00"), job="job-9"),
    ]

    outcomes = add_many_pending_earnings(connection, arguments, now=NOON)

    assert [type(outcome) for outcome in outcomes] == [JobConflict, AddedHold, WalletFull]


def test_concurrently_added_reference_is_replayed_with_a_full_wallet(engine: Engine) -> None:
    """A reference that is found only after waiting for its lock is a replay, not a refusal."""
    with engine.begin() as connection:
        fill_wallet(connection, PAYEE, capacity_minor=100)
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
    """Add one earning that fits if it is alone, and one that does not fit."""
    with engine.begin() as connection:
        return add_many_pending_earnings(
            connection, [earning("raced"), earning("above", amount="2.00")], now=NOON
        )
