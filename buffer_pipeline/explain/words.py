"""The words of explanations: one place for the commands, notifications and alerts. In English.

A payee is never shown the internal reason, who has frozen a payment, or that risk control did.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from buffer_pipeline.explain.reason import Actor, Explanation, Reason, ReasonCode, Way, WayVerb
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.money import format_amount

Moment = Callable[[datetime], str]
"""Returns a time as text."""

CHECKED: Final = "while it is checked"
"""What a payee is told of a freeze without a text of its own."""

FREEZE_CODE: Final = "FREEZE"
"""What a payee sees instead of ADMIN_FREEZE and RISK_FREEZE."""

_FOR_OPERATORS: Final = {
    ReasonCode.IN_WINDOW: "In its window from {since} until {until}.",
    ReasonCode.RESERVE: "A reserve since {since}: kept until {until}.",
    ReasonCode.WAITS_FOR_NEXT_RUN: "Due since {since}: the release run of {until} takes it.",
    ReasonCode.BACKJOB_OPEN: "Backjob {backjob_id} has been open since {since}, requested by {by}: {reason}",
    ReasonCode.ADMIN_FREEZE: "Frozen by an admin since {since}, freeze {freeze_id} by {by}: {reason}{told}",
    ReasonCode.RISK_FREEZE: (
        "Frozen by risk control since {since}, freeze {freeze_id} by {by}: {reason}{told}"
    ),
    ReasonCode.OWNER_FROZEN: "Its payee has been frozen since {since}, by {by}: {reason}{told}",
    ReasonCode.NO_OPEN_FREEZE: "FROZEN without an open freeze. To repair it, open a freeze and close it.",
    ReasonCode.OWES_DEBT: "Its payee owes {amount}, which a release pays first.",
    ReasonCode.DATE_MOVED: (
        "Its release date was moved at {since} from {from_date} to {to_date} by {by}: {reason}"
    ),
    ReasonCode.PART_RELEASED: "{amount} of it was released early at {since} by {by}: {reason}",
    ReasonCode.PART_REFUNDED: "{amount} of it was refunded at {since} by {by}: {reason}",
    ReasonCode.RELEASED: "{amount} was released at {since} by the release run.",
    ReasonCode.RELEASED_EARLY: "{amount} was released early at {since} by {by}: {reason}",
    ReasonCode.REFUNDED: "{amount} was refunded to the payer at {since} by {by}: {reason}",
    ReasonCode.RECOVERED_FOR_DEBT: "{amount} of what this payee got at {since} paid their debts.",
    ReasonCode.CLAWED_BACK: "{amount} of it was taken back from the balance at {since} by {by}: {reason}",
}

_FOR_PAYEES: Final = {
    ReasonCode.IN_WINDOW: "{window}{released}",
    ReasonCode.RESERVE: "It is a reserve, which is kept until {until}.{released}",
    ReasonCode.WAITS_FOR_NEXT_RUN: "It is due. It is released at {until}.",
    ReasonCode.BACKJOB_OPEN: "It has been frozen since {since} while backjob {backjob_id} is open.",
    ReasonCode.ADMIN_FREEZE: "It has been frozen since {since} {because}",
    ReasonCode.RISK_FREEZE: "It has been frozen since {since} {because}",
    ReasonCode.OWNER_FROZEN: "All your payments have been frozen since {since}{of_owner}",
    ReasonCode.NO_OPEN_FREEZE: "It is frozen while it is checked.",
    ReasonCode.OWES_DEBT: "You owe {amount}. What is released pays that first.",
    ReasonCode.DATE_MOVED: "Its release date was moved at {since} from {from_date} to {to_date}.",
    ReasonCode.PART_RELEASED: "{amount} of it was released to you at {since}.",
    ReasonCode.PART_REFUNDED: "{amount} of it was refunded to the client at {since}.",
    ReasonCode.RELEASED: "{amount} was released to you at {since}.",
    ReasonCode.RELEASED_EARLY: "{amount} was released to you at {since}, before the release date.",
    ReasonCode.REFUNDED: "{amount} was refunded to the client at {since}.",
    ReasonCode.RECOVERED_FOR_DEBT: "{amount} of what you got at {since} paid your debts.",
    ReasonCode.CLAWED_BACK: "{amount} of it was taken back from your balance at {since}.",
}

_WHO: Final = {
    Actor.PAYER: "The client",
    Actor.ADMIN: "An admin",
    Actor.OPERATOR: "An operator",
}

_WAYS: Final = {
    WayVerb.RELEASE_EARLY: "accepts the work",
    WayVerb.RELEASE_MATURED: "starts the release",
    WayVerb.REJECT_BACKJOB: "rejects backjob {target_id}",
    WayVerb.WITHDRAW_BACKJOB: "withdraws backjob {target_id}",
    WayVerb.UNFREEZE_HOLD: "closes freeze {target_id}",
    WayVerb.UNFREEZE_OWNER: "unfreezes the owner",
}
_RELEASES: Final = "releases it"
"""What an admin does with an early release: only the client can accept the work."""

_STILL_KEPT: Final = {
    # Of one, and of several.
    ReasonCode.BACKJOB_OPEN: ("the backjob", "{number} backjobs"),
    ReasonCode.ADMIN_FREEZE: ("a freeze by an admin", "{number} freezes by admins"),
    ReasonCode.RISK_FREEZE: ("a freeze by risk control", "{number} freezes by risk control"),
    ReasonCode.OWNER_FROZEN: ("the freeze of the owner", "{number} freezes of the owner"),
}

_KINDS: Final = {
    FreezeKind.BACKJOB: "a backjob is open",
    FreezeKind.ADMIN: "frozen by an admin",
    FreezeKind.RISK: "frozen by risk control",
}


def reason_words(explanation: Explanation, reason: Reason, *, moment: Moment) -> str:
    """Return one reason as an operator reads it."""
    return _FOR_OPERATORS[reason.code].format(**_facts(explanation, reason, moment))


def way_words(way: Way, *, moment: Moment) -> str:
    """Return one way as an operator reads it: "The client accepts the work now: released at once"."""
    doing = _WAYS[way.verb].format(target_id=way.target_id)
    if way.verb is WayVerb.RELEASE_EARLY and way.who is not Actor.PAYER:
        doing = _RELEASES
    when = "now" if way.possible_from is None else f"from {moment(way.possible_from)} on"
    then = "released at once"
    if way.still_kept_by:
        keeps = "keeps" if len(way.still_kept_by) == 1 else "keep"
        then = f"then {_listed(_kept_by(way.still_kept_by))} still {keeps} it"
    elif not way.at_once and way.released_at is not None:
        then = f"released at {moment(way.released_at)}"
    return f"{_WHO[way.who]} {doing} {when}: {then}"


def released_words(explanation: Explanation, *, moment: Moment) -> str:
    """Return when the release run takes it, as a sentence; nothing for a hold that is frozen or settled."""
    if explanation.released_at is None:
        return ""
    return f"It is released at {moment(explanation.released_at)}."


def payee_reasons(explanation: Explanation, *, moment: Moment) -> list[dict[str, Any]]:
    """Return the reasons as the payee may read them: code, since, until and text, and nothing internal."""
    return [
        {
            "code": FREEZE_CODE if reason.code in _HIDDEN else str(reason.code),
            "since": reason.since,
            "until": reason.until,
            "text": _FOR_PAYEES[reason.code].format(**_facts(explanation, reason, moment)),
        }
        for reason in explanation.reasons
    ]


def payee_ways(explanation: Explanation, *, moment: Moment) -> list[str]:
    """Return what the client could do, as the payee may read it. What admins can do is left out."""
    return [
        f"{way_words(way, moment=moment)}."
        for reason in explanation.reasons
        for way in reason.ways
        if way.who is Actor.PAYER and not way.still_kept_by
    ]


def frozen_because(*, backjob_id: int | None, payee_text: str | None) -> str:
    """Return why a payment is frozen, as the end of a sentence, for the message to its payee."""
    if backjob_id is not None:
        return "while a backjob is open."
    return _because(payee_text)


def kind_words(kinds: Iterable[str]) -> str:
    """Return the kinds of freezes as an operator reads them in an alert."""
    return ", ".join(_KINDS[FreezeKind(kind)] for kind in kinds)


_HIDDEN: Final = frozenset({ReasonCode.ADMIN_FREEZE, ReasonCode.RISK_FREEZE})


def _because(payee_text: str | None) -> str:
    if payee_text is None:
        return f"{CHECKED}."
    return f"{CHECKED}: {_ended(payee_text)}"


def _ended(payee_text: str) -> str:
    # A message may have set the text apart from text of another direction.
    is_ended = payee_text.rstrip("\u2069").endswith((".", "!", "?", "…", "。"))
    return payee_text if is_ended else f"{payee_text}."


def _facts(explanation: Explanation, reason: Reason, moment: Moment) -> dict[str, object]:
    hold = explanation.hold
    amount = ""
    if reason.amount_minor is not None:
        amount = f"{format_amount(reason.amount_minor, hold.places)} {hold.currency}"
    text, released = reason.payee_text, released_words(explanation, moment=moment)
    until = "" if reason.until is None else moment(reason.until)
    window = f"It waits until {until}."
    if reason.backjob_until is not None:
        window = f"The client can ask for the work to be redone until {moment(reason.backjob_until)}."
    return {
        "since": "" if reason.since is None else moment(reason.since),
        "until": until,
        "from_date": "" if reason.from_date is None else moment(reason.from_date),
        "to_date": "" if reason.to_date is None else moment(reason.to_date),
        "window": window,
        "released": released and f" {released}",
        "by": reason.by or "the release run",
        "reason": reason.reason or "",
        "because": _because(text),
        "of_owner": " while they are checked." if text is None else f". {_ended(text)}",
        "told": "" if text is None else f"; the payee is told: {text}",
        "amount": amount,
        "backjob_id": reason.backjob_id,
        "freeze_id": reason.freeze_id,
    }


def _kept_by(codes: Sequence[ReasonCode]) -> list[str]:
    """Return each kind of freeze once, with how many there are."""
    words = []
    for code in dict.fromkeys(codes):
        one, several = _STILL_KEPT[code]
        number = codes.count(code)
        words.append(one if number == 1 else several.format(number=number))
    return words


def _listed(words: Iterable[str]) -> str:
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last
