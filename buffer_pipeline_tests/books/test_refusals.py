"""Every id or name in a refusal's message is also an attribute, so callers need not parse the text."""

import ast
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text

from buffer_pipeline import errors
from buffer_pipeline.backjob import Backjob, approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.database import fetch
from buffer_pipeline.errors import FreezeRefused, NotAllowed, NotFound, Refused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline.money import WALLET_MINOR_MAX
from buffer_pipeline.notifications.inbox import mark_read
from buffer_pipeline.policy import Policy
from buffer_pipeline.reads import find_wallet
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.wallet import Movement, deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, JOB, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.paths import ROOT

PACKAGE: Final = ROOT / "buffer_pipeline"

UNKNOWN: Final = 404
TOO_MANY: Final = 2**63
EARLIER: Final = NOON - timedelta(hours=1)

WORDS: Final = {
    "hold_id": "hold",
    "backjob_id": "backjob",
    "freeze_ids": "freeze",
    "transaction_id": "transaction",
    "notification_id": "notification",
    "job": "job",
    "reference": "reference",
    "owner": "(?:wallet|inbox) of",
}
"""The words before an id or a name in a message, by the attribute that has it."""


def placed(connection: Connection, **of_hold: Any) -> Connection:
    """Return the connection after placing a hold on the job."""
    place_hold(connection, **of_hold)
    return connection


def early(connection: Connection, **arguments: Any) -> object:
    """Release a hold early."""
    return release_early(connection, **{"by": PAYER, "reason": "well done", "now": NOON, **arguments})


def freeze(connection: Connection, hold_id: int, **arguments: Any) -> Freeze:
    """Freeze a hold as RISK."""
    kind = {"kind": FreezeKind.RISK, "by": ADMIN, "reason": "a look", "now": NOON}
    return freeze_hold(connection, hold_id=hold_id, **{**kind, **arguments})


def unfreeze(connection: Connection, freeze_id: int, **arguments: Any) -> Freeze:
    """Close a freeze."""
    arguments = {"by": ADMIN, "reason": "fine", "now": NOON, **arguments}
    return unfreeze_hold(connection, freeze_id=freeze_id, **arguments)


def refund(connection: Connection, hold_id: int, **arguments: Any) -> Refund:
    """Refund a hold without a backjob."""
    arguments = {"by": ADMIN, "reason": "stolen card", "reference": "refund-1", "now": NOON, **arguments}
    return refund_hold(connection, hold_id=hold_id, **arguments)


def request(connection: Connection, **arguments: Any) -> Backjob:
    """Request a backjob on the job."""
    return request_backjob(
        connection, **{"job": JOB, "by": PAYER, "reason": "it leaks", "now": NOON, **arguments}
    )


def open_backjob(connection: Connection) -> int:
    """Return a backjob on a hold of the job."""
    return request(placed(connection)).backjob_id


def reject(connection: Connection, backjob_id: int, **arguments: Any) -> Backjob:
    """Reject a backjob."""
    arguments = {"by": ADMIN, "reason": "done well", "now": NOON, **arguments}
    return reject_backjob(connection, backjob_id=backjob_id, **arguments)


def approve(connection: Connection, backjob_id: int, **arguments: Any) -> Backjob:
    """Approve a backjob."""
    arguments = {"by": ADMIN, "reason": "agreed", "now": NOON, **arguments}
    return approve_backjob(connection, backjob_id=backjob_id, **arguments)


def earn(connection: Connection, **changes: Any) -> None:
    """Add one peso and raise the refusal in the result."""
    stated = {"reference": "invoice-1", "job": JOB, "payee": PAYEE, "payer": PAYER, "amount": "1.00"}
    earning = Earning(**{"currency": "PHP", **stated, **changes})
    (outcome,) = add_many_pending_earnings(connection, [earning], now=NOON)
    if isinstance(outcome, Refused):
        raise outcome


def pay_in(connection: Connection, **changes: Any) -> Movement:
    """Deposit five pesos for the payer."""
    arguments = {"owner": PAYER, "amount": "5.00", "currency": "PHP", "reference": "top-up-1", "now": NOON}
    return deposit(connection, **{**arguments, **changes})


def pay_out(connection: Connection) -> Movement:
    """Withdraw five pesos of the payee."""
    return withdraw(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="bank-1", now=NOON)


def place_frozen(connection: Connection) -> int:
    """Return a hold that an admin has frozen."""
    return place_hold(connection, state=HoldState.FROZEN)


def two_currencies(connection: Connection) -> int:
    """Return a backjob on holds in pesos and in yen."""
    return open_backjob(placed(connection, currency="JPY", amount="700"))


def frozen_otherwise(connection: Connection) -> int:
    """Return a backjob on a hold with two more RISK freezes."""
    hold_id = place_hold(connection)
    backjob_id = request(connection).backjob_id
    freeze(connection, hold_id)
    freeze(connection, hold_id)
    return backjob_id


def with_a_full_wallet(connection: Connection, owner: str) -> None:
    """Fill an owner's wallet, bypassing its transactions."""
    fetch(connection, "currencies/add_currencies", currencies=["PHP"], places=[2])
    fetch(connection, "wallet/ensure_wallets", owners=[owner], currencies=["PHP"])
    connection.execute(
        text("UPDATE buffer.wallet SET balance_minor = :most - pending_earnings_minor WHERE owner = :owner"),
        {"most": WALLET_MINOR_MAX, "owner": owner},
    )


def twice(verb: Callable[..., object], connection: Connection, *subject: int, **changes: Any) -> None:
    """Use a reference again with other content."""
    verb(connection, *subject, reference="once")
    verb(connection, *subject, **{"reference": "once", **changes})


def refund_to_a_full_wallet(connection: Connection) -> None:
    """Refund a frozen hold to a payer whose wallet is full."""
    hold_id = place_frozen(connection)
    with_a_full_wallet(connection, PAYER)
    refund(connection, hold_id)


def approve_to_a_full_wallet(connection: Connection) -> None:
    """Approve a backjob of a payer whose wallet is full."""
    backjob_id = open_backjob(connection)
    with_a_full_wallet(connection, PAYER)
    approve(connection, backjob_id)


def earn_into_a_full_wallet(connection: Connection) -> None:
    """Add an earning of a payee whose wallet is full."""
    with_a_full_wallet(connection, PAYEE)
    earn(connection)


def pay_into_a_full_wallet(connection: Connection) -> None:
    """Deposit to a wallet that is full."""
    with_a_full_wallet(connection, PAYER)
    pay_in(connection)


def unfreeze_twice(connection: Connection) -> None:
    """Close a closed freeze."""
    freeze_id = freeze(connection, place_hold(connection)).freeze_id
    unfreeze(connection, freeze_id)
    unfreeze(connection, freeze_id)


def unfreeze_a_backjobs(connection: Connection) -> None:
    """Close a backjob's freeze directly."""
    open_backjob(connection)
    unfreeze(connection, connection.scalars(text("SELECT freeze_id FROM buffer.hold_freeze")).one())


def reject_twice(connection: Connection) -> None:
    """Reject a rejected backjob."""
    backjob_id = open_backjob(connection)
    reject(connection, backjob_id)
    reject(connection, backjob_id)


def refund_in_a_backjob(connection: Connection) -> None:
    """Refund a hold that a backjob covers."""
    hold_id = place_hold(connection)
    request(connection)
    refund(connection, hold_id)


def refund_by_a_deposits_reference(connection: Connection) -> None:
    """Refund with the reference of a deposit."""
    pay_in(connection, reference="refund-1")
    refund(connection, place_frozen(connection))


REFUSALS: Final[dict[str, Callable[[Connection], object]]] = {
    "release: no hold": lambda books: early(books, hold_id=UNKNOWN),
    "release: no id": lambda books: early(books, hold_id=TOO_MANY),
    "release: no job": lambda books: early(books, job="job-404"),
    "release: another's hold": lambda books: early(books, hold_id=place_hold(books), by=PAYEE),
    "release: another's job": lambda books: early(placed(books), job=JOB, by=PAYEE),
    "release: frozen": lambda books: early(books, hold_id=place_frozen(books)),
    "freeze: no hold": lambda books: freeze(books, UNKNOWN),
    "freeze: settled": lambda books: freeze(books, place_hold(books, state=HoldState.RELEASED)),
    "freeze: no kind": lambda books: freeze(books, UNKNOWN, kind="LATE"),
    "freeze: a backjob's": lambda books: freeze(books, UNKNOWN, kind=FreezeKind.BACKJOB),
    "freeze: conflict": lambda books: twice(freeze, books, place_hold(books), reason="other"),
    "unfreeze: no freeze": lambda books: unfreeze(books, UNKNOWN),
    "unfreeze: no id": lambda books: unfreeze(books, TOO_MANY),
    "unfreeze: closed": unfreeze_twice,
    "unfreeze: a backjob's": unfreeze_a_backjobs,
    "unfreeze: early": lambda books: unfreeze(books, freeze(books, place_hold(books)).freeze_id, now=EARLIER),
    "unfreeze: conflict": lambda books: twice(
        unfreeze, books, freeze(books, place_hold(books)).freeze_id, reason="other"
    ),
    "refund: no hold": lambda books: refund(books, UNKNOWN),
    "refund: buffered": lambda books: refund(books, place_hold(books)),
    "refund: in a backjob": refund_in_a_backjob,
    "refund: early": lambda books: refund(books, place_frozen(books), now=EARLIER),
    "refund: too much": lambda books: refund(books, place_frozen(books), amount="1000.01"),
    "refund: full wallet": refund_to_a_full_wallet,
    "refund: conflict": lambda books: twice(refund, books, place_frozen(books), reason="other"),
    "refund: a deposit's reference": refund_by_a_deposits_reference,
    "request: no job": lambda books: request(books, job="job-404"),
    "request: another's job": lambda books: request(placed(books), payer=PAYEE),
    "request: settled": lambda books: request(placed(books, state=HoldState.RELEASED)),
    "request: open already": lambda books: twice(request, placed(books), reference="again"),
    "request: too often": lambda books: request(placed(books), policy=Policy(max_backjobs_per_job=0)),
    "request: too late": lambda books: request(placed(books), now=DAY_7),
    "request: conflict": lambda books: twice(request, placed(books), reason="other"),
    "decision: no backjob": lambda books: reject(books, UNKNOWN),
    "decision: no id": lambda books: reject(books, TOO_MANY),
    "decision: decided": reject_twice,
    "decision: early": lambda books: reject(books, open_backjob(books), now=EARLIER),
    "decision: conflict": lambda books: twice(reject, books, open_backjob(books), reason="other"),
    "approval: no holds": lambda books: approve(books, open_backjob(books), hold_ids=[]),
    "approval: a stranger": lambda books: approve(books, open_backjob(books), hold_ids=[UNKNOWN]),
    "approval: frozen otherwise": lambda books: approve(books, frozen_otherwise(books)),
    "approval: two currencies": lambda books: approve(books, two_currencies(books), amount="1"),
    "approval: too much": lambda books: approve(books, open_backjob(books), amount="1000.01"),
    "approval: full wallet": approve_to_a_full_wallet,
    "approval: conflict": lambda books: twice(approve, books, open_backjob(books), amount="1.00"),
    "earning: another payer's job": lambda books: earn(placed(books), payer="client-4"),
    "earning: conflict": lambda books: twice(earn, books, job="job-9"),
    "earning: full wallet": earn_into_a_full_wallet,
    "wallet: none": pay_out,
    "wallet: too little": lambda books: pay_out(placed(books)),
    "wallet: full": pay_into_a_full_wallet,
    "wallet: conflict": lambda books: twice(pay_in, books, amount="6.00"),
    "show: no hold": lambda books: show_hold(books, hold_id=UNKNOWN),
    "show: no reference": lambda books: show_hold(books, reference="invoice-404"),
    "show: no wallet": lambda books: find_wallet(books, owner="nobody", currency="PHP"),
    "inbox: no message": lambda books: mark_read(books, owner=PAYEE, notification_ids=[UNKNOWN], now=NOON),
    "inbox: no id": lambda books: mark_read(books, owner=PAYEE, notification_ids=[TOO_MANY], now=NOON),
}
"""Each refusal of a verb that names something."""


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_ids_in_messages_are_attributes(
    connection: Connection, refused: Callable[[Connection], object]
) -> None:
    """If a message names several ids of a kind and the refusal has one attribute, it is the first."""
    with pytest.raises(Refused) as caught:
        refused(connection)

    found = {
        name: [each.strip("'") for each in re.findall(rf"\b{words} (\d+|'[^']*')", str(caught.value))]
        for name, words in WORDS.items()
    }
    named = {name: ids if name == "freeze_ids" else ids[:1] for name, ids in found.items() if ids}
    assert named
    assert {name: carried(caught.value, name) for name in named} == named


def carried(refusal: Refused, name: str) -> list[str]:
    """Return an attribute as a message would show it."""
    value = getattr(refusal, name, None)
    return [str(each) for each in (value if isinstance(value, tuple) else (value,))]


def messages_in_the_source() -> Iterator[tuple[str, str, set[str]]]:
    """Yield each place that raises a refusal with a message, the words before each value of it, and its
    attributes.
    """
    refusals = {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Refused)
    }
    # `legacy` names rows by the old system's ids, and callers never see its exceptions.
    for path in sorted(set(PACKAGE.rglob("*.py")) - set((PACKAGE / "legacy").rglob("*.py"))):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in refusals:
                attributes = {keyword.arg or "" for keyword in call.keywords}
                for written in (each for message in call.args for each in ast.walk(message)):
                    if isinstance(written, ast.JoinedStr):
                        for words in written.values:
                            if isinstance(words, ast.Constant):
                                where = f"{path.relative_to(PACKAGE)}:{call.lineno}"
                                yield where, str(words.value), attributes


def test_every_message_in_the_source_has_its_attributes() -> None:
    """Includes refusals that only a race of two transactions can raise."""
    missing = [
        (where, name)
        for where, before, attributes in messages_in_the_source()
        for name, words in WORDS.items()
        if re.search(rf"\b{words} $", before) and name not in attributes
    ]

    assert missing == []


def test_refused_release_of_a_job_has_the_job_and_the_hold(connection: Connection) -> None:
    """The attributes name the job and the hold that prevents the release."""
    hold_id = place_hold(connection)

    with pytest.raises(NotAllowed) as of_another:
        early(connection, job=JOB, by=PAYEE)
    with pytest.raises(NotFound) as of_none:
        early(connection, job="job-404")

    assert (of_another.value.hold_id, of_another.value.job) == (hold_id, JOB)
    assert (of_none.value.hold_id, of_none.value.job) == (None, "job-404")


def test_refused_closing_has_the_state_and_what_is_allowed(connection: Connection) -> None:
    """As the refusal of a decision on a decided backjob."""
    with pytest.raises(FreezeRefused, match="only an open one can be closed") as caught:
        unfreeze_twice(connection)

    assert (caught.value.state, caught.value.allowed) == ("CLOSED", ("OPEN",))


def test_id_that_is_too_long_to_print_is_left_out(connection: Connection) -> None:
    """Python prints no int of more than 4,300 digits, so it would break the logging of the refusal."""
    with pytest.raises(NotFound) as caught:
        freeze(connection, 10**5000)

    assert caught.value.hold_id is None
