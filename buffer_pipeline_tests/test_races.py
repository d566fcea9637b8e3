"""Every pair of verbs on the same hold at the same time, and every kind of release at once.

What two transactions leave behind must be what one behind the other would have left, in one order or the
other: their answers, their refusals and every row. Each pair is raced 200 times; a thousand times by

    RACE_ROUNDS=1000 uv run pytest buffer_pipeline_tests/test_races.py
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import combinations_with_replacement
from threading import Barrier, BrokenBarrierError
from typing import Any, Final, TypeAlias

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PaymentBufferError, Refused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    Shard,
    Stretch,
    release_early,
    release_matured,
    release_stretch,
)
from buffer_pipeline.wallet import Movement, deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN, DAY_7, WAIT_SECONDS_MAX
from buffer_pipeline_tests.conftest import NOON, fresh_books
from buffer_pipeline_tests.runs import release, reported
from buffer_pipeline_tests.test_processes import figures, finish, hold_many, start, wait_until, waiting

ROUNDS: Final = int(os.environ.get("RACE_ROUNDS", "200"))
LAST_MINUTE: Final = DAY_7 - timedelta(minutes=1)
"""The window is still open for whoever reads this clock, and the hold is due for a release at DAY_7."""

LEAD_MAX: Final = 4
LOCK_NOT_AVAILABLE: Final = "55P03"

Answer: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A job with one hold, a payee and a payer, all its own, with a number in their names."""

    number: int
    """The job's."""
    owners: int
    """The payee's and the payer's."""
    hold_id: int
    shard: Shard
    """The payee's wallet, in which there are 100.00."""
    backjob_id: int | None
    """One that is open, where the pair needs it."""
    freeze_id: int | None
    """A risk freeze that stands, where the pair needs it."""


Action: TypeAlias = Callable[[Connection, Case, str], Answer]


def _batch(batch: ReleaseBatch) -> Answer:
    return batch.holds_released, batch.amounts_minor


def _backjob(backjob: Backjob) -> Answer:
    return backjob.state, len(backjob.hold_ids)


def _movement(movement: Movement) -> Answer:
    return movement.balance_minor, movement.replayed


def _release_matured(connection: Connection, case: Case, side: str) -> Answer:
    batch = release_matured(connection, now=DAY_7, batch_limit=100, source="a race", shard=case.shard)
    if batch.holds_released:
        return _batch(batch)
    # A batch skips what is locked. A run comes back to it, and waits for a moment.
    return _release_stretch(connection, case, side)


def _release_stretch(connection: Connection, case: Case, _side: str) -> Answer:
    stretch = Stretch(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=case.shard)
    return _batch(release_stretch(connection, stretch=stretch, now=DAY_7, due_by=DAY_7, source="a race"))


def _release_early(connection: Connection, case: Case, _side: str) -> Answer:
    payer = f"client-{case.owners}"
    return _batch(
        release_early(connection, hold_id=case.hold_id, by=payer, reason="well done", now=LAST_MINUTE)
    )


def _request_backjob(connection: Connection, case: Case, _side: str) -> Answer:
    job, payer = f"job-{case.number}", f"client-{case.owners}"
    return _backjob(request_backjob(connection, job=job, by=payer, reason="it leaks", now=LAST_MINUTE))


def _decide(verb: Callable[..., Backjob], connection: Connection, case: Case, _side: str) -> Answer:
    return _backjob(
        verb(connection, backjob_id=case.backjob_id, by=ADMIN, reason="looked at", now=LAST_MINUTE)
    )


def _freeze(connection: Connection, case: Case, side: str) -> Answer:
    freeze = freeze_hold(
        connection,
        hold_id=case.hold_id,
        kind=FreezeKind.ADMIN,
        by=ADMIN,
        reason=f"a look by {side}",
        now=LAST_MINUTE,
    )
    return (freeze.state,)


def _unfreeze(connection: Connection, case: Case, _side: str) -> Answer:
    assert case.freeze_id is not None
    freeze = unfreeze_hold(
        connection, freeze_id=case.freeze_id, by=ADMIN, reason="looked at", now=LAST_MINUTE
    )
    return (freeze.state,)


def _refund(connection: Connection, case: Case, side: str, *, amount: str | None = None) -> Answer:
    refund = refund_hold(
        connection,
        hold_id=case.hold_id,
        by=ADMIN,
        reason="a fraud",
        reference=f"back-{case.number}-{side}",
        now=LAST_MINUTE,
        amount=amount,
    )
    return refund.state, refund.amount_minor, refund.left_minor, refund.replayed


def _refund_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _refund(connection, case, "both", amount="300.00")


def _deposit(connection: Connection, case: Case, side: str) -> Answer:
    reference, owner = f"in-{case.number}-{side}", f"worker-{case.owners}"
    return _movement(
        deposit(connection, owner=owner, amount="20.00", currency="PHP", reference=reference, now=LAST_MINUTE)
    )


def _deposit_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _deposit(connection, case, "both")


def _withdraw(connection: Connection, case: Case, side: str) -> Answer:
    reference, owner = f"out-{case.number}-{side}", f"worker-{case.owners}"
    return _movement(
        withdraw(
            connection, owner=owner, amount="60.00", currency="PHP", reference=reference, now=LAST_MINUTE
        )
    )


def _add(name: str, connection: Connection, case: Case, _side: str) -> Answer:
    stated = earning(case.number, name, payee=f"worker-{case.owners}", payer=f"client-{case.owners}")
    added = add_pending_earnings(connection, **asdict(stated), now=LAST_MINUTE)
    return added.state, added.release_date, added.replayed


VERBS: Final[dict[str, Action]] = {
    "release matured": _release_matured,
    "release a stretch": _release_stretch,
    "release early": _release_early,
    "request a backjob": _request_backjob,
    "reject": partial(_decide, reject_backjob),
    "approve": partial(_decide, approve_backjob),
    "approve a part": partial(_decide, partial(approve_backjob, amount="300.00")),
    "withdraw the backjob": partial(_decide, withdraw_backjob),
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "refund": _refund,
    "refund a part": partial(_refund, amount="300.00"),
    "deposit": _deposit,
    "withdraw": _withdraw,
    "add the same": partial(_add, "earning"),
    "add another": partial(_add, "another"),
}
ONCE: Final[dict[str, Action]] = {"deposit once": _deposit_once, "refund once": _refund_once}
"""Both sides by the same reference."""

ACTIONS: Final = {**VERBS, **ONCE}
PAIRS: Final = (*combinations_with_replacement(VERBS, 2), *((name, name) for name in ONCE))
NEED_A_BACKJOB: Final = {"reject", "approve", "approve a part", "withdraw the backjob"}
NEED_A_FREEZE: Final = {"unfreeze", "refund", "refund a part", "refund once"}


def earning(number: int, name: str, **changes: Any) -> Earning:
    """Return an earning of the case's job; the name is its reference's."""
    stated = {
        "reference": f"{name}-{number}",
        "job": f"job-{number}",
        "payee": f"worker-{number}",
        "payer": f"client-{number}",
        "amount": "1000.00",
        "currency": "PHP",
        "held_at": NOON,
    }
    return Earning(**{**stated, **changes})


def lay_out(connection: Connection, *, cases: int, backjob: bool, freeze: bool) -> None:
    """Write so many cases, all alike."""
    before = NOON - timedelta(days=1)
    paid = {"amount": "100.00", "held_at": before, "release_date": before}
    numbers = range(cases)
    outcomes = add_many_pending_earnings(
        connection,
        [earning(number, "paid", job=f"before-{number}", **paid) for number in numbers],
        now=before,
    )
    release_matured(connection, now=before, batch_limit=cases)
    outcomes += add_many_pending_earnings(
        connection, [earning(number, "earning") for number in numbers], now=NOON
    )
    assert not any(isinstance(outcome, Refused) for outcome in outcomes)
    for number in numbers:
        if backjob:
            request_backjob(
                connection, job=f"job-{number}", by=f"client-{number}", reason="it leaks", now=NOON
            )
    if freeze:
        for hold_id in connection.scalars(
            text("SELECT hold_id FROM buffer.hold WHERE reference LIKE 'earning-%'")
        ).all():
            freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)


def cases_of(connection: Connection) -> list[Case]:
    """Return the cases that were laid out."""
    rows = connection.execute(
        text(
            "SELECT hold.job, hold.hold_id, hold.payee_wallet_id, backjob.backjob_id, hold_freeze.freeze_id"
            " FROM buffer.hold LEFT JOIN buffer.backjob USING (job)"
            " LEFT JOIN buffer.hold_freeze"
            " ON hold_freeze.hold_id = hold.hold_id AND hold_freeze.kind = 'RISK'"
            " WHERE hold.reference LIKE 'earning-%' ORDER BY hold.hold_id"
        )
    )
    return [
        Case(_number(job), _number(job), hold_id, Shard(after=wallet_id - 1, through=wallet_id), *ids)
        for job, hold_id, wallet_id, *ids in rows
    ]


LINES: Final = {
    "holds": "SELECT hold_status.job, hold_status.reference, state, amount_minor, refunded_minor,"
    " release_date, settled_at FROM buffer.hold_status",
    "freezes": "SELECT hold.job, hold.reference, kind, opened_by, hold_freeze.reason, opened_at, closed_by,"
    " closed_at FROM buffer.hold_freeze JOIN buffer.hold USING (hold_id)",
    "backjobs": "SELECT job, state, requested_at, decided_at, refunded_minor FROM buffer.backjob",
    "wallets": "SELECT owner, balance_minor, pending_earnings_minor FROM buffer.wallet",
    "transactions": "SELECT coalesce(payee.owner, payer.owner), payee.owner, payer.owner, type,"
    " transaction.amount_minor, balance_after_minor, hold.reference, transaction.reference, batch.kind,"
    " release_date, transaction.recorded_at"
    " FROM buffer.transaction"
    " LEFT JOIN buffer.wallet AS payee ON payee.wallet_id = from_wallet_id"
    " LEFT JOIN buffer.wallet AS payer ON payer.wallet_id = to_wallet_id"
    " LEFT JOIN buffer.hold USING (hold_id) LEFT JOIN buffer.batch USING (batch_id)",
    "notifications": "SELECT owner, type, hold.reference, notification.amount_minor, release_date,"
    " created_at FROM buffer.notification LEFT JOIN buffer.hold USING (hold_id)",
}
"""All that a verb can write, but for ids: a rollback uses some up. The first column has the case's number."""


def ends_of(connection: Connection) -> dict[int, list[str]]:
    """Return how each case has ended: every line of it, without its number."""
    ends: dict[int, list[str]] = {}
    for kind, statement in LINES.items():
        for row in connection.execute(text(statement)):
            ends.setdefault(_number(row[0]), []).append(f"{kind} {_unnumbered(repr(tuple(row)))}")
    return {number: sorted(lines) for number, lines in ends.items()}


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _unnumbered(words: str) -> str:
    return re.sub(r"\b(earning|another|paid|before|job|worker|client|in|out|back)-\d+", r"\1", words)


def attempt(connection: Connection, verb: Action, case: Case, side: str) -> Answer:
    """Return the verb's answer, or its refusal, without the ids that it names."""
    try:
        try:
            with connection.begin():
                return verb(connection, case, side)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            # A stretch that gave way. A run then goes round.
            return attempt(connection, _release_matured, case, side)
    except PaymentBufferError as refusal:
        return as_answer(refusal)


def as_answer(refusal: PaymentBufferError) -> Answer:
    """Return a refusal without the ids that it names."""
    words = re.sub(r"\b(hold|backjob|freeze|transaction) \d+", r"\1", str(refusal))
    return type(refusal).__name__, _unnumbered(words)


Step: TypeAlias = Callable[[Connection], Answer]


def in_step(engine: Engine, *sides: Iterable[Step]) -> list[list[Answer]]:
    """Run each side's steps on a connection of its own; all sides begin each step together."""
    barrier = Barrier(len(sides))

    def run(steps: Iterable[Step]) -> list[Answer]:
        answers = []
        try:
            with engine.connect() as connection:
                for step in steps:
                    barrier.wait(timeout=WAIT_SECONDS_MAX)
                    answers.append(step(connection))
        except BaseException:
            barrier.abort()
            raise
        return answers

    with ThreadPoolExecutor(len(sides)) as threads:
        running = [threads.submit(run, steps) for steps in sides]
    for error in (future.exception() for future in running):
        # What broke the barrier, not that it broke.
        if error is not None and not isinstance(error, BrokenBarrierError):
            raise error
    return [future.result() for future in running]


def race(engine: Engine, first: Action, second: Action, cases: list[Case]) -> list[tuple[Answer, Answer]]:
    """Run both verbs on each case, begun together; return their answers by case.

    In turn with no head start and with one of up to LEAD_MAX round trips for each, so that either comes
    to its locks before the other does and at every step of it.
    """

    def steps(verb: Action, side: str) -> Iterator[Step]:
        for case in cases:
            lead = case.number % (2 * LEAD_MAX + 1) - LEAD_MAX

            def step(connection: Connection, case: Case = case, lead: int = lead) -> Answer:
                for _ in range(lead if side == "a" else -lead):
                    connection.scalar(text("SELECT 1"))
                connection.rollback()
                return attempt(connection, verb, case, side)

            yield step

    return list(zip(*in_step(engine, steps(first, "a"), steps(second, "b")), strict=True))


@pytest.fixture(scope="module")
def laid_out(server: EmbeddedServer) -> Iterator[Callable[[bool, bool], str]]:
    """Books with cases, by what they need; the name of the database to copy them from."""
    with ExitStack() as stack:
        names: dict[tuple[bool, bool], str] = {}

        def find(backjob: bool, freeze: bool) -> str:
            if (backjob, freeze) not in names:
                url = stack.enter_context(fresh_books(server))
                engine = make_engine(url)
                with engine.begin() as connection:
                    lay_out(connection, cases=ROUNDS + 2, backjob=backjob, freeze=freeze)
                names[backjob, freeze] = engine.url.database or ""
                engine.dispose()
            return names[backjob, freeze]

        yield find


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_pair_at_once_ends_as_one_behind_the_other(
    server: EmbeddedServer, laid_out: Callable[[bool, bool], str], first: str, second: str
) -> None:
    """Answers, refusals and books of both are those of one order or the other; neither ends in a
    deadlock, and the books balance.
    """
    backjob = not NEED_A_BACKJOB.isdisjoint((first, second))
    freeze = not NEED_A_FREEZE.isdisjoint((first, second))
    with fresh_books(server, laid_out(backjob, freeze)) as url:
        engine = make_engine(url)
        with engine.connect() as connection:
            forwards, backwards, *raced = cases_of(connection)
            connection.rollback()
            one, two = ACTIONS[first], ACTIONS[second]
            in_order = attempt(connection, one, forwards, "a"), attempt(connection, two, forwards, "b")
            turned = attempt(connection, two, backwards, "b"), attempt(connection, one, backwards, "a")

            answers = race(engine, one, two, raced)

            ends = ends_of(connection)
            violations = reconcile(connection)
        engine.dispose()

    allowed = [(*in_order, ends[forwards.number]), (*reversed(turned), ends[backwards.number])]
    found = Counter(
        allowed.index(outcome) if outcome in allowed else str(outcome)
        for outcome in ((*answer, ends[case.number]) for case, answer in zip(raced, answers, strict=True))
    )
    assert not set(found) - {0, 1}
    assert violations == []


# ---- more than two, on many holds


REFUSALS: Final = {refusal.__name__ for refusal in Refused.__subclasses__()}
TEAM: Final = 8


def lay_out_teams(connection: Connection, *, teams: int) -> list[Case]:
    """Write two jobs for each team: in one the last member pays all others, in the other the first one.

    The second job's holds are in the other order, and it has an open backjob.
    """
    found = []
    for number in range(2 * teams):
        members = [f"worker-{TEAM * (number // 2) + place}" for place in range(TEAM)]
        *payees, payer = reversed(members) if number % 2 else members
        # A call for each, so that the ids of its wallets are neighbours.
        outcomes = add_many_pending_earnings(
            connection,
            [
                earning(number, f"earning-{place}", payee=payee, payer=payer)
                for place, payee in enumerate(payees)
            ],
            now=NOON,
        )
        backjob_id = None
        if number % 2:
            backjob_id = request_backjob(
                connection, job=f"job-{number}", by=ADMIN, reason="it leaks", now=NOON
            ).backjob_id
        wallet_ids = connection.scalars(
            text("SELECT wallet_id FROM buffer.wallet WHERE owner = any(:members)"), {"members": members}
        ).all()
        shard = Shard(after=min(wallet_ids) - 1, through=max(wallet_ids))
        assert shard.through == shard.after + TEAM
        assert isinstance(outcomes[0], AddedHold)
        owners = TEAM * (number // 2)
        found.append(Case(number, owners, outcomes[0].hold_id, shard, backjob_id, None))
    return found


def _release_job_early(connection: Connection, case: Case, _side: str) -> Answer:
    job = f"job-{case.number}"
    return _batch(
        release_early(connection, job=job, by=ADMIN, as_admin=True, reason="well done", now=LAST_MINUTE)
    )


ON_ALL_HOLDS: Final[dict[str, Action]] = {
    "release the job early": _release_job_early,
    **{
        name: verb
        for name, verb in VERBS.items()
        if name in {"release matured", "release a stretch", "request a backjob", *NEED_A_BACKJOB}
    },
}


def test_verbs_by_the_handful_on_two_jobs_of_a_team_do_not_deadlock(engine: Engine) -> None:
    """Four verbs at once, each on one of two jobs of people who pay each other: each has its answer, none
    is ended by the database, and the books balance.
    """
    with engine.begin() as connection:
        cases = lay_out_teams(connection, teams=ROUNDS)

    def steps(side: str, of_the_side: Sequence[Case]) -> Iterator[Step]:
        chance = random.Random(side)
        for case in of_the_side:
            unable = NEED_A_BACKJOB if case.backjob_id is None else {"request a backjob"}
            verb = chance.choice([verb for name, verb in ON_ALL_HOLDS.items() if name not in unable])
            yield partial(attempt, verb=verb, case=case, side=side)

    sides = [(side, cases[number % 2 :: 2]) for number, side in enumerate("abcd")]
    answers = in_step(engine, *(steps(side, of_the_side) for side, of_the_side in sides))

    refused = sum(answer[0] in REFUSALS for of_a_side in answers for answer in of_a_side)
    assert sum(map(len, answers)) == len(sides) * ROUNDS
    assert refused < len(sides) * ROUNDS / 2
    with engine.connect() as connection:
        assert reconcile(connection) == []


IN_ANY_ORDER: Final = {"release matured", "release a stretch"}
"""The one passes over locked holds, the other gives up before it can be in anybody's way."""

IDS: Final = {
    "unsettled_hold": "SELECT hold_id FROM buffer.unsettled_hold JOIN buffer.hold USING (hold_id)"
    " WHERE job = :job",
    "wallet": "SELECT wallet_id FROM buffer.wallet",
}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        *((name, "unsettled_hold") for name in ON_ALL_HOLDS if name not in IN_ANY_ORDER),
        *((name, "wallet") for name in ("release the job early", "approve")),
        ("approve a part", "wallet"),
    ],
)
def test_locks_are_taken_by_id(engine: Engine, name: str, table: str) -> None:
    """A verb that waits for the fourth has locked those with lower ids, and none with higher."""
    with engine.begin() as connection:
        plain, with_a_backjob = lay_out_teams(connection, teams=1)
    case = with_a_backjob if name in NEED_A_BACKJOB else plain
    verb = ON_ALL_HOLDS[name]

    with ThreadPoolExecutor(1) as threads, engine.connect() as blocker, engine.connect() as looker:
        in_order = sorted(blocker.scalars(text(IDS[table]), {"job": f"job-{case.number}"}))
        column = "wallet_id" if table == "wallet" else "hold_id"
        lock = f"SELECT {column} FROM buffer.{table} WHERE {column} = any(:ids) FOR UPDATE"
        blocker.execute(text(lock), {"ids": in_order[3:4]})

        def run() -> Answer:
            with engine.connect() as connection:
                return attempt(connection, verb, case, "a")

        running = threads.submit(run)
        wait_until(lambda: waiting(engine) == 1)
        free = looker.scalars(text(f"{lock} SKIP LOCKED"), {"ids": in_order}).all()
        looker.rollback()
        blocker.rollback()
        answer = running.result(timeout=WAIT_SECONDS_MAX)

    assert sorted(free) == in_order[4:]
    assert answer[0] not in REFUSALS


@pytest.mark.parametrize("payee_first", [False, True])
def test_refund_locks_its_hold_and_then_its_wallets_by_id(engine: Engine, payee_first: bool) -> None:
    """A refund that waits for the later of two wallets has locked its hold and the earlier wallet."""
    owners = ["worker-0", "client-0"] if payee_first else ["client-0", "worker-0"]
    with engine.begin() as connection:
        for owner in owners:
            deposit(connection, owner=owner, amount="1.00", currency="PHP", reference=owner, now=NOON)
        add_pending_earnings(connection, **asdict(earning(0, "earning")), now=NOON)
        hold_id, early, late = connection.execute(
            text(
                "SELECT hold_id, least(payee_wallet_id, payer_wallet_id),"
                " greatest(payee_wallet_id, payer_wallet_id) FROM buffer.hold"
            )
        ).one()
        freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
        (case,) = cases_of(connection)

    with ThreadPoolExecutor(1) as threads, engine.connect() as blocker, engine.connect() as looker:
        lock = "SELECT FROM buffer.wallet WHERE wallet_id = :wallet_id FOR UPDATE"
        blocker.execute(text(lock), {"wallet_id": late})

        def run() -> Answer:
            with engine.connect() as connection:
                return attempt(connection, _refund, case, "a")

        running = threads.submit(run)
        wait_until(lambda: waiting(engine) == 1)
        free = [
            *looker.execute(text(f"{lock} SKIP LOCKED"), {"wallet_id": early}),
            *looker.execute(text("SELECT FROM buffer.unsettled_hold FOR UPDATE SKIP LOCKED")),
        ]
        looker.rollback()
        blocker.rollback()
        answer = running.result(timeout=WAIT_SECONDS_MAX)

    assert free == []
    assert answer[0] not in REFUSALS


# ---- releases of every kind


def batches_in_hand(engine: Engine) -> int:
    """Return how many sessions wait to write a batch's row, for longer than a stretch waits for a lock."""
    with engine.connect() as connection:
        found: int = connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted"
                " AND relation = CAST('buffer.batch' AS regclass)"
                " AND waitstart < clock_timestamp() - interval '1 second'"
            )
        ).scalar_one()
        return found


def test_releases_of_every_kind_at_once_pay_each_hold_once(
    engine: Engine,
    database_url: str,
    superuser_url: str,
    environment: None,  # noqa: ARG001 - for the Dagster run
    instance: dg.DagsterInstance,
) -> None:
    """Two releases by the command line, one more with two workers, and a Dagster run, which all have a
    batch in hand at the same moment: each hold is paid once, and the books balance.
    """
    # So many wallets that each release finds some that no other has.
    hold_many(engine, holds=20_000, wallets=10_000)
    commands = [["release"], ["release"], ["release", "--workers", "2"]]

    # Before PostgreSQL 17 this lock needs a privilege to rewrite, which the owner has not.
    admin = make_engine(superuser_url)
    with admin.connect() as gate, ThreadPoolExecutor(1) as threads:
        gate.execute(text("LOCK TABLE buffer.batch IN SHARE MODE"))
        processes = [start(*command, "--json", BUFFER_DATABASE_URL=database_url) for command in commands]

        def open_gate() -> None:
            wait_until(lambda: batches_in_hand(engine) == len(commands) + 2)
            gate.rollback()

        opened = threads.submit(open_gate)
        run = release(instance)
        opened.result()
    admin.dispose()
    answers = [json.loads(finish(process)) for process in processes]

    by_command = [answer["holds_released"] for answer in answers]
    by_dagster = reported(run, "released_transactions")["holds_released"]
    assert run.success
    assert sum(by_command) + by_dagster == 20_000
    assert all(by_command)
    assert by_dagster
    assert figures(engine) == (20_000, 20_000, 20_000 * 1000, [])
