"""References (idempotency keys) of requests, decisions, freezes and closings: each acts once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.errors import BackjobRefused, FreezeRefused, InvalidInput, ReferenceConflict
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.owner_freeze import OwnerFreeze, freeze_owner, unfreeze_owner
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    all_at_once,
    books,
    notifications_of,
    one_after_the_other,
    place_hold,
)

LATER = NOON + timedelta(hours=1)


Done = Backjob | Freeze | OwnerFreeze


@dataclass(frozen=True)
class Verb:
    """A verb with a reference: its arguments, its preparation, and other content that conflicts."""

    call: Callable[..., Done]
    prepare: Callable[[Connection], dict[str, Any]]
    conflicts: tuple[dict[str, Any], ...]
    message: str

    def run(self, connection: Connection, arguments: dict[str, Any], **changes: Any) -> Done:
        """Call it with some arguments changed."""
        return self.call(
            connection,
            **{
                "by": ADMIN,
                "reason": "so be it",
                "now": NOON,
                "reference": "once",
                **arguments,
                **changes,
            },
        )


def _waiting(connection: Connection) -> dict[str, Any]:
    place_hold(connection)
    return {"job": JOB}


def _asked(connection: Connection) -> dict[str, Any]:
    place_hold(connection)
    return {"backjob_id": request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON).backjob_id}


def _to_freeze(connection: Connection) -> dict[str, Any]:
    return {"hold_id": place_hold(connection), "kind": FreezeKind.RISK}


def _to_unfreeze(connection: Connection) -> dict[str, Any]:
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    freeze_id = connection.scalar(select(hold_freeze.c.freeze_id).where(hold_freeze.c.hold_id == hold_id))
    return {"freeze_id": freeze_id}


def _owner_to_freeze(connection: Connection) -> dict[str, Any]:
    place_hold(connection)
    return {"owner": PAYEE, "kind": FreezeKind.RISK}


def _owner_to_unfreeze(connection: Connection) -> dict[str, Any]:
    arguments = _owner_to_freeze(connection)
    freeze_owner(connection, **arguments, by=ADMIN, reason="hm", now=NOON)
    return {"owner": PAYEE}


_PERSON: tuple[dict[str, Any], ...] = ({"by": "admin-2"}, {"reason": "another one"})
VERBS = {
    "request": Verb(
        request_backjob,
        _waiting,
        (*_PERSON, {"job": "job-404"}),
        "already used for backjob {} on job 'job-8'",
    ),
    "reject": Verb(reject_backjob, _asked, (*_PERSON, {"backjob_id": 404}), "backjob {}, REJECTED by"),
    "withdraw": Verb(withdraw_backjob, _asked, (*_PERSON, {"backjob_id": 404}), "backjob {}, WITHDRAWN by"),
    "approve": Verb(approve_backjob, _asked, (*_PERSON, {"backjob_id": 404}), "backjob {}, APPROVED by"),
    "freeze": Verb(
        freeze_hold,
        _to_freeze,
        (*_PERSON, {"hold_id": 404}, {"kind": FreezeKind.ADMIN}),
        "freeze {}, RISK by 'admin-1' on hold",
    ),
    "unfreeze": Verb(
        unfreeze_hold, _to_unfreeze, (*_PERSON, {"freeze_id": 404}), "the closing of freeze {} by 'admin-1'"
    ),
    "freeze an owner": Verb(
        freeze_owner,
        _owner_to_freeze,
        (*_PERSON, {"owner": "worker-404"}, {"kind": FreezeKind.ADMIN}),
        "a freeze of owner 'worker-17', RISK by 'admin-1'",
    ),
    "unfreeze an owner": Verb(
        unfreeze_owner,
        _owner_to_unfreeze,
        (*_PERSON, {"owner": "worker-404"}),
        "the unfreezing of owner 'worker-17' by 'admin-1'",
    ),
}
EACH = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def id_of(done: Done) -> int:
    """Return the id of the result."""
    if isinstance(done, OwnerFreeze):
        return done.owner_freeze_id
    return done.backjob_id if isinstance(done, Backjob) else done.freeze_id


@EACH
def test_replay_returns_the_first_result(connection: Connection, verb: Verb) -> None:
    """The same reference and content write nothing; the result is marked as replayed."""
    arguments = verb.prepare(connection)
    first = verb.run(connection, arguments)
    before = books(connection)

    again = verb.run(connection, arguments, now=LATER)

    assert not first.replayed
    assert again == replace(first, replayed=True)
    assert books(connection) == before


@EACH
def test_other_content_is_refused(connection: Connection, verb: Verb) -> None:
    """The refusal names the reference and what it was used for; nothing is written."""
    arguments = verb.prepare(connection)
    first = verb.run(connection, arguments)
    before = books(connection)

    for conflict in verb.conflicts:
        with pytest.raises(ReferenceConflict) as refusal:
            verb.run(connection, arguments, **conflict)
        assert str(refusal.value).startswith("reference 'once': already used for ")
        assert verb.message.format(id_of(first)) in str(refusal.value)
        assert refusal.value.reference == "once"
        if isinstance(first, OwnerFreeze):
            assert refusal.value.owner == PAYEE
        else:
            assert id_of(first) in (refusal.value.backjob_id, *refusal.value.freeze_ids)

    assert books(connection) == before


@EACH
def test_concurrent_calls_with_one_reference_act_once(engine: Engine, verb: Verb) -> None:
    """All calls return the same id."""
    with engine.begin() as connection:
        arguments = verb.prepare(connection)

    outcomes = all_at_once(engine, *[lambda connection: verb.run(connection, arguments)] * 4)

    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    assert sorted(one.replayed for one in done) == [False, True, True, True]
    assert len({id_of(one) for one in done}) == 1
    with engine.connect() as connection:
        notified = notifications_of(connection, PAYEE)
        assert len(notified) == len(set(notified))
        assert reconcile(connection) == []


@EACH
def test_second_caller_waits_and_replays(engine: Engine, verb: Verb) -> None:
    """Until the first caller commits, the reference is undecided."""
    with engine.begin() as connection:
        arguments = verb.prepare(connection)

    first, second = one_after_the_other(
        engine,
        lambda connection: verb.run(connection, arguments),
        lambda connection: verb.run(connection, arguments, now=LATER),
    )

    assert second == replace(first, replayed=True)


@EACH
def test_concurrent_other_content_is_refused(engine: Engine, verb: Verb) -> None:
    """The reference belongs to the caller that commits first."""
    with engine.begin() as connection:
        arguments = verb.prepare(connection)

    _, refusal = one_after_the_other(
        engine,
        lambda connection: verb.run(connection, arguments),
        lambda connection: verb.run(connection, arguments, by="admin-2"),
    )

    assert isinstance(refusal, ReferenceConflict)


@EACH
def test_a_reference_that_was_rolled_back_is_free(engine: Engine, verb: Verb) -> None:
    """Another call can use it."""
    with engine.begin() as connection:
        arguments = verb.prepare(connection)
    with engine.connect() as connection, connection.begin() as transaction:
        verb.run(connection, arguments)
        transaction.rollback()

    with engine.begin() as connection:
        done = verb.run(connection, arguments, by="admin-2")

    assert not done.replayed


@EACH
@pytest.mark.parametrize("reference", ["", "x" * 201, "a\x00b", 7])
def test_invalid_reference_is_refused(connection: Connection, verb: Verb, reference: Any) -> None:
    """As any other invalid id of the platform."""
    arguments = verb.prepare(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match="reference"):
        verb.run(connection, arguments, reference=reference)

    assert books(connection) == before


@EACH
def test_call_without_a_reference_is_no_replay(connection: Connection, verb: Verb) -> None:
    """A repeated call is refused, or is one more freeze."""
    arguments = verb.prepare(connection)
    first = verb.run(connection, arguments, reference=None)

    if verb.call is freeze_hold:
        assert id_of(verb.run(connection, arguments, reference=None)) != id_of(first)
    else:
        with pytest.raises((BackjobRefused, FreezeRefused)):
            verb.run(connection, arguments, reference=None)


@EACH
def test_decision_of_another_caller_is_no_replay(connection: Connection, verb: Verb) -> None:
    """The refusal has the state of the backjob."""
    arguments = verb.prepare(connection)
    verb.run(connection, arguments, reference="another")
    before = books(connection)

    if verb.call is freeze_hold:
        assert not verb.run(connection, arguments).replayed
    else:
        with pytest.raises((BackjobRefused, FreezeRefused)):
            verb.run(connection, arguments)
        assert books(connection) == before
