"""Decides which refusals were possible: each needs a reason in the books of that moment."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from buffer_pipeline.errors import (
    BackjobRefused,
    DateRefused,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    JobConflict,
    NotAllowed,
    NotFound,
    ReferenceConflict,
    Refused,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.inputs import CLOCK_SKEW_MAX
from buffer_pipeline.intake import Earning
from buffer_pipeline_tests.stress.oracle_rows import OracleHold
from buffer_pipeline_tests.stress.record import Attempt, Call
from buffer_pipeline_tests.stress.sessions import READ_COMMITTED
from buffer_pipeline_tests.support.model.amounts import minor
from buffer_pipeline_tests.support.model.verbs import MOVED_AT_MOST

if TYPE_CHECKING:
    from buffer_pipeline_tests.stress.oracle import Oracle

Check: TypeAlias = "Callable[[Oracle, Call, Refused, Attempt], str | None]"


def key_of(call: Call) -> tuple[str, str]:
    """Return the kind and the text of a call's reference. Decisions of all kinds share theirs."""
    decision = call.verb in {"reject", "approve", "withdraw the backjob"}
    return "decision" if decision else call.verb, call.arguments["reference"]


def content_of(call: Call) -> tuple[object, ...]:
    """Return the content that a replay of a call must repeat."""
    names = ("job", "backjob_id", "hold_id", "freeze_id", "kind", "by", "reason", "to", "amount")
    return call.verb, *(call.arguments.get(name) for name in names)


def refusal_is_wrong(
    oracle: "Oracle", call: Call, refusal: Refused, attempt: Attempt, *, earning: Earning | None = None
) -> str | None:
    """Return why a refusal was impossible, or None.

    At a higher isolation level, a refusal may be about the books at the beginning of the transaction.
    """
    if isinstance(refusal, ReferenceConflict):
        return _conflict_is_wrong(oracle, call, earning)
    if isinstance(refusal, JobConflict):
        payer = oracle.payers.get(earning.job) if earning else None
        return None if earning and payer not in (None, earning.payer) else f"the job is {payer}'s"
    if isinstance(refusal, InvalidInput):
        return _clock_is_late(oracle, call)
    of_a_snapshot = attempt.isolation != READ_COMMITTED
    if of_a_snapshot and isinstance(refusal, NotFound):
        return None
    classes, check = _EXPECTED.get(call.verb, ((), None))
    if check is None or not isinstance(refusal, classes):
        return "never to be expected"
    return None if of_a_snapshot else check(oracle, call, refusal, attempt)


def _clock_is_late(oracle: "Oracle", call: Call) -> str | None:
    """Return True if, by another thread's clock, a freeze or backjob began after the call read
    its own clock.
    """
    arguments = call.arguments
    hold_ids = [arguments["hold_id"]] if "hold_id" in arguments else []
    if "backjob_id" in arguments:
        hold_ids = oracle.backjobs[arguments["backjob_id"]].hold_ids
    elif "freeze_id" in arguments:
        hold_ids = [oracle.freezes[arguments["freeze_id"]]]
    opened_at = [at for hold_id in hold_ids for at in oracle.holds[hold_id].opened_at.values()]
    return None if any(at > call.now + CLOCK_SKEW_MAX for at in opened_at) else f"opened at {opened_at}"


def _conflict_is_wrong(oracle: "Oracle", call: Call, earning: Earning | None) -> str | None:
    if earning is not None:
        first = oracle.by_reference.get(earning.reference)
        return f"it was used for {first}" if first is None or first.earning == earning else None
    arguments = call.arguments
    if call.verb not in {"deposit", "withdraw"}:
        used = oracle.keys.get(key_of(call))
        if used is None:
            return "the reference was not used before"
        return f"it was used with the same content, {used}" if used[0] == content_of(call) else None
    known = oracle.movements.get(arguments["reference"])
    if known is None:
        return "the reference was not used before"
    amount_minor = minor(arguments["amount"], arguments["currency"])
    same = known[0] == (call.verb, arguments["owner"], arguments["currency"], amount_minor)
    return f"it was used with the same content, {known}" if same else None


def _hold_refusal_is_wrong(oracle: "Oracle", call: Call, refusal: Refused, attempt: Attempt) -> str | None:
    job = call.arguments.get("job")
    if job is None and call.arguments["hold_id"] not in oracle.holds:
        # A retried transaction uses the id that its hold had the first time.
        return None if isinstance(refusal, NotFound) else "there is no such hold"
    holds: list[OracleHold] = (
        oracle.by_job.get(job, []) if job is not None else [oracle.holds[call.arguments["hold_id"]]]
    )
    if isinstance(refusal, NotFound):
        ids = [hold.hold_id for hold in holds]
        return None if job is not None and oracle.came_in_meanwhile(ids, attempt) else f"there is {ids}"
    if isinstance(refusal, StateRefused):
        fits = {HoldState.RELEASED, HoldState.REFUNDED} | (
            {HoldState.FROZEN} if call.verb in {"release early", "release a part"} else set()
        )
        if any(hold.hold_id == refusal.hold_id and hold.state in fits for hold in holds):
            return None
        return f"nothing is in such a state: {holds}"
    if "as_admin" in call.arguments:
        return "an admin may"
    payers = {hold.earning.payer for hold in holds}
    return f"{payers} may" if payers == {call.arguments["by"]} else None


def _part_refusal_is_wrong(oracle: "Oracle", call: Call, refusal: Refused, attempt: Attempt) -> str | None:
    if not isinstance(refusal, InsufficientFunds):
        return _hold_refusal_is_wrong(oracle, call, refusal, attempt)
    hold = oracle.holds[call.arguments["hold_id"]]
    enough = minor(call.arguments["amount"], hold.earning.currency) <= hold.held_minor
    return f"it holds {hold.held_minor}" if enough else None


def date_is_impossible(hold: OracleHold, call: Call) -> str | None:
    """Return why a hold may not get the date of a call, or None."""
    to, agreed, as_admin = call.arguments["to"], hold.earning, "as_admin" in call.arguments
    assert agreed.release_date is not None
    if to == hold.release_date:
        return "it has the date"
    if to < call.now:
        return "before now"
    if to > max(hold.release_date, agreed.release_date + MOVED_AT_MOST):
        return "beyond the cap"
    if not as_admin and agreed.held_at is not None and to < agreed.held_at:
        return "before it was held"
    return "only an admin may" if not as_admin and to > hold.release_date else None


def _move_refusal_is_wrong(oracle: "Oracle", call: Call, refusal: Refused, attempt: Attempt) -> str | None:
    if isinstance(refusal, NotFound | StateRefused):
        return _hold_refusal_is_wrong(oracle, call, refusal, attempt)
    hold = oracle.holds[call.arguments["hold_id"]]
    if isinstance(refusal, NotAllowed) and call.arguments["by"] != hold.earning.payer:
        return "an admin may" if "as_admin" in call.arguments else None
    return None if date_is_impossible(hold, call) else f"it may be moved: {hold}"


def _unfreeze_refusal_is_wrong(
    oracle: "Oracle", call: Call, _refusal: Refused, _attempt: Attempt
) -> str | None:
    freeze_id = call.arguments["freeze_id"]
    hold = oracle.holds[oracle.freezes[freeze_id]]
    people = [name.id for name in hold.freezes if name.kind is not FreezeKind.BACKJOB]
    return f"it is open: {hold}" if freeze_id in people else None


def _withdrawal_refusal_is_wrong(
    oracle: "Oracle", call: Call, refusal: Refused, _attempt: Attempt
) -> str | None:
    arguments = call.arguments
    wallet = oracle.wallets.get((arguments["owner"], arguments["currency"]))
    if wallet is None or isinstance(refusal, NotFound):
        # The open backjob is read without a lock, so another session may have opened it meanwhile.
        return None
    amount_minor = minor(arguments["amount"], arguments["currency"])
    return f"there is enough: {wallet}" if wallet.balance_minor >= amount_minor else None


def _request_refusal_is_wrong(oracle: "Oracle", call: Call, refusal: Refused, attempt: Attempt) -> str | None:
    job = call.arguments["job"]
    if isinstance(refusal, NotAllowed):
        payer = oracle.payers.get(job)
        return f"{payer} may" if call.arguments.get("payer") in (None, payer) else None
    if isinstance(refusal, BackjobRefused):
        fits = oracle.open_backjob(job) is not None or oracle.has_enough_rejected(job)
        return None if fits else "none is open, and not enough were rejected"
    in_window = [hold.hold_id for hold in oracle.unsettled(job) if hold.release_date > call.now]
    return None if oracle.came_in_meanwhile(in_window, attempt) else f"in the window are {in_window}"


def _decision_refusal_is_wrong(
    oracle: "Oracle", call: Call, refusal: Refused, _attempt: Attempt
) -> str | None:
    backjob = oracle.backjobs[call.arguments["backjob_id"]]
    if isinstance(refusal, BackjobRefused):
        return f"it is open: {backjob}" if backjob.state is BackjobState.OPEN else None
    holds = [oracle.holds[hold_id] for hold_id in backjob.hold_ids]
    if isinstance(refusal, NotFound):
        strangers = set(call.arguments.get("hold_ids", ())) - set(backjob.hold_ids)
        return None if strangers else f"it freezes {backjob.hold_ids}"
    if isinstance(refusal, FreezeRefused):
        is_open = any(name.kind is not FreezeKind.BACKJOB for hold in holds for name in hold.freezes)
        return None if is_open else f"no other freeze is open: {holds}"
    total = minor(call.arguments["amount"], holds[0].earning.currency)
    named = call.arguments.get("hold_ids", backjob.hold_ids)
    held = sum(hold.held_minor for hold in holds if hold.hold_id in named)
    return f"{held} is held" if total <= held else None


def _refund_refusal_is_wrong(oracle: "Oracle", call: Call, refusal: Refused, _attempt: Attempt) -> str | None:
    hold = oracle.holds[call.arguments["hold_id"]]
    if isinstance(refusal, StateRefused):
        return f"it is frozen: {hold}" if hold.state is HoldState.FROZEN else None
    if isinstance(refusal, BackjobRefused):
        covered = any(name.kind is FreezeKind.BACKJOB for name in hold.freezes)
        return None if covered else f"no backjob covers {hold}"
    total = minor(call.arguments["amount"], hold.earning.currency)
    return f"{hold.held_minor} is held" if total <= hold.held_minor else None


_EXPECTED: Final[dict[str, tuple[tuple[type[Refused], ...], Check]]] = {
    "freeze": ((NotFound, StateRefused), _hold_refusal_is_wrong),
    "release early": ((NotFound, StateRefused, NotAllowed), _hold_refusal_is_wrong),
    "release a part": ((NotFound, StateRefused, NotAllowed, InsufficientFunds), _part_refusal_is_wrong),
    "reschedule": ((NotFound, StateRefused, NotAllowed, DateRefused), _move_refusal_is_wrong),
    "unfreeze": ((FreezeRefused,), _unfreeze_refusal_is_wrong),
    "refund": ((StateRefused, BackjobRefused, InsufficientFunds), _refund_refusal_is_wrong),
    "request": ((NotFound, NotAllowed, WindowClosed, BackjobRefused), _request_refusal_is_wrong),
    "reject": ((BackjobRefused,), _decision_refusal_is_wrong),
    "withdraw the backjob": ((BackjobRefused,), _decision_refusal_is_wrong),
    "approve": ((BackjobRefused, NotFound, FreezeRefused, InsufficientFunds), _decision_refusal_is_wrong),
    "withdraw": ((NotFound, InsufficientFunds), _withdrawal_refusal_is_wrong),
}
