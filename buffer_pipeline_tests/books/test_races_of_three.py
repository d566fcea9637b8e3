"""A release, a claw-back and a payout of one wallet at the same time.

They leave what one after the other would leave, in one of the six orders: results, refusals and every
row. With more rounds:

    RACE_ROUNDS=1000 uv run pytest buffer_pipeline_tests/books/test_races_of_three.py
"""

from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline_tests.support.cases import Case, cases_of, lay_out
from buffer_pipeline_tests.support.ends import Answer, ends_of
from buffer_pipeline_tests.support.in_step import Step, in_step
from buffer_pipeline_tests.support.needs import NEED_A_DEBT
from buffer_pipeline_tests.support.pairs import VERBS, attempt
from buffer_pipeline_tests.support.scale import count

LEADS: Final = tuple(product((0, 2, 4), repeat=3))
"""The head starts of the others before each of the three, in round trips."""

ROUNDS: Final = count("RACE_ROUNDS", part=len(LEADS), whole=4 * len(LEADS))

ORDERS: Final = tuple(permutations(range(3)))


@pytest.mark.parametrize("release", ["release matured", "release a range", "release early"])
@pytest.mark.parametrize("second", ["claw back", "claw back for a bank", "recover the debt"])
def test_release_claw_back_and_payout_end_as_one_after_the_other(
    engine: Engine, release: str, second: str
) -> None:
    """The payout is of all of the balance. If the payee has a debt before, it is recovered instead."""
    names = (release, second, "request all of a balance")
    with engine.begin() as connection:
        lay_out(
            connection,
            cases=len(ORDERS) + ROUNDS,
            backjob=False,
            freeze=False,
            debt=second in NEED_A_DEBT,
        )
    with engine.connect() as connection:
        cases = cases_of(connection)
        connection.rollback()
        in_order = [
            _one_after_the_other(connection, names, case, order)
            for case, order in zip(cases, ORDERS, strict=False)
        ]
        raced = cases[len(ORDERS) :]

        sides = in_step(engine, *(_steps(names, place, raced) for place in range(3)))

        ends = ends_of(connection)
        violations = reconcile(connection)

    allowed = [(answer, ends[case.number]) for answer, case in zip(in_order, cases, strict=False)]
    found = Counter(
        allowed.index(outcome) if outcome in allowed else str(outcome)
        for outcome in (
            (answer, ends[case.number]) for answer, case in zip(zip(*sides, strict=True), raced, strict=True)
        )
    )
    assert not set(found) - set(range(len(ORDERS)))
    assert violations == []


def _one_after_the_other(
    connection: Connection, names: tuple[str, ...], case: Case, order: tuple[int, ...]
) -> tuple[Answer, ...]:
    """Return the answers by the verbs' places."""
    answers = {place: attempt(connection, VERBS[names[place]], case, str(place)) for place in order}
    return tuple(answers[place] for place in range(3))


def _steps(names: tuple[str, ...], place: int, cases: list[Case]) -> Iterator[Step]:
    for case in cases:

        def step(connection: Connection, case: Case = case) -> Answer:
            for _ in range(LEADS[case.number % len(LEADS)][place]):
                connection.scalar(text("SELECT 1"))
            connection.rollback()
            return attempt(connection, VERBS[names[place]], case, str(place))

        yield step
