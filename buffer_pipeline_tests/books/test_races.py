"""Every pair of verbs on the same hold at the same time, and all kinds of release at once.

Two concurrent transactions must leave what one after the other would leave, in one of the two orders:
results, refusals and every row.

With `--everything` each pair is raced 18 times, twice with each head start, and a thousand times by

    RACE_ROUNDS=1000 uv run pytest buffer_pipeline_tests/books/test_races.py
"""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import combinations_with_replacement, islice
from typing import Final

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.release import Shard
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import ADMIN, NOON, WAIT_SECONDS_MAX
from buffer_pipeline_tests.support.cases import Case, cases_of, earning, lay_out
from buffer_pipeline_tests.support.ends import Answer, ends_of
from buffer_pipeline_tests.support.in_step import Step, in_step
from buffer_pipeline_tests.support.needs import NEED_A_BACKJOB, Needs, by_needs
from buffer_pipeline_tests.support.pairs import (
    ACTIONS,
    OF_SHARES,
    ONCE,
    VERBS,
    Action,
    attempt,
    refund,
    release_job_early,
)
from buffer_pipeline_tests.support.processes import figures, finish, hold_many, start, wait_until, waiting
from buffer_pipeline_tests.support.runs import release, reported
from buffer_pipeline_tests.support.scale import count

LEAD_MAX: Final = 4
"""The longest head start of a side, in round trips."""

LEADS: Final = 2 * LEAD_MAX + 1

ROUNDS: Final = count("RACE_ROUNDS", part=LEADS, whole=2 * LEADS)

TOGETHER: Final = 20
"""Pairs on the same books. Their statements are planned once for all of them."""


def groups() -> Iterator[tuple[Needs, list[tuple[str, str]]]]:
    """Yield all pairs of verbs, those whose cases need the same together."""
    once = [(name, name) for name in ONCE]
    for needs, pairs in (
        *by_needs((*combinations_with_replacement(VERBS, 2), *once), divided=False).items(),
        *by_needs(combinations_with_replacement(OF_SHARES, 2), divided=True).items(),
    ):
        for place in range(0, len(pairs), TOGETHER):
            yield needs, pairs[place : place + TOGETHER]


def race(engine: Engine, first: Action, second: Action, cases: list[Case]) -> list[tuple[Answer, Answer]]:
    """Run both verbs on each case at the same time; return their results by case.

    The head start of each side varies from none to LEAD_MAX round trips, so that either side gets its locks
    first, at every step of the other.
    """

    def steps(verb: Action, side: str) -> Iterator[Step]:
        for case in cases:
            lead = case.number % LEADS - LEAD_MAX

            def step(connection: Connection, case: Case = case, lead: int = lead) -> Answer:
                for _ in range(lead if side == "a" else -lead):
                    connection.scalar(text("SELECT 1"))
                connection.rollback()
                return attempt(connection, verb, case, side)

            yield step

    return list(zip(*in_step(engine, steps(first, "a"), steps(second, "b")), strict=True))


@pytest.mark.timeout(300 + TOGETHER * ROUNDS)
@pytest.mark.parametrize(("needs", "pairs"), groups())
def test_concurrent_pairs_end_as_one_after_the_other(
    engine: Engine, needs: Needs, pairs: list[tuple[str, str]]
) -> None:
    """Results, refusals and books match one of the two orders. Neither ends in a deadlock, and the books
    balance.
    """
    verbs = OF_SHARES if needs.divided else ACTIONS
    with engine.begin() as connection:
        lay_out(connection, cases=len(pairs) * (ROUNDS + 2), **needs._asdict())
    allowed: list[list[tuple[Answer, Answer, Case]]] = []
    raced: list[list[tuple[Answer, Answer, Case]]] = []

    with engine.connect() as connection:
        cases = iter(cases_of(connection))
        connection.rollback()
        for first, second in pairs:
            forwards, backwards, *others = islice(cases, ROUNDS + 2)
            one, two = verbs[first], verbs[second]
            in_order = attempt(connection, one, forwards, "a"), attempt(connection, two, forwards, "b")
            turned = attempt(connection, two, backwards, "b"), attempt(connection, one, backwards, "a")
            allowed.append([(*in_order, forwards), (turned[1], turned[0], backwards)])
            answers = race(engine, one, two, others)
            raced.append([(*answer, case) for case, answer in zip(others, answers, strict=True)])
        ends = ends_of(connection)
        violations = reconcile(connection)

    def end(of_first: Answer, of_second: Answer, case: Case) -> tuple[Answer, Answer, list[str]]:
        return of_first, of_second, ends[case.number]

    wrong = {}
    for pair, orders, rounds in zip(pairs, allowed, raced, strict=True):
        assert len(rounds) == ROUNDS
        expected = [end(*order) for order in orders]
        unexpected = [found for found in (end(*each) for each in rounds) if found not in expected]
        if unexpected:
            wrong[pair] = unexpected[0]
    assert wrong == {}
    assert violations == []


# ---- more than two, on many holds


REFUSALS: Final = {refusal.__name__ for refusal in Refused.__subclasses__()}
TEAM: Final = 8
TEAMS: Final = count("RACE_ROUNDS", part=20, whole=100)


def lay_out_teams(connection: Connection, *, teams: int) -> list[Case]:
    """Write two jobs for each team. In one the last member pays all others, in the other the first one does.
    The holds of the second job are in reverse order, and it has an open backjob.
    """
    found = []
    for number in range(2 * teams):
        members = [f"worker-{TEAM * (number // 2) + place}" for place in range(TEAM)]
        *payees, payer = reversed(members) if number % 2 else members
        # One call per team, so that the ids of its wallets are adjacent.
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


ON_ALL_HOLDS: Final[dict[str, Action]] = {
    "release the job early": release_job_early,
    **{
        name: verb
        for name, verb in VERBS.items()
        if name in {"release matured", "release a range", "request a backjob", *NEED_A_BACKJOB}
    },
}


def test_four_concurrent_verbs_on_two_jobs_of_a_team_do_not_deadlock(engine: Engine) -> None:
    """The members of the team pay each other. Every verb gets its result, and the books balance."""
    with engine.begin() as connection:
        cases = lay_out_teams(connection, teams=TEAMS)

    def steps(side: str, of_the_side: Sequence[Case]) -> Iterator[Step]:
        chance = random.Random(side)
        for case in of_the_side:
            unable = NEED_A_BACKJOB if case.backjob_id is None else {"request a backjob"}
            verb = chance.choice([verb for name, verb in ON_ALL_HOLDS.items() if name not in unable])
            yield partial(attempt, verb=verb, case=case, side=side)

    sides = [(side, cases[number % 2 :: 2]) for number, side in enumerate("abcd")]
    answers = in_step(engine, *(steps(side, of_the_side) for side, of_the_side in sides))

    refused = sum(answer[0] in REFUSALS for of_a_side in answers for answer in of_a_side)
    assert sum(map(len, answers)) == len(sides) * TEAMS
    assert refused < len(sides) * TEAMS / 2
    with engine.connect() as connection:
        assert reconcile(connection) == []


IN_ANY_ORDER: Final = {"release matured", "release a range"}
"""A release skips locked holds; the other verb gives up before it can block another one."""

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
    """A verb that waits for the fourth row has locked the rows with lower ids and none with a higher id."""
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
        wait_until(lambda: waiting(engine) == 1 or running.done())
        free = looker.scalars(text(f"{lock} SKIP LOCKED"), {"ids": in_order}).all()
        looker.rollback()
        blocker.rollback()
        answer = running.result(timeout=WAIT_SECONDS_MAX)

    assert sorted(free) == in_order[4:]
    assert answer[0] not in REFUSALS


@pytest.mark.parametrize("payee_first", [False, True])
def test_refund_locks_its_hold_and_then_its_wallets_by_id(engine: Engine, payee_first: bool) -> None:
    """A refund that waits for the second of two wallets has locked its hold and the first wallet."""
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
                return attempt(connection, refund, case, "a")

        running = threads.submit(run)
        wait_until(lambda: waiting(engine) == 1 or running.done())
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
    """Return the number of sessions that wait to insert a batch, for longer than a range's lock timeout."""
    with engine.connect() as connection:
        found: int = connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted"
                " AND relation = CAST('buffer.batch' AS regclass)"
                " AND waitstart < clock_timestamp() - interval '1 second'"
            )
        ).scalar_one()
        return found


def test_concurrent_releases_pay_each_hold_once(
    engine: Engine,
    database_url: str,
    superuser_url: str,
    environment: None,  # noqa: ARG001 - for the Dagster run
    instance: dg.DagsterInstance,
) -> None:
    """Two release commands, a third with two workers, and a Dagster run, each with a batch in progress. Each
    hold is paid once, and the books balance.
    """
    # Enough wallets that each release finds some that no other release has.
    hold_many(engine, holds=20_000, wallets=10_000)
    commands = [["release"], ["release"], ["release", "--workers", "2"]]

    # Before PostgreSQL 17 this lock needs a privilege that the owner does not have.
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
