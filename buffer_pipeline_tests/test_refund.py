"""An admin refunds a frozen hold without a backjob; an approval may name the holds that it takes from."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.backjob import Backjob, approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reports import show_hold
from buffer_pipeline.tables import batch, hold_freeze, transaction
from buffer_pipeline.wallet import Movement, deposit
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    hold_row,
    notifications_of,
    one_behind_the_other,
    open_freezes,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.runs import corrupt

DAY = timedelta(days=1)


def refund(connection: Connection, hold_id: int, **changes: Any) -> Refund:
    """Refund as an admin, with some of it changed."""
    asked = {"by": ADMIN, "reason": "stolen card", "reference": "refund-1", "now": NOON}
    return refund_hold(connection, hold_id=hold_id, **{**asked, **changes})


def freeze(connection: Connection, hold_id: int, kind: FreezeKind = FreezeKind.RISK) -> Freeze:
    """Put one more freeze on a hold."""
    return freeze_hold(connection, hold_id=hold_id, kind=kind, by="risk-2", reason="a look", now=NOON)


def request(connection: Connection) -> int:
    """Ask for a backjob on JOB as its client."""
    return request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=NOON).backjob_id


def approve(connection: Connection, backjob_id: int, **changes: Any) -> Backjob:
    """Approve as an admin, with some of it changed."""
    return approve_backjob(
        connection, backjob_id=backjob_id, **{"by": ADMIN, "reason": "indeed", "now": NOON, **changes}
    )


def refunded(connection: Connection, *hold_ids: int) -> list[int]:
    """Return what was refunded of each hold, in minor units."""
    return [hold_row(connection, hold_id)["refunded_minor"] for hold_id in hold_ids]


# Without a backjob


def test_a_frozen_hold_is_refunded_to_its_payer(connection: Connection) -> None:
    """The payer has all of it, both are told, and every freeze is closed by whoever refunded."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    freeze(connection, hold_id)

    done = refund(connection, hold_id, now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert (done.hold_id, done.amount_minor, done.left_minor) == (hold_id, 100_000, 0)
    assert (done.state, done.replayed) == (HoldState.REFUNDED, False)
    assert (row["state"], row["refunded_minor"], row["settled_at"]) == ("REFUNDED", 100_000, NOON + DAY)
    assert row["release_date"] == DAY_7
    assert wallet_of(connection, PAYEE) == Wallet()
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert open_freezes(connection, hold_id) == []
    closed = connection.execute(select(hold_freeze)).mappings().all()
    assert [(each["closed_by"], each["closing_reason"], each["closed_at"]) for each in closed] == [
        (ADMIN, "stolen card", NOON + DAY)
    ] * 2
    assert notifications_of(connection, PAYEE)[2:] == ["PAYMENT_REFUNDED"]
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"]
    assert reconcile(connection) == []


def test_a_refund_says_who_and_why(connection: Connection) -> None:
    """Its line has a reference and a batch with person and reason, and no backjob."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    done = refund(connection, hold_id)

    line = (
        connection.execute(select(transaction).where(transaction.c.transaction_id == done.transaction_id))
        .mappings()
        .one()
    )
    assert (line["type"], line["hold_id"], line["backjob_id"]) == ("REFUND", hold_id, None)
    assert (line["amount_minor"], line["balance_after_minor"]) == (100_000, 100_000)
    assert (line["reference"], line["recorded_at"]) == ("refund-1", NOON)
    made = connection.execute(select(batch).where(batch.c.batch_id == line["batch_id"])).mappings().one()
    assert (made["kind"], made["source"], made["reason"]) == ("REFUND", ADMIN, "stolen card")
    assert (made["due_by"], made["recorded_at"]) == (None, NOON)


def test_a_shown_refund_does_not_read_as_a_release(connection: Connection) -> None:
    """Who refunded and why is told apart from who released the rest and why."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="400.00")
    freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
    unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="cleared", now=NOON)
    release_early(connection, hold_id=hold_id, by=PAYER, reason="well done", now=NOON)

    _, refunded, released = show_hold(connection, hold_id=hold_id)["transactions"]

    assert (refunded["refunded_by"], refunded["refund_reason"]) == (ADMIN, "stolen card")
    assert (refunded["released_by"], refunded["release_reason"]) == (None, None)
    assert (released["released_by"], released["release_reason"]) == (PAYER, "well done")
    assert (released["refunded_by"], released["refund_reason"]) == (None, None)


def test_part_of_a_refund_leaves_the_rest_frozen(connection: Connection) -> None:
    """The freezes stand, the rest can be refunded in a second part and a third, or be resumed."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    first = refund(connection, hold_id, amount="250.50")
    second = refund(connection, hold_id, amount=100, reference="refund-2")

    assert (first.amount_minor, first.left_minor, first.state) == (25_050, 74_950, HoldState.FROZEN)
    assert (second.left_minor, second.state) == (64_950, HoldState.FROZEN)
    assert open_freezes(connection, hold_id) == ["ADMIN"]
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=64_950)
    assert reconcile(connection) == []
    rest = refund(connection, hold_id, reference="refund-3")
    assert (rest.amount_minor, rest.left_minor, rest.state) == (64_950, 0, HoldState.REFUNDED)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 25_050),
        ("REFUND", 10_000),
        ("REFUND", 64_950),
    ]
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"] * 3
    assert reconcile(connection) == []


def test_the_rest_of_a_refund_is_released(connection: Connection) -> None:
    """Once its freeze is closed, the payee has what was not refunded, on its own date."""
    hold_id = place_hold(connection)
    frozen = freeze(connection, hold_id)
    refund(connection, hold_id, amount="999.99")

    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    released = release_matured(connection, now=DAY_7, batch_limit=10)

    assert released.amounts_minor == {"PHP": 1}
    assert hold_row(connection, hold_id)["refunded_minor"] == 99_999
    assert reconcile(connection) == []


def test_a_frozen_hold_is_refunded_long_after_its_date(connection: Connection) -> None:
    """A freeze that outlasts the window leaves a way back to the payer."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    done = refund(connection, hold_id, now=DAY_7 + 300 * DAY)

    assert done.state is HoldState.REFUNDED


def test_a_refund_beside_a_decided_backjob(connection: Connection) -> None:
    """A backjob that froze it before, and was decided, is in nobody's way; parts add up with its part."""
    hold_id = place_hold(connection)
    approve(connection, request(connection), amount="400.00")
    freeze(connection, hold_id)

    done = refund(connection, hold_id)

    assert (done.amount_minor, done.state) == (60_000, HoldState.REFUNDED)
    assert hold_row(connection, hold_id)["refunded_minor"] == 100_000
    assert reconcile(connection) == []


@pytest.mark.parametrize("state", [HoldState.BUFFERED, HoldState.RELEASED, HoldState.REFUNDED])
def test_only_a_frozen_hold_is_refunded(connection: Connection, state: HoldState) -> None:
    """Who wants to refund what waits freezes it first; what is settled stays so."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        refund(connection, hold_id)

    assert str(refusal.value) == (
        f"hold {hold_id}: cannot refund without a backjob from {state}; that needs FROZEN"
    )
    assert (refusal.value.hold_id, refusal.value.state, refusal.value.allowed) == (
        hold_id,
        state,
        ("FROZEN",),
    )
    assert books(connection) == before


@pytest.mark.parametrize("frozen_too", [False, True])
def test_a_hold_under_a_backjob_is_the_backjobs_to_refund(connection: Connection, frozen_too: bool) -> None:
    """Who decides on it decides the backjob, which the refusal names, with what can be done."""
    hold_id = place_hold(connection)
    backjob_id = request(connection)
    if frozen_too:
        freeze(connection, hold_id)
    before = books(connection)

    with pytest.raises(BackjobRefused) as refusal:
        refund(connection, hold_id)

    assert str(refusal.value) == (
        f"hold {hold_id}: backjob {backjob_id} covers it; approve, reject or withdraw that"
    )
    assert (refusal.value.hold_id, refusal.value.backjob_id) == (hold_id, backjob_id)
    assert (refusal.value.state, refusal.value.allowed) == (
        BackjobState.OPEN,
        ("approve", "reject", "withdraw"),
    )
    assert books(connection) == before


def test_a_refund_above_what_is_held_is_refused(connection: Connection) -> None:
    """Nor is it cut to what is there."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="0.01")
    before = books(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        refund(connection, hold_id, amount="1000.00", reference="refund-2")

    assert str(refusal.value) == f"hold {hold_id}: 1000.00 PHP is above the 999.99 that it holds"
    assert refusal.value.hold_id == hold_id
    assert books(connection) == before


@pytest.mark.parametrize("hold_id", [404, 0])
def test_an_unknown_hold_is_not_refunded(connection: Connection, hold_id: int) -> None:
    """It is named, in the message and as an attribute, also where it can be no hold's id."""
    with pytest.raises(NotFound) as refusal:
        refund(connection, hold_id)

    assert (str(refusal.value), refusal.value.hold_id) == (f"hold {hold_id}: does not exist", hold_id)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": ""}, "by: must not be empty"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"reference": "x" * 201}, "reference: 201 characters"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
        ({"amount": "0"}, "amount"),
        ({"amount": "1.001"}, "amount 1.001: PHP has 2 places, this has 3"),
        ({"amount": 1.5}, "amount"),
    ],
)
def test_bad_input_refunds_nothing(connection: Connection, change: dict[str, Any], message: str) -> None:
    """What cannot be recorded is refused."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        refund(connection, hold_id, **change)

    assert books(connection) == before


@pytest.mark.parametrize("amount", [None, "250.00"])
def test_the_same_refund_again_is_the_first(connection: Connection, amount: str | None) -> None:
    """With its reference it moves nothing, and says how the hold is now."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    done = refund(connection, hold_id, amount=amount)
    before = books(connection)

    again = refund(connection, hold_id, amount=amount, now=DAY_7)

    assert (again.transaction_id, again.amount_minor) == (done.transaction_id, done.amount_minor)
    assert (again.left_minor, again.state, again.replayed) == (done.left_minor, done.state, True)
    assert books(connection) == before


def test_a_repeated_part_says_what_is_left_now(connection: Connection) -> None:
    """Also when another part came between, and the hold was settled by it."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="250.00")
    refund(connection, hold_id, reference="refund-2")

    again = refund(connection, hold_id, amount="250.00")

    assert (again.amount_minor, again.left_minor) == (25_000, 0)
    assert (again.hold_id, again.state, again.replayed) == (hold_id, HoldState.REFUNDED, True)


def test_a_repeated_part_leaves_nothing_of_what_was_released(connection: Connection) -> None:
    """What was not refunded is no longer held once it is the payee's."""
    hold_id = place_hold(connection)
    frozen = freeze(connection, hold_id)
    refund(connection, hold_id, amount="250.00")
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=10)

    again = refund(connection, hold_id, amount="250.00")

    assert (again.left_minor, again.state, again.replayed) == (0, HoldState.RELEASED, True)


@pytest.mark.parametrize(
    "change", [{"amount": "250.01"}, {"by": "admin-2"}, {"reason": "another one"}, {"hold": "other"}]
)
def test_another_refund_with_the_reference_is_refused(connection: Connection, change: dict[str, Any]) -> None:
    """The refusal names what the reference stands for."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    other = place_hold(connection, state=HoldState.FROZEN)
    done = refund(connection, hold_id, amount="250.00")
    before = books(connection)
    asked = {"amount": "250.00", **change}

    with pytest.raises(ReferenceConflict) as refusal:
        refund(connection, other if asked.pop("hold", None) else hold_id, **asked)

    assert str(refusal.value) == (
        f"reference 'refund-1': stands for transaction {done.transaction_id},"
        f" a REFUND of 250.00 PHP of hold {hold_id}"
    )
    assert (refusal.value.reference, refusal.value.hold_id) == ("refund-1", hold_id)
    assert books(connection) == before


def move(connection: Connection) -> Movement:
    """Deposit 5.00 PHP by the refund's reference."""
    return deposit(connection, owner=PAYER, amount="5.00", currency="PHP", reference="refund-1", now=NOON)


def test_a_reference_is_a_deposits_or_a_refunds(connection: Connection) -> None:
    """They are the references of what moves money: each refuses the other's."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    move(connection)
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=r"a DEPOSIT of 5\.00 PHP$"):
        refund(connection, hold_id)

    assert books(connection) == before
    refund(connection, hold_id, reference="refund-2")
    with pytest.raises(ReferenceConflict) as refusal:
        deposit(connection, owner=PAYER, amount="5.00", currency="PHP", reference="refund-2", now=NOON)
    assert refusal.value.reference == "refund-2"


def test_a_refund_behind_a_deposit_with_its_reference_is_refused(engine: Engine) -> None:
    """It waits, and then takes back all that it had written; its transaction can go on."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    def refund_and_go_on(connection: Connection) -> HoldState:
        with pytest.raises(ReferenceConflict, match="a DEPOSIT of"):
            refund(connection, hold_id)
        return state_of(connection, hold_id)

    # Of another wallet, whose lock the refund does not wait for.
    _, state = one_behind_the_other(
        engine,
        lambda connection: deposit(
            connection, owner="client-9", amount="5.00", currency="PHP", reference="refund-1", now=NOON
        ),
        refund_and_go_on,
    )

    assert state is HoldState.FROZEN
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()
        assert open_freezes(connection, hold_id) == ["ADMIN"]
        assert reconcile(connection) == []


def test_a_deposit_behind_a_refund_with_its_reference_is_refused(engine: Engine) -> None:
    """The other way round."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    done, refusal = one_behind_the_other(engine, lambda connection: refund(connection, hold_id), move)

    assert isinstance(refusal, ReferenceConflict)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=done.amount_minor)


def test_the_same_refund_raced_moves_money_once(engine: Engine) -> None:
    """All get the one refund, which one of them made."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    outcomes = all_at_once(engine, *[lambda connection: refund(connection, hold_id, amount="400.00")] * 4)

    done = [outcome for outcome in outcomes if isinstance(outcome, Refund)]
    assert sorted(one.replayed for one in done) == [False, True, True, True]
    assert len({one.transaction_id for one in done}) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
        assert reconcile(connection) == []


def test_refunds_raced_take_no_more_than_there_is(engine: Engine) -> None:
    """Of two parts that are more than the whole together one is refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    first, refusal = one_behind_the_other(
        engine,
        lambda connection: refund(connection, hold_id, amount="600.00"),
        lambda connection: refund(connection, hold_id, amount="600.00", reference="refund-2"),
    )

    assert first.left_minor == 40_000
    assert isinstance(refusal, InsufficientFunds)
    assert "400.00 that it holds" in str(refusal)


def test_a_refund_and_an_unfreezing_raced(engine: Engine) -> None:
    """Behind an unfreezing nothing is refunded, behind a whole refund nothing is there to resume."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        frozen = freeze(connection, hold_id)

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: unfreeze_hold(
            connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON
        ),
        lambda connection: refund(connection, hold_id),
    )

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.BUFFERED
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()


def test_a_backjob_behind_a_refund_finds_nothing(engine: Engine) -> None:
    """A request that waits for a whole refund comes too late, and one before it keeps the refund out."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)
        other = place_hold(connection, state=HoldState.FROZEN, job="job-9")

    one_behind_the_other(
        engine,
        lambda connection: refund(connection, hold_id),
        lambda connection: request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON),
    )
    opened, refusal = one_behind_the_other(
        engine,
        lambda connection: request_backjob(connection, job="job-9", by=PAYER, reason="hm", now=NOON),
        lambda connection: refund(connection, other, reference="refund-2"),
    )

    assert isinstance(refusal, BackjobRefused)
    assert refusal.backjob_id == opened.backjob_id
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.REFUNDED
        assert state_of(connection, other) is HoldState.FROZEN
        assert reconcile(connection) == []


# An approval that names holds


def test_an_approval_may_name_the_holds_that_it_refunds(connection: Connection) -> None:
    """Those are refunded whole, the others go back into the buffer on their dates."""
    first, second, third = (place_hold(connection, payee=f"worker-{number}") for number in range(3))
    backjob_id = request(connection)

    approved = approve(connection, backjob_id, hold_ids=[third, first])

    assert approved.hold_ids == (first, second, third)
    assert refunded(connection, first, second, third) == [100_000, 0, 100_000]
    assert state_of(connection, second) is HoldState.BUFFERED
    assert transactions_of(connection, second) == [("PENDING_EARNING", 100_000)]
    assert sorted(notifications_of(connection, "worker-1")[-2:]) == ["BACKJOB_APPROVED", "PAYMENT_RESUMED"]
    assert "PAYMENT_REFUNDED" not in notifications_of(connection, "worker-1")
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=200_000)
    assert reconcile(connection) == []


def test_an_amount_is_split_over_the_named_holds(connection: Connection) -> None:
    """In proportion to what these hold; what is left of them goes back as well."""
    first = place_hold(connection, amount="300.00")
    second = place_hold(connection, amount="500.00")
    third = place_hold(connection, amount="100.00")
    backjob_id = request(connection)

    approve(connection, backjob_id, hold_ids=(first, third), amount="200.00")

    assert refunded(connection, first, second, third) == [15_000, 0, 5_000]
    assert {state_of(connection, one) for one in (first, second, third)} == {HoldState.BUFFERED}
    assert reconcile(connection) == []


def test_an_amount_from_named_holds_of_one_currency(connection: Connection) -> None:
    """Where a job is paid in two, naming the holds of one says which is meant."""
    pesos = place_hold(connection)
    dollars = place_hold(connection, currency="USD", amount="20.00")
    backjob_id = request(connection)

    with pytest.raises(InvalidInput, match="its holds are in PHP and USD"):
        approve(connection, backjob_id, hold_ids=[pesos, dollars], amount="5.00")
    approve(connection, backjob_id, hold_ids=[dollars], amount="5.00")

    assert refunded(connection, pesos, dollars) == [0, 500]
    assert wallet_of(connection, PAYER, "USD") == Wallet(balance_minor=500)
    assert wallet_of(connection, PAYER) == Wallet()


def test_named_holds_of_two_currencies_are_refunded_whole(connection: Connection) -> None:
    """Without an amount each goes back in its own."""
    pesos = place_hold(connection)
    dollars = place_hold(connection, currency="USD", amount="20.00")
    yen = place_hold(connection, currency="JPY", amount="700")

    approve(connection, request(connection), hold_ids=[pesos, yen])

    assert refunded(connection, pesos, dollars, yen) == [100_000, 0, 700]
    assert reconcile(connection) == []


def test_an_amount_above_the_named_holds_is_refused(connection: Connection) -> None:
    """What the others hold does not count."""
    first = place_hold(connection)
    place_hold(connection)
    backjob_id = request(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        approve(connection, backjob_id, hold_ids=[first], amount="1000.01")

    assert "1000.01 PHP is above the 1000.00" in str(refusal.value)
    assert refusal.value.backjob_id == backjob_id
    assert books(connection) == before


def test_a_hold_that_the_backjob_does_not_freeze_is_named(connection: Connection) -> None:
    """A stranger, or one of the job that was settled before, is refused, and nothing is refunded."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    own = place_hold(connection)
    stranger = place_hold(connection, job="job-9")
    backjob_id = request(connection)
    before = books(connection)

    for hold_id in (settled, stranger, 404):
        with pytest.raises(NotFound) as refusal:
            approve(connection, backjob_id, hold_ids=[own, hold_id])
        assert str(refusal.value) == f"backjob {backjob_id}: does not freeze hold {hold_id}"
        assert (refusal.value.backjob_id, refusal.value.hold_id) == (backjob_id, hold_id)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("hold_ids", "message"),
    [([], "hold_ids names no hold"), (["1"], "hold"), ([1.0], "hold"), ([True], "hold")],
)
def test_what_names_no_hold_is_refused(connection: Connection, hold_ids: list[Any], message: str) -> None:
    """No hold at all, or what is no id."""
    place_hold(connection)
    backjob_id = request(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        approve(connection, backjob_id, hold_ids=hold_ids)

    assert books(connection) == before


def test_a_freeze_on_a_hold_that_is_not_named_stands_in_the_way_too(connection: Connection) -> None:
    """An approval ends the backjob for all its holds, so none of them may be frozen otherwise."""
    first = place_hold(connection)
    second = place_hold(connection)
    backjob_id = request(connection)
    other = freeze(connection, second)
    before = books(connection)

    with pytest.raises(Exception, match="cannot be approved") as refusal:
        approve(connection, backjob_id, hold_ids=[first])

    assert getattr(refusal.value, "freeze_ids", None) == (other.freeze_id,)
    assert getattr(refusal.value, "hold_id", None) == second
    assert books(connection) == before


def test_a_rejection_and_a_refund_of_the_rest(connection: Connection) -> None:
    """What an admin froze before the backjob and refunds after it adds up."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    backjob_id = request(connection)
    reject_backjob(connection, backjob_id=backjob_id, by=ADMIN, reason="no", now=NOON)

    done = refund(connection, hold_id)

    assert done.state is HoldState.REFUNDED
    assert reconcile(connection) == []


def test_a_refund_repeated_without_an_amount_means_all_of_it(connection: Connection) -> None:
    """A part is not that, so it is refused; what was refunded whole is repeated."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="1.00")
    with pytest.raises(ReferenceConflict, match=r"a REFUND of 1\.00 PHP of hold"):
        refund(connection, hold_id)

    refund(connection, hold_id, reference="refund-2")

    assert refund(connection, hold_id, reference="refund-2").replayed
    with pytest.raises(ReferenceConflict):
        refund(connection, hold_id)


def test_damaged_books_are_named(engine: Engine, superuser_url: str) -> None:
    """A hold that is FROZEN without a freeze, or has one without being FROZEN, is refused in words."""
    with engine.begin() as connection:
        alone, other = place_hold(connection, state=HoldState.FROZEN), place_hold(connection, job="job-9")
        lifted = freeze(connection, other)
    corrupt(
        superuser_url,
        f"DELETE FROM buffer.hold_freeze WHERE hold_id = {alone}",
        f"UPDATE buffer.unsettled_hold SET state = 'BUFFERED' WHERE hold_id = {other}",
    )

    with engine.connect() as connection, connection.begin():
        with pytest.raises(
            FreezeRefused, match=f"^hold {alone}: FROZEN without an open freeze; freeze it first"
        ) as refused:
            refund(connection, alone)
        assert refused.value.hold_id == alone
        with pytest.raises(
            BooksOutOfBalance, match=f"^hold {other}: freeze {lifted.freeze_id} is open, and the"
        ):
            unfreeze_hold(connection, freeze_id=lifted.freeze_id, by=ADMIN, reason="x", now=NOON)


def test_a_refund_that_changes_nothing_is_an_error(engine: Engine, superuser_url: str) -> None:
    """Something keeps the hold's row from being written, here a trigger: the caller has to roll back."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)
    corrupt(
        superuser_url,
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER nothing BEFORE UPDATE OR DELETE ON buffer.unsettled_hold"
        " FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    )

    with (
        engine.connect() as connection,
        pytest.raises(
            BooksOutOfBalance, match=f"^hold {hold_id}: the refund of 100 minor units failed; roll back$"
        ),
    ):
        refund(connection, hold_id, amount="1.00")
