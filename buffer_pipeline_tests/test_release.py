"""Rules 2 and 3: what has matured is released once; the payer or an admin may do it earlier."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.backjob import Backjob, approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InvalidInput,
    NotAllowed,
    NotFound,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    Shard,
    Stretch,
    part_wallets,
    release_early,
    release_matured,
    release_stretch,
)
from buffer_pipeline.tables import batch, transaction
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
    place_hold,
    release_date_of,
    row_counts,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

INSTANT = timedelta(microseconds=1)


def release_all(connection: Connection, now: datetime = DAY_7) -> ReleaseBatch:
    """Release whatever has matured."""
    return release_matured(connection, now=now, batch_limit=1000, source="a test")


def early(connection: Connection, **changes: Any) -> ReleaseBatch:
    """Release early as the payer, with some of it changed."""
    return release_early(connection, **{"by": PAYER, "reason": "well done", "now": NOON, **changes})


def test_matured_hold_is_released_whole(connection: Connection) -> None:
    """At its date a hold moves to the balance, onto the books, and its payee is told."""
    hold_id = place_hold(connection)

    released = release_all(connection)

    assert (released.holds_released, released.amounts_minor) == (1, {"PHP": 100_000})
    row = hold_row(connection, hold_id)
    assert (row["state"], row["settled_at"], row["refunded_minor"]) == ("RELEASED", DAY_7, 0)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000, pending_earnings_minor=0)
    assert wallet_of(connection, PAYER) == Wallet()
    assert transactions_of(connection, hold_id) == [("PENDING_EARNING", 100_000), ("EARNING", 100_000)]
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (DAY_7 - INSTANT, HoldState.BUFFERED),
        (DAY_7, HoldState.RELEASED),
        (DAY_7 + INSTANT, HoldState.RELEASED),
    ],
)
def test_release_date_is_the_first_moment_that_counts(
    connection: Connection, now: datetime, state: HoldState
) -> None:
    """A hold is released exactly at its release date, and not a microsecond before."""
    hold_id = place_hold(connection)

    release_all(connection, now)

    assert state_of(connection, hold_id) is state


def test_hold_in_the_middle_of_an_hour_waits_for_its_minute(connection: Connection) -> None:
    """The order goes by the hour, what is due by the very date."""
    due = place_hold(connection, release_date=DAY_7 + timedelta(minutes=20))
    not_due = place_hold(connection, release_date=DAY_7 + timedelta(minutes=40))

    released = release_all(connection, DAY_7 + timedelta(minutes=30))

    assert released.holds_released == 1
    assert state_of(connection, due) is HoldState.RELEASED
    assert state_of(connection, not_due) is HoldState.BUFFERED


def test_due_by_and_now_are_two_times(connection: Connection) -> None:
    """What is due goes by the cut-off; what the books record is now."""
    due = place_hold(connection)
    later = place_hold(connection, release_date=DAY_7 + timedelta(minutes=1))

    release_matured(connection, now=DAY_7 + timedelta(hours=1), due_by=DAY_7, batch_limit=10)

    assert hold_row(connection, due)["settled_at"] == DAY_7 + timedelta(hours=1)
    assert state_of(connection, later) is HoldState.BUFFERED


def test_a_cut_off_after_now_is_refused(connection: Connection) -> None:
    """The books would record that a payment was released before it was due."""
    place_hold(connection)
    before = books(connection)
    due_by = DAY_7 + timedelta(seconds=1)
    everything = Stretch(after=ReleasePosition(), through=ReleasePosition.end(due_by), shard=Shard())

    with pytest.raises(InvalidInput, match=r"due_by 2026-03-09T12:00:01\+00:00: lies after now, 2026-03-09"):
        release_matured(connection, now=DAY_7, due_by=due_by, batch_limit=1)
    with pytest.raises(InvalidInput, match="lies after now"):
        release_stretch(connection, stretch=everything, now=DAY_7, due_by=due_by, source="a test")

    assert books(connection) == before


def test_nothing_due_is_an_empty_batch(connection: Connection) -> None:
    """With nothing due nothing is written, not even a batch."""
    place_hold(connection)
    before = books(connection)

    released = release_all(connection, NOON)

    assert released == ReleaseBatch()
    assert books(connection) == before


def test_batch_says_what_it_was(connection: Connection) -> None:
    """A batch is on the books with its source, its cut-off and its time."""
    place_hold(connection)

    released = release_all(connection)

    row = connection.execute(select(batch)).mappings().one()
    assert (row["batch_id"], row["kind"], row["source"]) == (released.batch_id, "DUE", "a test")
    assert (row["due_by"], row["recorded_at"], row["reason"]) == (DAY_7, DAY_7, None)


def test_balance_after_runs_along_within_a_batch(connection: Connection) -> None:
    """Each EARNING carries the balance after it, also where one batch credits a wallet thrice."""
    for amount in ("100.00", "20.00", "3.00"):
        place_hold(connection, amount=amount)
    place_hold(connection, amount="5.00", payee="worker-18")
    place_hold(connection, amount="7.00", currency="USD")

    released = release_all(connection)

    rows = connection.execute(
        select(transaction.c.balance_after_minor)
        .where(transaction.c.type == "EARNING", transaction.c.currency == "PHP")
        .order_by(transaction.c.to_wallet_id, transaction.c.transaction_id)
    ).scalars()
    assert list(rows) == [10_000, 12_000, 12_300, 500]
    assert released.amounts_minor == {"PHP": 12_800, "USD": 700}


def test_frozen_hold_outlives_its_release_date(connection: Connection) -> None:
    """A frozen hold is not released, however late the clock."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    released = release_all(connection, DAY_7 + timedelta(days=365))

    assert released.holds_released == 0
    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_late_hold_is_released_once_its_freeze_is_gone(connection: Connection) -> None:
    """A hold that matured while frozen is due as soon as nothing stands on it."""
    hold_id = place_hold(connection)
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="?", now=NOON)
    late = DAY_7 + timedelta(days=3)

    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="fine", now=late)

    assert release_date_of(connection, hold_id) == DAY_7
    assert release_all(connection, late).holds_released == 1


def test_oldest_release_hour_goes_first(connection: Connection) -> None:
    """Cut short by its limit, a batch takes the oldest hours; the next one goes on from there."""
    newest = place_hold(connection, release_date=DAY_7 + timedelta(hours=2))
    oldest = place_hold(connection, release_date=DAY_7 - timedelta(days=3))
    middle = place_hold(connection, release_date=DAY_7)
    now = DAY_7 + timedelta(days=1)

    released = []
    for _ in range(3):
        assert release_matured(connection, now=now, batch_limit=1).holds_released == 1
        released.append(
            [hold for hold in (oldest, middle, newest) if state_of(connection, hold) == "RELEASED"]
        )

    assert released == [[oldest], [oldest, middle], [oldest, middle, newest]]


def test_batch_limit_is_kept(connection: Connection) -> None:
    """A batch releases as many as it may, and no more."""
    for _ in range(5):
        place_hold(connection)

    sizes = [release_matured(connection, now=DAY_7, batch_limit=2).holds_released for _ in range(4)]

    assert sizes == [2, 2, 1, 0]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=500_000)


def test_position_leads_behind_the_batch(connection: Connection) -> None:
    """A batch that starts behind another's position finds only what comes after it."""
    for hours in range(3):
        place_hold(connection, release_date=DAY_7 + timedelta(hours=hours))
    now = DAY_7 + timedelta(days=1)
    first = release_matured(connection, now=now, batch_limit=2)
    place_hold(connection, release_date=DAY_7 - timedelta(days=1))

    second = release_matured(connection, now=now, batch_limit=10, after=first.position)

    assert (first.holds_released, second.holds_released) == (2, 1)
    assert release_matured(connection, now=now, batch_limit=10).holds_released == 1


def test_shards_share_the_wallets_out(connection: Connection) -> None:
    """Each wallet's holds are in one shard, and all shards together are all wallets."""
    payees = [f"worker-{number}" for number in range(7)]
    for payee in payees * 2:
        place_hold(connection, payee=payee)

    paid: list[set[str]] = []
    shards = part_wallets(connection, due_by=DAY_7, shards=3)
    for shard in shards:
        before = {payee for payee in payees if wallet_of(connection, payee).balance_minor}
        release_matured(connection, now=DAY_7, batch_limit=100, shard=shard)
        paid.append({payee for payee in payees if wallet_of(connection, payee).balance_minor} - before)

    assert [wallet_of(connection, payee) for payee in payees] == [Wallet(balance_minor=200_000)] * 7
    assert sum(len(share) for share in paid) == 7
    assert sorted(len(share) for share in paid) == [2, 2, 3]
    assert [shard.after for shard in shards] == [0, *(shard.through for shard in shards[:-1])]
    assert shards[-1].through == ID_MAX
    assert release_all(connection).holds_released == 0


def test_a_wallet_that_has_everything_is_one_shard(connection: Connection) -> None:
    """Where one wallet has all that is due, one share has it, and no two share a wallet."""
    for _ in range(5):
        place_hold(connection)

    shards = part_wallets(connection, due_by=DAY_7, shards=3)

    released = [
        release_matured(connection, now=DAY_7, batch_limit=100, shard=shard).holds_released
        for shard in shards
    ]
    assert sorted(released) == [*[0] * (len(shards) - 1), 5]


def test_nothing_due_is_one_shard_of_all_wallets(connection: Connection) -> None:
    """There is nothing to share out, and what comes due meanwhile is in somebody's share."""
    assert part_wallets(connection, due_by=DAY_7, shards=3) == [Shard()]


@pytest.mark.parametrize("batch_limit", [0, -1])
def test_batch_limit_below_one_is_refused(connection: Connection, batch_limit: int) -> None:
    """A limit that would release nothing is a mistake, not a release of nothing."""
    with pytest.raises(InvalidInput, match=f"batch_limit {batch_limit}: must be at least 1"):
        release_matured(connection, now=NOON, batch_limit=batch_limit)


@pytest.mark.parametrize("name", ["now", "due_by"])
def test_naive_clock_is_refused(connection: Connection, name: str) -> None:
    """A release needs to know which moment it is."""
    place_hold(connection)
    before = books(connection)
    times: dict[str, Any] = {"now": DAY_7, "due_by": DAY_7, name: DAY_7.replace(tzinfo=None)}

    with pytest.raises(InvalidInput, match=f"{name} .* no time zone"):
        release_matured(connection, batch_limit=10, **times)

    assert books(connection) == before


def entered_hour(connection: Connection) -> str | None:
    """Return which hour the transaction has marked as being written, counted from the epoch."""
    return connection.scalar(select(func.current_setting("buffer.entered_hour", True))) or None


def test_release_marks_its_hour_before_it_looks(connection: Connection) -> None:
    """Also where nothing is due: however long it may wait, a count of the hour waits for it."""
    release_all(connection)

    assert entered_hour(connection) == str(int(DAY_7.timestamp()) // 3600)


def test_early_release_marks_its_hour_before_it_looks(connection: Connection) -> None:
    """Also where there is nothing to release."""
    with pytest.raises(NotFound):
        early(connection, hold_id=404)

    assert entered_hour(connection) == str(int(NOON.timestamp()) // 3600)


def test_release_without_a_source_is_unnamed(connection: Connection) -> None:
    """A batch always says who made it, as far as that is known."""
    place_hold(connection)

    release_matured(connection, now=DAY_7, batch_limit=10)

    assert connection.scalar(select(batch.c.source)) == "unnamed"


@pytest.mark.parametrize("way", ["due", "early"])
def test_hold_that_stays_although_it_was_locked_is_refused(
    engine: Engine, superuser_url: str, way: str
) -> None:
    """A batch that settles fewer holds than it has locked says so, and is rolled back."""
    with engine.begin() as connection:
        kept = [place_hold(connection), place_hold(connection)][1]
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER keep BEFORE DELETE ON buffer.unsettled_hold FOR EACH ROW"
                f" WHEN (OLD.hold_id = {kept}) EXECUTE FUNCTION buffer.keep()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            release_all(connection) if way == "due" else early(connection, job=JOB)
        connection.rollback()
        assert books(connection) == before

    assert str(refusal.value) == "release: 2 holds were locked, 1 released; roll back"


def test_released_hold_is_not_released_again(connection: Connection) -> None:
    """A release that is repeated finds nothing and writes nothing."""
    place_hold(connection)
    release_all(connection)
    before = books(connection)

    again = release_all(connection, DAY_7 + timedelta(days=1))

    assert again.holds_released == 0
    assert books(connection) == before


def test_release_rolled_back_is_still_due(engine: Engine) -> None:
    """What is not committed did not happen, and the next release takes it."""
    with engine.begin() as connection:
        place_hold(connection)
        before = books(connection)
    with engine.connect() as connection:
        release_all(connection)
        connection.rollback()
        assert books(connection) == before

    with engine.begin() as connection:
        assert release_all(connection).holds_released == 1


def test_two_releases_at_once_pay_once(engine: Engine) -> None:
    """Overlapping releases share the holds out between them; nobody is paid twice."""
    with engine.begin() as connection:
        holds = [place_hold(connection, payee=f"worker-{number % 5}") for number in range(40)]

    outcomes = all_at_once(engine, *[release_all] * 4)

    released = [outcome for outcome in outcomes if isinstance(outcome, ReleaseBatch)]
    assert sum(outcome.holds_released for outcome in released) == 40
    with engine.connect() as connection:
        assert all(state_of(connection, hold_id) is HoldState.RELEASED for hold_id in holds)
        for number in range(5):
            assert wallet_of(connection, f"worker-{number}") == Wallet(balance_minor=800_000)
        assert row_counts(connection)["transaction"] == 80
        assert row_counts(connection)["notification"] == 80


def test_release_passes_over_what_another_is_releasing(engine: Engine) -> None:
    """A second release does not wait for the first, and takes nothing of it."""
    with engine.begin() as connection:
        place_hold(connection)

    first, second = one_behind_the_other(engine, release_all, release_all)

    assert first.holds_released == 1
    assert second == ReleaseBatch()


def request(connection: Connection) -> Backjob:
    """Ask for a backjob just before the window closes."""
    return request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=DAY_7 - INSTANT)


def test_backjob_behind_a_release_comes_too_late(engine: Engine) -> None:
    """A backjob that waits for a hold that is being released finds it settled."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    _, refusal = one_behind_the_other(engine, release_all, request)

    assert isinstance(refusal, WindowClosed)
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
        assert row_counts(connection)["backjob"] == 0


def test_release_behind_a_backjob_leaves_the_hold(engine: Engine) -> None:
    """A release passes over a hold that a backjob is freezing."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    _, released = one_behind_the_other(engine, request, release_all)

    assert released == ReleaseBatch()
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=100_000)


def test_release_and_backjob_at_once_leave_one_of_both(engine: Engine) -> None:
    """Whoever wins, the hold is either released or frozen, never both."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def a_release(connection: Connection) -> object:
        return release_all(connection)

    released, requested = all_at_once(engine, a_release, request)

    assert isinstance(released, ReleaseBatch)
    with engine.connect() as connection:
        if released.holds_released:
            assert isinstance(requested, WindowClosed)
            assert state_of(connection, hold_id) is HoldState.RELEASED
        else:
            assert isinstance(requested, Backjob)
            assert state_of(connection, hold_id) is HoldState.FROZEN
        assert len(transactions_of(connection, hold_id)) == 1 + released.holds_released


def test_payer_releases_early(connection: Connection) -> None:
    """The payer may give up the window; the batch says who and why."""
    hold_id = place_hold(connection)

    released = early(connection, hold_id=hold_id)

    assert (released.holds_released, released.amounts_minor) == (1, {"PHP": 100_000})
    assert state_of(connection, hold_id) is HoldState.RELEASED
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]
    row = connection.execute(select(batch)).mappings().one()
    assert (row["kind"], row["source"], row["reason"]) == ("EARLY", PAYER, "well done")
    assert (row["due_by"], row["recorded_at"]) == (None, NOON)


def test_admin_releases_early(connection: Connection) -> None:
    """An admin may release another's payment."""
    hold_id = place_hold(connection)

    early(connection, hold_id=hold_id, by=ADMIN, as_admin=True)

    assert state_of(connection, hold_id) is HoldState.RELEASED


@pytest.mark.parametrize("by", [PAYEE, "client-4", ADMIN])
def test_nobody_else_releases_early(connection: Connection, by: str) -> None:
    """Not the payee, not another client, and not an admin who does not act as one."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed, match=f"hold {hold_id}: '{by}' may not .* '{PAYER}' or an admin"):
        early(connection, hold_id=hold_id, by=by)

    assert books(connection) == before


@pytest.mark.parametrize("as_admin", [False, True])
@pytest.mark.parametrize("state", [HoldState.FROZEN, HoldState.RELEASED, HoldState.REFUNDED])
def test_early_release_needs_a_buffered_hold(
    connection: Connection, state: HoldState, as_admin: bool
) -> None:
    """A frozen or settled hold refuses, also an admin; the message says what is needed."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        early(connection, hold_id=hold_id, as_admin=as_admin)

    assert str(refusal.value) == f"hold {hold_id}: cannot release early from {state}; that needs BUFFERED"
    assert books(connection) == before


def test_early_release_of_a_job_takes_all_its_holds(connection: Connection) -> None:
    """A whole team is paid at once; what is settled already is no obstacle."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    first = place_hold(connection, payee="worker-18", amount="10.00")
    second = place_hold(connection, payee="worker-19", amount="20.00", currency="USD")
    other_job = place_hold(connection, job="job-9")

    released = early(connection, job=JOB)

    assert (released.holds_released, released.amounts_minor) == (2, {"PHP": 1000, "USD": 2000})
    assert [state_of(connection, hold_id) for hold_id in (settled, first, second, other_job)] == [
        HoldState.RELEASED,
        HoldState.RELEASED,
        HoldState.RELEASED,
        HoldState.BUFFERED,
    ]


def test_early_release_of_a_job_is_all_or_nothing(connection: Connection) -> None:
    """One frozen hold keeps the job's others where they are, and so does another payer."""
    place_hold(connection)
    frozen = place_hold(connection, state=HoldState.FROZEN)
    of_another = place_hold(connection, job="job-9", payer="client-4")
    place_hold(connection, job="job-9", payer="client-4")
    before = books(connection)

    with pytest.raises(StateRefused, match=f"hold {frozen}: .* from FROZEN"):
        early(connection, job=JOB)
    with pytest.raises(NotAllowed, match=f"hold {of_another}: .* 'client-4' or an admin"):
        early(connection, job="job-9")

    assert books(connection) == before


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.REFUNDED])
def test_early_release_of_a_settled_job_is_refused(connection: Connection, state: HoldState) -> None:
    """Where nothing is left to release the refusal names a hold and its state."""
    hold_id = place_hold(connection, state=state)

    with pytest.raises(StateRefused, match=f"hold {hold_id}: cannot release early from {state}"):
        early(connection, job=JOB)


def test_early_release_of_the_unknown_is_refused(connection: Connection) -> None:
    """A hold or a job that is not there is named, also a number that no id can be."""
    with pytest.raises(NotFound, match="hold 404: does not exist"):
        early(connection, hold_id=404)
    with pytest.raises(NotFound, match="job 'job-404': has no hold"):
        early(connection, job="job-404")
    with pytest.raises(NotFound, match=f"hold {2**63}: does not exist"):
        early(connection, hold_id=2**63)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "^release early: needs a hold or a job, one of them$"),
        ({"hold_id": 1, "job": JOB}, "^release early: needs a hold or a job, one of them$"),
        ({"job": ""}, "^job: must not be empty"),
        ({"job": "x" * 201}, "^job: 201 characters"),
        ({"hold_id": 1, "by": ""}, "by: must not be empty"),
        ({"hold_id": 1, "by": "x" * 201}, "by: 201 characters"),
        ({"hold_id": 1, "reason": ""}, "reason: must not be empty"),
        ({"hold_id": 1, "reason": "x" * 2001}, "reason: 2001 characters"),
        ({"hold_id": 1, "reason": "a\x00b"}, "control character"),
        ({"hold_id": 1, "now": NOON.replace(tzinfo=None)}, "^now .* no time zone"),
    ],
)
def test_early_release_refuses_bad_input(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """What cannot be recorded is refused, and the hold stays."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        early(connection, **change)

    assert books(connection) == before


def test_early_release_repeated_is_refused(connection: Connection) -> None:
    """The second early release of a hold finds it released and writes nothing."""
    hold_id = place_hold(connection)
    early(connection, hold_id=hold_id)
    before = books(connection)

    with pytest.raises(StateRefused, match="from RELEASED"):
        early(connection, hold_id=hold_id)

    assert books(connection) == before


def test_early_releases_at_once_pay_once(engine: Engine) -> None:
    """Of a payer, an admin and the hourly release that race, one pays."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    outcomes = all_at_once(
        engine,
        lambda connection: early(connection, hold_id=hold_id),
        lambda connection: early(connection, job=JOB, by=ADMIN, as_admin=True),
        release_all,
    )

    paid = [one for one in outcomes if isinstance(one, ReleaseBatch) and one.holds_released]
    assert len(paid) == 1
    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
        assert row_counts(connection)["transaction"] == 2


def test_freeze_behind_a_release_comes_too_late(engine: Engine) -> None:
    """An admin's freeze that waits for a release finds the hold settled."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def freeze(connection: Connection) -> Freeze:
        return freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="wait", now=DAY_7
        )

    _, refusal = one_behind_the_other(engine, release_all, freeze)

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.RELEASED


def test_partly_refunded_hold_releases_its_rest(connection: Connection) -> None:
    """After a partial refund only what is left is released, on the hold's own date."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="half done", now=NOON)
    approve_backjob(
        connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="so it is", amount="400.00", now=NOON
    )

    too_early = release_all(connection, DAY_7 - INSTANT)
    released = release_all(connection, DAY_7)

    assert too_early.holds_released == 0
    assert released.amounts_minor == {"PHP": 60_000}
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=60_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
    assert hold_row(connection, hold_id)["state"] == "RELEASED"


def test_rejected_hold_is_released_a_day_later(connection: Connection) -> None:
    """After a rejected backjob the hold waits for its new date, to the microsecond."""
    place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)
    new_date = DAY_7 + timedelta(hours=24)

    assert release_all(connection, new_date - INSTANT).holds_released == 0
    assert release_all(connection, new_date).holds_released == 1
