"""The table of states and verbs, compared with the real statements and verbs."""

import re
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import CheckConstraint, Connection, Table, insert, text

from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.database import fetch
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import (
    NEXT_STATE,
    UNSETTLED,
    BackjobState,
    FreezeKind,
    HoldState,
    Verb,
    states_that_allow,
)
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, release_early, release_matured
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.tables import backjob, hold_freeze, unsettled_hold
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYER,
    books,
    place_hold,
    state_of,
    transactions_of,
)

HELD: Final = 100_000


def stray_freeze(connection: Connection, hold_id: int, *, with_backjob: bool) -> tuple[int, int | None]:
    """Write an open freeze on a hold in any state, as no verb would. Return its id and its backjob's."""
    backjob_id = None
    if with_backjob:
        backjob_id = connection.execute(
            insert(backjob)
            .values(job=JOB, requested_by=PAYER, reason="hm", requested_at=NOON)
            .returning(backjob.c.backjob_id)
        ).scalar_one()
    trigger = "hold_freeze_is_of_a_frozen_hold"
    connection.execute(text(f"ALTER TABLE buffer.hold_freeze DISABLE TRIGGER {trigger}"))
    freeze_id = connection.execute(
        insert(hold_freeze)
        .values(
            hold_id=hold_id,
            kind="BACKJOB" if with_backjob else "RISK",
            backjob_id=backjob_id,
            opened_by=ADMIN,
            reason="hm",
            opened_at=NOON,
        )
        .returning(hold_freeze.c.freeze_id)
    ).scalar_one()
    connection.execute(text(f"ALTER TABLE buffer.hold_freeze ENABLE TRIGGER {trigger}"))
    return freeze_id, backjob_id


EVERYTHING: Final = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard())


def place_bare(connection: Connection, state: HoldState) -> int:
    """Place a hold in `state` without an open freeze, even if FROZEN."""
    hold_id = place_hold(connection, state=state)
    connection.execute(
        text(
            "UPDATE buffer.hold_freeze SET closed_at = :now, closed_by = 'x', closing_reason = 'x'"
            " WHERE closed_at IS NULL"
        ),
        {"now": NOON},
    )
    return hold_id


def run_statement(connection: Connection, hold_id: int, verb: Verb) -> None:
    """Run the verb's statement on a hold without the checks of the verb."""
    match verb:
        case Verb.RELEASE | Verb.RELEASE_EARLY:
            early = verb is Verb.RELEASE_EARLY
            fetch(
                connection,
                "release/release_holds",
                hold_ids=[hold_id] if early else None,
                kind="EARLY" if early else "DUE",
                source=ADMIN,
                reason="well done" if early else None,
                due_by=None if early else DAY_7,
                now=DAY_7,
                reference=None,
                named_hold_id=None,
                **EVERYTHING.parameters(),
            )
        case Verb.RELEASE_PART:
            fetch(
                connection,
                "release/release_parts",
                hold_ids=[hold_id],
                parts_minor=[1],
                source=ADMIN,
                reason="a part",
                reference="part-1",
                named_hold_id=hold_id,
                left_minor=1,
                now=DAY_7,
            )
        case Verb.RESCHEDULE:
            fetch(
                connection,
                "reschedule/reschedule_hold",
                hold_ids=[hold_id],
                from_date=DAY_7,
                to_date=DAY_7 + timedelta(days=1),
                moved_by=ADMIN,
                reason="abroad",
                reference=None,
                as_admin=True,
                now=NOON,
            )
        case Verb.FREEZE:
            fetch(
                connection,
                "freeze/freeze_hold",
                hold_ids=[hold_id],
                told_ids=[hold_id],
                earning_id=None,
                kind="RISK",
                reference=None,
                opened_by=ADMIN,
                reason="hm",
                payee_text=None,
                now=DAY_7,
                notify=True,
            )
        case Verb.RESUME:
            freeze_id, _ = stray_freeze(connection, hold_id, with_backjob=False)
            fetch(
                connection,
                "freeze/unfreeze_hold",
                freeze_ids=[freeze_id],
                closed_by=ADMIN,
                reason="ok",
                closing_reference=None,
                now=DAY_7,
            )
        case Verb.REFUND | Verb.REFUND_PARTLY:
            _, backjob_id = stray_freeze(connection, hold_id, with_backjob=True)
            fetch(
                connection,
                "backjob/refund_backjob",
                backjob_id=backjob_id,
                hold_ids=[hold_id],
                refunds_minor=[HELD if verb is Verb.REFUND else 1],
                decision_reference=None,
                decided_by=ADMIN,
                reason="so it is",
                now=DAY_7,
            )
        case Verb.REFUND_ALONE | Verb.REFUND_ALONE_PARTLY:
            stray_freeze(connection, hold_id, with_backjob=False)
            fetch(
                connection,
                "refund/refund_hold",
                named_id=hold_id,
                hold_ids=[hold_id],
                refunds_minor=[HELD if verb is Verb.REFUND_ALONE else 1],
                earning_id=None,
                left_minor=None,
                refunded_by=ADMIN,
                reason="so it is",
                reference="refund-1",
                now=DAY_7,
            )


def run_verb(connection: Connection, hold_id: int, verb: Verb) -> None:
    """Call the verb on a hold.

    Raises:
        Refused: the hold's state does not allow it.
    """
    match verb:
        case Verb.RELEASE:
            if not release_matured(connection, now=DAY_7, batch_limit=10).holds_released:
                raise Refused("nothing due")
        case Verb.RELEASE_EARLY:
            release_early(connection, hold_id=hold_id, by=ADMIN, as_admin=True, reason="well done", now=NOON)
        case Verb.RELEASE_PART:
            release_early(
                connection,
                hold_id=hold_id,
                amount="0.01",
                reference="part-1",
                by=ADMIN,
                as_admin=True,
                reason="a part",
                now=NOON,
            )
        case Verb.RESCHEDULE:
            to = DAY_7 - timedelta(days=1)
            reschedule_hold(connection, hold_id=hold_id, to=to, by=PAYER, reason="well done", now=NOON)
        case Verb.FREEZE:
            freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
        case Verb.RESUME:
            rows = connection.execute(hold_freeze.select().where(hold_freeze.c.hold_id == hold_id)).all()
            freeze_id = rows[-1].freeze_id if rows else 404
            unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="fine", now=NOON)
        case Verb.REFUND | Verb.REFUND_PARTLY:
            for row in connection.execute(hold_freeze.select().where(hold_freeze.c.kind == "ADMIN")):
                unfreeze_hold(connection, freeze_id=row.freeze_id, by=ADMIN, reason="fine", now=NOON)
            opened = connection.execute(backjob.select()).one_or_none()
            approve_backjob(
                connection,
                backjob_id=opened.backjob_id if opened else 404,
                by=ADMIN,
                reason="so it is",
                now=NOON,
                amount="0.01" if verb is Verb.REFUND_PARTLY else None,
            )
        case Verb.REFUND_ALONE | Verb.REFUND_ALONE_PARTLY:
            refund_hold(
                connection,
                hold_id=hold_id,
                by=ADMIN,
                reason="so it is",
                reference="refund-1",
                now=NOON,
                amount="0.01" if verb is Verb.REFUND_ALONE_PARTLY else None,
            )


def holds_and_freezes(connection: Connection) -> tuple[object, int]:
    """Return the rows of the holds and the number of open freezes."""
    tables = books(connection)
    return tables["unsettled_hold"], sum(row[-1] is None for row in tables["hold_freeze"])


def test_statements_follow_the_table(connection: Connection) -> None:
    """Every state and verb against the bare SQL: exactly the allowed pairs change a hold."""
    found = {}
    for state in HoldState:
        for verb in Verb:
            with connection.begin_nested() as savepoint:
                hold_id = place_bare(connection, state)
                holds, freezes = holds_and_freezes(connection)
                run_statement(connection, hold_id, verb)
                holds_after, freezes_after = holds_and_freezes(connection)
                # A further freeze leaves the row of a frozen hold unchanged.
                if holds_after != holds or (verb is Verb.FREEZE and freezes_after > freezes):
                    found[state, verb] = state_of(connection, hold_id)
                savepoint.rollback()

    assert found == NEXT_STATE


def test_statement_on_a_state_that_does_not_allow_it_moves_no_money(connection: Connection) -> None:
    """For a pair that is not in the table, the hold, wallets and transactions stay unchanged."""
    for state in HoldState:
        for verb in Verb:
            if (state, verb) in NEXT_STATE:
                continue
            with connection.begin_nested() as savepoint:
                hold_id = place_bare(connection, state)
                before = books(connection)
                run_statement(connection, hold_id, verb)
                after = books(connection)
                for table in ("hold", "wallet", "transaction", "notification", "audit_line"):
                    changed = [row for row in after[table] if row not in before[table]]
                    only_notifies = table == "notification" and verb in (Verb.REFUND, Verb.REFUND_PARTLY)
                    assert not changed or only_notifies, f"{verb} from {state} wrote {table} {changed}"
                savepoint.rollback()


def test_verbs_follow_the_table(connection: Connection) -> None:
    """Every state and verb through the public functions: allowed by the table, or refused with nothing
    written.
    """
    found = {}
    for state in HoldState:
        for verb in Verb:
            with connection.begin_nested() as savepoint:
                hold_id = place_hold(connection, state=state)
                if state is HoldState.FROZEN and verb in (Verb.REFUND, Verb.REFUND_PARTLY):
                    request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
                before = books(connection)
                try:
                    run_verb(connection, hold_id, verb)
                except Refused:
                    assert books(connection) == before
                else:
                    found[state, verb] = state_of(connection, hold_id)
                savepoint.rollback()

    assert found == NEXT_STATE


@pytest.mark.parametrize("state", list(HoldState))
def test_builder_places_every_state(connection: Connection, state: HoldState) -> None:
    """The test builder's hold in each state has the transactions that lead there."""
    hold_id = place_hold(connection, state=state)

    settled_by = {HoldState.RELEASED: [("EARNING", HELD)], HoldState.REFUNDED: [("REFUND", HELD)]}
    assert state_of(connection, hold_id) is state
    assert transactions_of(connection, hold_id) == [("PENDING_EARNING", HELD), *settled_by.get(state, [])]


def test_final_states_have_no_way_out() -> None:
    """RELEASED and REFUNDED are final, and the others are unsettled."""
    with_a_way_out = {state for state, _ in NEXT_STATE}

    assert with_a_way_out == set(UNSETTLED)
    assert set(HoldState) - with_a_way_out == {HoldState.RELEASED, HoldState.REFUNDED}


@pytest.mark.parametrize("verb", list(Verb))
def test_states_that_allow_a_verb_are_those_of_the_table(verb: Verb) -> None:
    """A refusal's `allowed` matches the table."""
    assert set(states_that_allow(verb)) == {state for state in HoldState if (state, verb) in NEXT_STATE}


@pytest.mark.parametrize(
    ("table", "constraint", "words"),
    [
        (unsettled_hold, "unsettled_hold_state_is_known", set(UNSETTLED)),
        (hold_freeze, "hold_freeze_kind_is_known", set(FreezeKind)),
        (backjob, "backjob_state_is_known", set(BackjobState)),
    ],
)
def test_states_are_spelled_alike_in_python_and_the_database(
    connection: Connection, table: Table, constraint: str, words: set[str]
) -> None:
    """In the enums, the table definitions and the database."""
    in_tables = next(
        str(check.sqltext)
        for check in table.constraints
        if isinstance(check, CheckConstraint) and check.name == constraint
    )
    in_database = connection.execute(
        text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"),
        {"name": constraint},
    ).scalar_one()

    assert set(re.findall(r"'(\w+)'", in_tables)) == words
    assert set(re.findall(r"'(\w+)'", in_database)) == words
