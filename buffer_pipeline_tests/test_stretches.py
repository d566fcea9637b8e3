"""A run goes by stretches: each released in one visit to its holds, giving way to whoever keeps a lock."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline import release as release_module
from buffer_pipeline import stretches as stretches_module
from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.batch_size import SMALLEST_BATCH
from buffer_pipeline.database import fetch, make_engine, statement_text
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    Shard,
    Stretch,
    came_in_due,
    milestones,
    newest_hold,
    release_matured,
    release_stretch,
)
from buffer_pipeline.stretches import Course
from buffer_pipeline.tables import unsettled_hold, wallet
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    books,
    one_behind_the_other,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

LATE = DAY_7 + timedelta(minutes=20)
"""A cut-off within an hour: of its last hour only a part is matured."""


def release_all(connection: Connection, **changes: Any) -> ReleaseBatch:
    """Release what lies between the beginning and the end, with some of it changed."""
    due_by: datetime = changes.pop("due_by", DAY_7)
    asked = {"after": ReleasePosition(), "through": ReleasePosition.end(due_by), "shard": Shard()}
    return release_stretch(
        connection, stretch=Stretch(**{**asked, **changes}), now=due_by, due_by=due_by, source="a test"
    )


def place_many(engine: Engine, holds: int, *, seed: int) -> None:
    """Commit holds of a few payees over some hours around LATE, some of which are not due then."""
    chance = random.Random(seed)
    with engine.begin() as connection:
        outcomes = add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"many-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{int(8 * chance.random() ** 2)}",
                    payer=PAYER,
                    amount="10.00",
                    currency="PHP",
                    held_at=NOON - timedelta(days=1),
                    release_date=LATE
                    - timedelta(minutes=chance.choice([0, 1, 19, 21, 40, 90, 200, -1, -40])),
                )
                for number in range(holds)
            ],
            now=NOON,
        )
        for outcome in chance.sample(outcomes, k=holds // 20):
            assert not isinstance(outcome, Exception)
            freeze_hold(
                connection, hold_id=outcome.hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON
            )


def matured(connection: Connection) -> list[ReleasePosition]:
    """Return the positions of what is due by LATE, in the order of release."""
    rows = connection.execute(
        select(unsettled_hold).where(
            unsettled_hold.c.state == "BUFFERED", unsettled_hold.c.release_date <= LATE
        )
    )
    positions = [
        ReleasePosition(hour=hour_of(row.release_date), wallet_id=row.payee_wallet_id, hold_id=row.hold_id)
        for row in rows
    ]
    return sorted(positions, key=_order)


def _order(position: ReleasePosition) -> tuple[datetime, int, int]:
    return position.hour, position.wallet_id, position.hold_id


# ---- one stretch


def test_stretch_is_released_whole_and_no_further(connection: Connection) -> None:
    """What lies behind the one position and up to the other is released; its neighbours stay."""
    holds = [place_hold(connection, release_date=DAY_7 - HOUR) for _ in range(4)]
    wallet_id = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == PAYEE)) or 0
    first, third = (
        ReleasePosition(hour=hour_of(DAY_7 - HOUR), wallet_id=wallet_id, hold_id=hold_id)
        for hold_id in (holds[0], holds[2])
    )

    batch = release_all(connection, after=first, through=third)

    assert (batch.holds_released, batch.amounts_minor) == (2, {"PHP": 200_000})
    states = [state_of(connection, hold_id) for hold_id in holds]
    assert [state is HoldState.RELEASED for state in states] == [False, True, True, False]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=200_000, pending_earnings_minor=200_000)


def test_stretch_leaves_what_is_frozen_or_not_due(connection: Connection) -> None:
    """Of a stretch only what is matured and not frozen is released, to the microsecond."""
    frozen = place_hold(connection, state=HoldState.FROZEN)
    later = place_hold(connection, release_date=DAY_7 + timedelta(microseconds=1))
    due = place_hold(connection)

    batch = release_all(connection)

    assert batch.holds_released == 1
    assert [state_of(connection, hold_id) for hold_id in (frozen, later, due)] == [
        HoldState.FROZEN,
        HoldState.BUFFERED,
        HoldState.RELEASED,
    ]


def test_stretch_of_a_shard_leaves_other_wallets(connection: Connection) -> None:
    """A stretch runs over hours, and takes the shard's wallets only in each of them."""
    for owner in ("worker-1", "worker-2"):
        for hours in (0, 1, 2):
            place_hold(connection, payee=owner, release_date=DAY_7 - hours * HOUR)
    wallet_id = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == "worker-1")) or 0

    batch = release_all(connection, shard=Shard(after=wallet_id - 1, through=wallet_id))

    assert batch.holds_released == 3
    assert wallet_of(connection, "worker-1") == Wallet(balance_minor=300_000)
    assert wallet_of(connection, "worker-2") == Wallet(pending_earnings_minor=300_000)


def test_stretch_writes_what_a_release_writes(engine: Engine) -> None:
    """Both ways of a release leave the same books."""
    place_many(engine, 200, seed=1)
    with engine.connect() as connection:
        release_matured(connection, now=LATE, due_by=LATE, batch_limit=1_000, source="a test")
        expected = _outcome(connection)
        connection.rollback()

        release_all(connection, due_by=LATE)

        assert _outcome(connection) == expected
        assert reconcile(connection) == []
        connection.rollback()


def _outcome(connection: Connection) -> list[Any]:
    """Return what a release leaves behind, but for the ids that a rollback uses up."""
    return [
        connection.execute(text(f"SELECT {columns} FROM buffer.{table} ORDER BY {columns}")).all()
        for table, columns in (
            ("unsettled_hold", "hold_id, state, amount_minor"),
            ("wallet", "wallet_id, balance_minor, pending_earnings_minor"),
            (
                "transaction",
                "hold_id, type, from_wallet_id, to_wallet_id, amount_minor, release_date, recorded_at",
            ),
            ("notification", "hold_id, type, owner, amount_minor, currency"),
            ("batch", "kind, source, due_by, recorded_at"),
        )
    ]


def test_stretch_released_again_releases_nothing(connection: Connection) -> None:
    """The same stretch a second time finds nothing, and writes nothing."""
    place_hold(connection)
    release_all(connection)
    before = books(connection)

    again = release_all(connection)

    assert (again.holds_released, again.batch_id) == (0, None)
    assert books(connection) == before


@pytest.mark.parametrize("name", ["now", "due_by"])
def test_stretch_needs_to_know_the_time(connection: Connection, name: str) -> None:
    """A clock or a cut-off without a time zone is refused by its name."""
    times: dict[str, Any] = {"now": DAY_7, "due_by": DAY_7, name: DAY_7.replace(tzinfo=None)}
    stretch = Stretch(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard())

    with pytest.raises(InvalidInput, match=f"^{name} .* no time zone"):
        release_stretch(connection, stretch=stretch, source="a test", **times)


def test_stretch_sets_its_transaction_up(connection: Connection) -> None:
    """Its hour is marked, a lock is waited for shortly, and tables are read by index."""
    release_all(connection)

    settings = ("buffer.entered_hour", "lock_timeout", "enable_seqscan")
    assert [connection.scalar(select(func.current_setting(name))) for name in settings] == [
        str(int(DAY_7.timestamp()) // 3600),
        "50ms",
        "off",
    ]


# ---- beside others


@pytest.mark.parametrize("what", ["hold", "wallet"])
def test_stretch_gives_way_to_who_keeps_a_lock(engine: Engine, what: str) -> None:
    """Where somebody keeps a hold or a wallet, the batch ends with that error, and leaves nothing."""
    with engine.begin() as connection:
        place_hold(connection)
        before = books(connection)
    table = {"hold": unsettled_hold, "wallet": wallet}[what]

    with engine.connect() as keeper, engine.connect() as connection:
        keeper.execute(select(table).with_for_update())
        with pytest.raises(OperationalError) as refused:
            release_all(connection)
        connection.rollback()
        assert books(connection) == before

    assert getattr(refused.value.orig, "sqlstate", None) == "55P03"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch waits as long as the test does: what it then finds is what is tested."""
    monkeypatch.setattr(release_module, "LOCK_WAIT_SECONDS", 60)


@pytest.mark.usefixtures("patient")
def test_stretch_behind_a_backjob_leaves_the_hold(engine: Engine) -> None:
    """A hold that is frozen while the stretch waits for it is not released."""
    with engine.begin() as connection:
        frozen = place_hold(connection)
        free = place_hold(connection, job="job-9")

    _, batch = one_behind_the_other(
        engine,
        lambda connection: request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON),
        release_all,
    )

    assert isinstance(batch, ReleaseBatch)
    assert batch.holds_released == 1
    with engine.connect() as connection:
        assert state_of(connection, frozen) is HoldState.FROZEN
        assert state_of(connection, free) is HoldState.RELEASED
        assert reconcile(connection) == []


@pytest.mark.usefixtures("patient")
def test_stretch_behind_a_rejection_goes_by_the_new_date(engine: Engine) -> None:
    """A hold that gets a later date while the stretch waits for it keeps it."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def hold_on_and_reject(connection: Connection) -> None:
        opened = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
        reject_backjob(
            connection, backjob_id=opened.backjob_id, by=ADMIN, reason="it does not", now=DAY_7 - HOUR
        )

    _, batch = one_behind_the_other(engine, hold_on_and_reject, release_all)

    assert isinstance(batch, ReleaseBatch)
    assert batch.holds_released == 0
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.BUFFERED


@pytest.mark.usefixtures("patient")
def test_stretch_behind_a_deposit_credits_on_top_of_it(engine: Engine) -> None:
    """A balance that changes while the stretch waits for its wallet is the one that is credited."""
    with engine.begin() as connection:
        place_hold(connection)

    one_behind_the_other(
        engine,
        lambda connection: deposit(
            connection, owner=PAYEE, amount="5.00", currency="PHP", reference="in-1", now=NOON
        ),
        release_all,
    )

    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_500)
        assert reconcile(connection) == []


LOSE = "CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"


@pytest.mark.parametrize("way", ["stretch", "ids"])
@pytest.mark.parametrize(
    ("lost", "credited", "written"),
    [
        (
            "BEFORE UPDATE ON buffer.wallet FOR EACH ROW WHEN (NEW.owner = 'worker-18')",
            "1 of 100000",
            "1 of 100000",
        ),
        ("BEFORE UPDATE ON buffer.wallet FOR EACH ROW", "0 of 0", "0 of 0"),
        (
            "BEFORE INSERT ON buffer.transaction FOR EACH ROW WHEN (NEW.amount_minor = 50000)",
            "2 of 150000",
            "1 of 100000",
        ),
        ("BEFORE INSERT ON buffer.transaction FOR EACH ROW", "2 of 150000", "0 of 0"),
    ],
    ids=["wallet", "wallets", "line", "lines"],
)
def test_money_that_was_not_credited_is_refused(
    engine: Engine, superuser_url: str, way: str, lost: str, credited: str, written: str
) -> None:
    """Where less is credited than leaves the buffer, the batch says so, and nothing stays of it."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, payee="worker-18", amount="500.00")
        before = books(connection)
    superuser_engine = make_engine(superuser_url)
    with superuser_engine.begin() as superuser:
        superuser.execute(text(LOSE))
        superuser.execute(text(f"CREATE TRIGGER lose {lost} EXECUTE FUNCTION buffer.lose()"))
    superuser_engine.dispose()
    ways: dict[str, Callable[[Connection], ReleaseBatch]] = {
        "stretch": release_all,
        "ids": lambda connection: release_matured(connection, now=DAY_7, batch_limit=10),
    }

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            ways[way](connection)
        connection.rollback()
        assert books(connection) == before

    said = re.sub(r"^batch \d+", "batch N", str(refusal.value))
    assert said == (
        "batch N: 2 holds of 150000 minor units left the buffer,"
        f" {credited} were credited, {written} written; roll back"
    )


@pytest.mark.parametrize("way", ["stretch", "ids"])
def test_messages_of_an_owner_are_numbered_in_the_order_of_holds(engine: Engine, way: str) -> None:
    """Where statistics expect next to nothing, and a sort finds no room for it all."""
    many = 5_000
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    earning = Earning(
        reference="", job="job-1", payee=PAYEE, payer=PAYER, amount="10.00", currency="PHP", held_at=NOON
    )
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection, [replace(earning, reference=f"many-{number}") for number in range(many)], now=NOON
        )
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL work_mem = '64kB'"))
        if way == "stretch":
            release_all(connection)
        else:
            release_matured(connection, now=DAY_7, batch_limit=2 * many)
        told = list(
            connection.scalars(
                text(
                    "SELECT hold_id FROM buffer.notification WHERE type = 'PAYMENT_RELEASED'"
                    " ORDER BY notification_id"
                )
            )
        )

    assert len(told) == many + 1
    assert told == sorted(told)


def test_stretch_that_has_grown_is_released_in_batches(engine: Engine) -> None:
    """What comes in due between the counting of a stretch and its release is beyond no batch's limit."""
    with engine.begin() as connection:
        for _ in range(3):
            place_hold(connection)
    batches: list[int] = []
    came_in: list[int] = []

    def clock(_connection: Connection) -> datetime:
        if not came_in:
            with engine.begin() as connection:
                came_in.extend(place_hold(connection) for _ in range(4))
        return DAY_7

    drain_matured(
        engine,
        due_by=DAY_7,
        source="a test",
        batch_limit=3,
        clock=clock,
        after_batch=lambda batch: batches.append(batch.holds_released),
    )

    assert (max(batches), sum(batches)) == (3, 7)


# ---- the course


def test_milestones_stand_at_each_so_manyth_hold(connection: Connection) -> None:
    """Behind a position, in the order of release, of a shard; some of them, or of whole hours only."""
    for minutes in (0, 10, 30, 50, 90, 95, 100, 150):
        for payee in (PAYEE, "worker-18"):
            place_hold(connection, payee=payee, release_date=LATE - timedelta(minutes=minutes))
    place_hold(connection, release_date=LATE + timedelta(minutes=1))
    due = matured(connection)
    first = min(position.wallet_id for position in due)
    asked: dict[str, Any] = {
        "due_by": LATE,
        "after": ReleasePosition(),
        "every": 3,
        "milestones_max": 100,
        "shard": Shard(),
        "whole_hours": False,
    }

    def found(**changes: Any) -> list[ReleasePosition]:
        return milestones(connection, **{**asked, **changes})

    assert found() == due[2::3]
    assert found(every=1) == due
    assert found(milestones_max=2) == due[2:6:3]
    assert found(after=due[4]) == due[7::3]
    assert found(every=1, after=due[3]) == due[4:]
    for shard in (Shard(through=first), Shard(after=first)):
        inside = [position for position in due if shard.after < position.wallet_id <= shard.through]
        assert found(every=1, shard=shard) == inside
        assert len(inside) == 8
    ended = [position for position in due if position.hour < hour_of(LATE)]
    assert found(every=1, whole_hours=True) == ended
    assert 0 < len(ended) < len(due)
    assert connection.scalar(select(func.current_setting("enable_seqscan"))) == "off"


@pytest.fixture(params=[1, 2, 3])
def laid_out(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Books of 700 holds over some hours and payees, by a seed."""
    place_many(engine, 700, seed=request.param)
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("every", [1, 7, SMALLEST_BATCH, 5_000])
@pytest.mark.parametrize("milestones_ahead", [2, 10_000])
def test_course_leads_through_all_that_is_due(
    laid_out: Connection, monkeypatch: pytest.MonkeyPatch, every: int, milestones_ahead: int
) -> None:
    """Stretch follows stretch to the end; each has what was asked for, to a milestone, and never more."""
    monkeypatch.setattr(stretches_module, "MILESTONES_AHEAD", milestones_ahead)
    due = matured(laid_out)
    chance = random.Random(every)
    course = Course(due_by=LATE, shard=Shard(), every=every)
    at, counted = ReleasePosition(), 0

    while (ahead := course.next(laid_out, holds=(asked := chance.randrange(1, 300)))) is not None:
        stretch, held = ahead
        inside = [one for one in due if _order(stretch.after) < _order(one) <= _order(stretch.through)]
        assert stretch.after == at
        assert len(inside) <= held <= max(asked, every)
        if stretch.through != ReleasePosition.end(LATE):
            assert len(inside) == held == max(1, asked // every) * every
        at, counted = stretch.through, counted + len(inside)

    assert counted == len(due) > 0
    assert at == ReleasePosition.end(LATE)


def test_what_comes_in_ahead_is_counted_too(engine: Engine) -> None:
    """The last stretch is no longer than asked for, however much came in behind what was counted."""
    with engine.connect() as connection:
        for _ in range(25):
            place_hold(connection, release_date=LATE - 2 * HOUR)
        course = Course(due_by=LATE, shard=Shard(), every=10)
        first = course.next(connection, holds=10)
        for _ in range(200):
            place_hold(connection, release_date=LATE - HOUR)
        due = matured(connection)
        rest = []
        while (ahead := course.next(connection, holds=50)) is not None:
            stretch, _ = ahead
            inside = [one for one in due if _order(stretch.after) < _order(one) <= _order(stretch.through)]
            rest.append(len(inside))

    assert first is not None
    assert rest == [50, 50, 50, 50, 15]


def test_course_of_nothing_is_one_stretch(connection: Connection) -> None:
    """With nothing due there is one stretch to look at, and none behind it."""
    course = Course(due_by=DAY_7, shard=Shard(), every=10)

    first, second = (course.next(connection, holds=100) for _ in range(2))

    assert first is not None
    assert first[0] == Stretch(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard())
    assert second is None


def test_what_came_in_due_behind_the_newest_is_known(connection: Connection) -> None:
    """A hold that was there, that is frozen, that is not due or of another share does not count."""
    empty = newest_hold(connection)
    place_hold(connection)
    newest = newest_hold(connection)

    def came_in(**changes: Any) -> bool:
        asked = {"newest": newest, "due_by": DAY_7, "shard": Shard()}
        return came_in_due(connection, **{**asked, **changes})

    nothing_new = came_in()
    place_hold(connection, state=HoldState.FROZEN)
    place_hold(connection, release_date=DAY_7 + timedelta(microseconds=1))
    not_due = came_in()
    due = place_hold(connection, payee="worker-18")
    payee = connection.scalar(select(wallet.c.wallet_id).where(wallet.c.owner == "worker-18"))
    assert isinstance(payee, int)

    assert (empty, newest_hold(connection)) == (0, due)
    assert (nothing_new, not_due) == (False, False)
    assert came_in()
    assert came_in(shard=Shard(after=payee - 1, through=payee))
    assert not came_in(shard=Shard(after=payee))
    assert not came_in(shard=Shard(through=payee - 1))
    assert not came_in(newest=due)
    assert connection.scalar(text("SHOW enable_seqscan")) == "off"


def test_last_look_reads_what_came_in_and_not_what_was_released(engine: Engine) -> None:
    """A run's last look takes nothing of the index of what is due, where each released hold still stands."""
    place_many(engine, 2_000, seed=5)
    with engine.connect() as connection:
        newest = newest_hold(connection)
    drain_matured(engine, due_by=LATE, source="a test", clock=lambda _: LATE)

    with engine.begin() as connection:
        fetch(connection, "read_by_index")
        asked = {"newest": newest, "due_by": LATE, "after_shard": 0, "through_shard": Shard().through}
        plan = connection.scalars(
            text(f"EXPLAIN (ANALYZE, BUFFERS) {statement_text('came_in_due')}"), asked
        ).all()

    assert re.search("Index Scan (using|on) unsettled_hold_pkey", " ".join(plan))
    assert not any("unsettled_hold_due_idx" in line for line in plan)
