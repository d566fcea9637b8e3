"""A backjob's request and decision, a freeze and its closing act once for each reference."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InvalidInput,
    NotAllowed,
    ReferenceConflict,
)
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.builders import (
    ADMIN,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    notifications_of,
    one_behind_the_other,
    open_freezes,
    place_hold,
    row_counts,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

LATER = NOON + timedelta(hours=1)


@dataclass(frozen=True)
class Verb:
    """A verb with a reference: what it is asked, after what, and other content that conflicts."""

    call: Callable[..., Backjob | Freeze]
    prepare: Callable[[Connection], dict[str, Any]]
    conflicts: tuple[dict[str, Any], ...]
    says: str

    def ask(self, connection: Connection, asked: dict[str, Any], **changes: Any) -> Backjob | Freeze:
        """Call it, with some of it changed."""
        return self.call(
            connection,
            **{
                "by": ADMIN,
                "reason": "so be it",
                "now": NOON,
                "reference": "once",
                **asked,
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


_PERSON: tuple[dict[str, Any], ...] = ({"by": "admin-2"}, {"reason": "another one"})
VERBS = {
    "request": Verb(
        request_backjob, _waiting, (*_PERSON, {"job": "job-404"}), "stands for backjob {} on job 'job-8'"
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
}
EACH = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def id_of(done: Backjob | Freeze) -> int:
    """Return the id of what was done."""
    return done.backjob_id if isinstance(done, Backjob) else done.freeze_id


@EACH
def test_the_same_again_is_the_first(connection: Connection, verb: Verb) -> None:
    """With the same reference and content it writes nothing, and says that it is a repetition."""
    asked = verb.prepare(connection)
    first = verb.ask(connection, asked)
    before = books(connection)

    again = verb.ask(connection, asked, now=LATER)

    assert not first.replayed
    assert again == replace(first, replayed=True)
    assert books(connection) == before


@EACH
def test_other_content_is_refused(connection: Connection, verb: Verb) -> None:
    """The refusal names the reference and what it stands for, and nothing is written."""
    asked = verb.prepare(connection)
    first = verb.ask(connection, asked)
    before = books(connection)

    for conflict in verb.conflicts:
        with pytest.raises(ReferenceConflict) as refusal:
            verb.ask(connection, asked, **conflict)
        assert str(refusal.value).startswith("reference 'once': stands for ")
        assert verb.says.format(id_of(first)) in str(refusal.value)
        assert refusal.value.reference == "once"
        assert id_of(first) in (refusal.value.backjob_id, *refusal.value.freeze_ids)

    assert books(connection) == before


@EACH
def test_the_same_reference_at_once_acts_once(engine: Engine, verb: Verb) -> None:
    """All get the one that one of them did."""
    with engine.begin() as connection:
        asked = verb.prepare(connection)

    outcomes = all_at_once(engine, *[lambda connection: verb.ask(connection, asked)] * 4)

    done = [outcome for outcome in outcomes if isinstance(outcome, Backjob | Freeze)]
    assert sorted(one.replayed for one in done) == [False, True, True, True]
    assert len({id_of(one) for one in done}) == 1
    with engine.connect() as connection:
        told = notifications_of(connection, PAYEE)
        assert len(told) == len(set(told))
        assert reconcile(connection) == []


@EACH
def test_who_comes_second_waits_and_repeats(engine: Engine, verb: Verb) -> None:
    """Until the first commits nobody can say what the reference stands for."""
    with engine.begin() as connection:
        asked = verb.prepare(connection)

    first, second = one_behind_the_other(
        engine,
        lambda connection: verb.ask(connection, asked),
        lambda connection: verb.ask(connection, asked, now=LATER),
    )

    assert second == replace(first, replayed=True)


@EACH
def test_other_content_at_once_is_refused(engine: Engine, verb: Verb) -> None:
    """The reference is whoever's commits first."""
    with engine.begin() as connection:
        asked = verb.prepare(connection)

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: verb.ask(connection, asked),
        lambda connection: verb.ask(connection, asked, by="admin-2"),
    )

    assert isinstance(refusal, ReferenceConflict)


@EACH
def test_a_reference_that_was_rolled_back_is_free(engine: Engine, verb: Verb) -> None:
    """Nothing stands for it."""
    with engine.begin() as connection:
        asked = verb.prepare(connection)
    with engine.connect() as connection, connection.begin() as transaction:
        verb.ask(connection, asked)
        transaction.rollback()

    with engine.begin() as connection:
        done = verb.ask(connection, asked, by="admin-2")

    assert not done.replayed


@EACH
@pytest.mark.parametrize("reference", ["", "x" * 201, "a\x00b", 7])
def test_what_is_no_reference_is_refused(connection: Connection, verb: Verb, reference: Any) -> None:
    """As any other id of the platform's."""
    asked = verb.prepare(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match="reference"):
        verb.ask(connection, asked, reference=reference)

    assert books(connection) == before


@EACH
def test_without_a_reference_nothing_is_repeated(connection: Connection, verb: Verb) -> None:
    """Sent again it is refused, or is one more freeze; nobody's reference is used up by it."""
    asked = verb.prepare(connection)
    first = verb.ask(connection, asked, reference=None)

    if verb.call is freeze_hold:
        assert id_of(verb.ask(connection, asked, reference=None)) != id_of(first)
    else:
        with pytest.raises((BackjobRefused, FreezeRefused)):
            verb.ask(connection, asked, reference=None)


@EACH
def test_what_was_done_without_it_has_not_the_reference(connection: Connection, verb: Verb) -> None:
    """A decision that somebody else made is no repetition: the refusal says how it stands."""
    asked = verb.prepare(connection)
    verb.ask(connection, asked, reference="another")
    before = books(connection)

    if verb.call is freeze_hold:
        assert not verb.ask(connection, asked).replayed
    else:
        with pytest.raises((BackjobRefused, FreezeRefused)):
            verb.ask(connection, asked)
        assert books(connection) == before


def test_a_request_and_a_decision_may_have_the_same_reference(connection: Connection) -> None:
    """Each kind of verb has its own, as the platform's ids of requests and decisions are its own."""
    hold_id = place_hold(connection)
    same: dict[str, Any] = {"by": ADMIN, "reason": "hm", "now": NOON, "reference": "once"}

    opened = request_backjob(connection, job=JOB, **same)
    rejected = reject_backjob(connection, backjob_id=opened.backjob_id, **same)
    frozen = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **same)
    closed = unfreeze_hold(connection, freeze_id=frozen.freeze_id, **same)

    assert [one.replayed for one in (opened, rejected, frozen, closed)] == [False] * 4


@pytest.mark.parametrize(
    ("decide", "state"),
    [
        (reject_backjob, BackjobState.REJECTED),
        (withdraw_backjob, BackjobState.WITHDRAWN),
        (approve_backjob, BackjobState.APPROVED),
    ],
)
def test_a_repeated_request_says_how_the_backjob_is_now(
    connection: Connection, decide: Callable[..., Backjob], state: BackjobState
) -> None:
    """Decided meanwhile, it is not opened again."""
    hold_id = place_hold(connection)
    asked: dict[str, Any] = {"job": JOB, "by": PAYER, "reason": "hm", "now": NOON, "reference": "once"}
    opened = request_backjob(connection, **asked)
    late = place_hold(connection)
    decide(connection, backjob_id=opened.backjob_id, by=ADMIN, reason="looked at it", now=NOON)

    again = request_backjob(connection, **asked)

    assert (again.backjob_id, again.state, again.replayed) == (opened.backjob_id, state, True)
    assert again.hold_ids == (hold_id, late)
    assert row_counts(connection)["backjob"] == 1


def test_a_repeated_request_is_the_payers_only(connection: Connection) -> None:
    """Who names another payer is refused, also where the reference is known."""
    place_hold(connection)
    asked: dict[str, Any] = {"job": JOB, "by": PAYER, "reason": "hm", "now": NOON, "reference": "once"}
    request_backjob(connection, payer=PAYER, **asked)

    with pytest.raises(NotAllowed, match="its payer is 'client-3', not 'client-4'"):
        request_backjob(connection, payer="client-4", **asked)

    assert request_backjob(connection, payer=PAYER, **asked).replayed


def test_one_decision_cannot_repeat_another(connection: Connection) -> None:
    """A reference stands for how it was decided too."""
    place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    decided: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    reject_backjob(connection, reference="once", **decided)

    with pytest.raises(ReferenceConflict) as refusal:
        approve_backjob(connection, reference="once", **decided)

    assert str(refusal.value) == (
        f"reference 'once': stands for backjob {opened.backjob_id}, REJECTED by 'admin-1'"
    )
    assert refusal.value.state == BackjobState.REJECTED
    assert wallet_of(connection, PAYER) == Wallet()


def test_a_repeated_approval_is_of_the_same_amount_and_holds(connection: Connection) -> None:
    """Another amount, or other holds, are refused. Without an amount all was meant, not a part."""
    first, second = place_hold(connection), place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    asked: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    approve_backjob(connection, hold_ids=[first], amount="400.00", reference="once", **asked)
    before = books(connection)

    for same in ({"amount": "400"}, {"amount": 400, "hold_ids": [first]}):
        assert approve_backjob(connection, reference="once", **asked, **same).replayed
    for other in (
        {},
        {"hold_ids": [first]},
        {"amount": "400.01"},
        {"hold_ids": [second]},
        {"amount": "400", "hold_ids": [second]},
    ):
        with pytest.raises(ReferenceConflict) as refusal:
            approve_backjob(connection, reference="once", **asked, **other)
        assert str(refusal.value) == (
            f"reference 'once': stands for backjob {opened.backjob_id},"
            " APPROVED with another amount or other holds"
        )
        assert (refusal.value.reference, refusal.value.backjob_id) == ("once", opened.backjob_id)
        assert refusal.value.state == "APPROVED"
    with pytest.raises(InvalidInput, match=r"^amount 400\.001: PHP has 2 places, this has 3$"):
        approve_backjob(connection, reference="once", **asked, amount="400.001")

    assert books(connection) == before


def test_a_whole_approval_is_repeated_without_an_amount(connection: Connection) -> None:
    """Of all holds, or of the one that it named and refunded whole."""
    first, _ = place_hold(connection), place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    asked: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    approve_backjob(connection, hold_ids=[first], reference="once", **asked)

    assert approve_backjob(connection, hold_ids=[first], reference="once", **asked).replayed
    later = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    approve_backjob(connection, **{**asked, "backjob_id": later.backjob_id})
    # All is refunded now, but not by what the reference stands for.
    with pytest.raises(ReferenceConflict, match="another amount or other holds"):
        approve_backjob(connection, reference="once", **asked)


def test_a_repeated_freeze_says_how_the_hold_is_now(connection: Connection) -> None:
    """Closed meanwhile, it is not put on again."""
    hold_id = place_hold(connection)
    asked: dict[str, Any] = {"by": ADMIN, "reason": "hm", "now": NOON}
    frozen = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, reference="once", **asked)
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, **asked)

    again = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, reference="once", **asked)

    assert (again.freeze_id, again.state, again.replayed) == (frozen.freeze_id, HoldState.BUFFERED, True)
    assert open_freezes(connection, hold_id) == []
    assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_an_unfreezing_marks_its_hour_before_it_waits(engine: Engine) -> None:
    """Also for its reference: a count of the hour waits for it."""
    with engine.begin() as connection:
        with pytest.raises(LookupError):
            unfreeze_hold(connection, freeze_id=404, by=ADMIN, reason="x", now=NOON, reference="once")

        marked = connection.scalar(select(func.current_setting("buffer.entered_hour", True)))

    assert marked == str(int(NOON.timestamp()) // 3600)
