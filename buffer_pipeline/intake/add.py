"""Add earnings to the buffer, one at a time or many in a few statements."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.currencies import bring_in, places_of
from buffer_pipeline.database import AnyConnection, array_text, fetch, is_beyond_a_bigint, savepoint
from buffer_pipeline.errors import InvalidInput, JobConflict, Refused
from buffer_pipeline.hold_metadata import Metadata
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_time
from buffer_pipeline.intake.by_rule import by_rule
from buffer_pipeline.intake.earning import (
    CheckedEarning,
    DatedEarning,
    Earning,
    check_earning,
    checked_by_the_books,
    with_terms,
)
from buffer_pipeline.intake.insert import (
    LockedJob,
    add_all,
    add_alone,
    add_with_shares,
    lock_jobs,
)
from buffer_pipeline.intake.replay import AddedHold, find_holds, replay_or_refusal
from buffer_pipeline.money import WALLET_MINOR_MAX, Places, wallet_full
from buffer_pipeline.policy import Policy
from buffer_pipeline.shares import Share

_ATTEMPTS_MAX: Final = 3
"""Attempts of a call in which some wallet is full. A failed one finds the full wallets, and another
transaction may fill a wallet between two attempts."""


def add_pending_earnings(
    connection: AnyConnection,
    *,
    reference: str,
    job: str,
    payee: str,
    payer: str,
    amount: Decimal | int | str,
    currency: str,
    now: datetime,
    title: str = "",
    held_at: datetime | None = None,
    release_date: datetime | None = None,
    shares: Sequence[Share] = (),
    rule: str | None = None,
    metadata: Metadata | None = None,
    policy: Policy | None = None,
) -> AddedHold:
    """Hold one earning in the caller's transaction, and write a PAYMENT_PENDING for its payee.

    `amount` is in the currency's major unit. The hold is FROZEN if the payee is frozen. It is also FROZEN
    if a backjob is open on the job, unless its release date has passed. Safe to run again: the same
    reference with the same content returns the first hold and writes nothing. A date that is not given is
    not compared, because its default depends on the clock. Nor is `metadata` if it is None; {} says that
    there is none. Nor are shares and a rule that are not given; of a rule only the name is compared.

    The terms are those of the newest version of the hold rule `rule`. If it is None, they are those of the
    payee's own rule, else of `standard`, else of `policy`. With `shares`, or with a rule that has a fee, a
    tax or a reserve, the earning is divided: each share is a hold of its own owner with its own release date.
    The hold that is returned is the payee's own share. `shares` and `release_date` replace those of the rule;
    one PAYEE share says that all of it is the payee's.

    Raises:
        InvalidInput: a value that can never be accepted; the message names it.
        ReferenceConflict: the reference was used for another earning.
        JobConflict: the job has another payer.
        NotFound: no such rule.
        RuleRefused: the rule is retired or of another currency, leaves nothing for the payee, or pays its fee
            or tax to the payer.
        WalletFull: an owner's wallet cannot hold the amount.
        Refused: another transaction added the currency at the same time with other places; roll back.
        BooksOutOfBalance: the wallets' credits differ from what was added; roll back.
    """
    earning = Earning(
        reference=reference,
        job=job,
        payee=payee,
        payer=payer,
        amount=amount,
        currency=currency,
        title=title,
        held_at=held_at,
        release_date=release_date,
        shares=shares,
        rule=rule,
        metadata=metadata,
    )
    now = require_time("now", now)
    buffer = (policy or Policy()).buffer
    try:
        # The places of ISO 4217, so that the books are not read first: the statement compares the two.
        item = with_terms(check_earning(earning, places={}), now=now, buffer=buffer)
    except InvalidInput:
        item = with_terms(check_earning(earning, places=places_of(connection)), now=now, buffer=buffer)
    added = _add_new(connection, item, now=now, buffer=buffer)
    if added is not None:
        return added
    # Nothing was added: the reference exists, an owner has no wallet yet, a wallet is full, the job has
    # another payer or an open backjob, the rule cannot be used, or the books have other places than ISO 4217.
    known = places_of(connection)
    item = with_terms(check_earning(earning, places=known), now=now, buffer=buffer)
    outcome = _add_incoming(connection, [item], known=known, now=now, buffer=buffer, notify=True)[0]
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def add_many_pending_earnings(
    connection: AnyConnection,
    earnings: Iterable[Earning | CheckedEarning],
    *,
    now: datetime,
    policy: Policy | None = None,
    notify: bool = True,
) -> list[AddedHold | Refused]:
    """Hold many earnings in a few statements. Return one outcome for each, in the order of `earnings`.

    An outcome is what `add_pending_earnings` would return or raise. A refused earning adds no hold, and
    the others are still added. `notify=False` is for an import from another system, which has notified
    the payees already.

    Raises:
        Refused: another transaction added a currency at the same time with other places; roll back.
        BooksOutOfBalance: the wallets' credits differ from what was added; roll back.
    """
    now = require_time("now", now)
    buffer = (policy or Policy()).buffer
    known = places_of(connection)
    outcomes: dict[int, AddedHold | Refused] = {}
    incoming: dict[int, DatedEarning] = {}
    # A generator is read to its end before anything is written.
    for place, earning in enumerate(earnings):
        try:
            checked = checked_by_the_books(earning, known)
            incoming[place] = with_terms(checked, now=now, buffer=buffer)
        except InvalidInput as refusal:
            outcomes[place] = refusal

    added = _add_incoming(
        connection, list(incoming.values()), known=known, now=now, buffer=buffer, notify=notify
    )
    outcomes.update(zip(incoming, added, strict=True))
    return [outcomes[place] for place in sorted(outcomes)]


def _add_new(
    connection: AnyConnection, item: DatedEarning, *, now: datetime, buffer: timedelta
) -> AddedHold | None:
    """Add an earning in a few statements, without looking for what would keep it from being added.

    Return None, and add nothing, if it cannot be added so.
    """
    if item.refusal is None and item.earning.rule is None:
        # The statement compares the rule: it adds nothing if one applies.
        added = _add_by(connection, item, now=now)
        if added is not None:
            return added
    ruled, _ = by_rule(connection, [item], now=now, buffer=buffer)
    if not ruled or ruled[0].rule is None:
        # Also if it is refused: the reference may exist, and a replay is not refused.
        return None
    return _add_by(connection, ruled[0], now=now)


def _add_by(connection: AnyConnection, item: DatedEarning, *, now: datetime) -> AddedHold | None:
    add = add_with_shares if item.shares else add_alone
    return add(connection, item, now=now)


def _add_incoming(
    connection: AnyConnection,
    incoming: list[DatedEarning],
    *,
    known: Places,
    now: datetime,
    buffer: timedelta,
    notify: bool,
) -> list[AddedHold | Refused]:
    references = [item.earning.reference for item in incoming]
    existing = find_holds(connection, references)
    # If `incoming` has a reference twice, the first is added and the second is its replay.
    fresh: dict[str, DatedEarning] = {}
    for reference, item in zip(references, incoming, strict=True):
        if reference not in existing:
            fresh.setdefault(reference, item)
    ruled, refused = by_rule(connection, list(fresh.values()), now=now, buffer=buffer)
    added = {**refused, **_add(connection, ruled, known=known, now=now, notify=notify)}
    if len(added) < len(incoming):
        # A replay, the same reference twice in `incoming`, or another transaction that committed first.
        existing = find_holds(connection, references)
    outcomes: list[AddedHold | Refused] = []
    for reference, item in zip(references, incoming, strict=True):
        # `pop`: only the first earning with a new reference added it; a later one is a replay.
        outcome = added.pop(reference, None)
        if outcome is None and reference in existing:
            outcome = replay_or_refusal(item, existing[reference])
        # A repetition of a refused earning is refused as well.
        outcomes.append(outcome or outcomes[references.index(reference)])
    return outcomes


def _add(
    connection: AnyConnection, incoming: list[DatedEarning], *, known: Places, now: datetime, notify: bool
) -> dict[str, AddedHold | Refused]:
    """Return reference -> what was added or refused.

    A reference that another transaction committed first is left out.
    """
    if not incoming:
        return {}
    enter_hour(connection, now=now)
    full: dict[str, AddedHold | Refused] = {}
    for attempts_left in reversed(range(_ATTEMPTS_MAX)):
        # The savepoint undoes the jobs, currencies and wallets of earnings that do not fit their wallet.
        fitting = incoming
        try:
            with savepoint(connection):
                jobs = lock_jobs(connection, incoming)
                fitting, refused = _by_payer(incoming, jobs)
                # After the refusals: a refused earning adds no currency.
                bring_in(
                    connection, {item.earning.currency: item.checked.places for item in fitting}, known=known
                )
                return full | refused | add_all(connection, fitting, jobs, now=now, notify=notify)
        except (DBAPIError, psycopg.Error) as error:
            if not is_beyond_a_bigint(error) or not attempts_left:
                raise
        # Read without locks: a wallet's lock comes after those of the jobs, which are released by now. So
        # another transaction may change a wallet before the next attempt, and may have committed some of
        # the references.
        existing = find_holds(connection, [item.earning.reference for item in incoming])
        full |= _find_full(connection, [item for item in fitting if item.earning.reference not in existing])
        incoming = [item for item in incoming if item.earning.reference not in full | existing]
    raise AssertionError  # The last attempt returns or raises.


def _by_payer(
    incoming: list[DatedEarning], jobs: dict[str, LockedJob]
) -> tuple[list[DatedEarning], dict[str, AddedHold | Refused]]:
    """Return the earnings whose payer is their job's payer, and reference -> refusal of the others."""
    fitting: list[DatedEarning] = []
    refused: dict[str, AddedHold | Refused] = {}
    for item in incoming:
        job, payer = item.earning.job, item.earning.payer
        if jobs[job].payer == payer:
            fitting.append(item)
        else:
            refused[item.earning.reference] = JobConflict(
                f"job {job!r}: its payer is {jobs[job].payer!r}, not {payer!r}", job=job
            )
    return fitting, refused


def _find_full(connection: AnyConnection, incoming: list[DatedEarning]) -> dict[str, AddedHold | Refused]:
    """Return reference -> refusal of each earning that does not fit its payee's wallet.

    The earnings are counted in their order, so the first ones fit.
    """
    payees = list({(owner, item.earning.currency) for item in incoming for owner, _ in item.credits})
    rows = fetch(
        connection,
        "intake/read_wallet_capacity",
        owners=array_text([owner for owner, _ in payees]),
        currencies=array_text([currency for _, currency in payees]),
    )
    capacity_minor = dict.fromkeys(payees, WALLET_MINOR_MAX)
    capacity_minor.update({(row["owner"], row["currency"]): row["capacity_minor"] for row in rows})
    full: dict[str, AddedHold | Refused] = {}
    for item in incoming:
        earning = item.earning
        wanted_minor: dict[str, int] = {}
        for owner, amount_minor in item.credits:
            wanted_minor[owner] = wanted_minor.get(owner, 0) + amount_minor
        beyond = [
            owner
            for owner, amount_minor in wanted_minor.items()
            if amount_minor > capacity_minor[owner, earning.currency]
        ]
        if beyond:
            full[earning.reference] = wallet_full(
                beyond[0], wanted_minor[beyond[0]], earning.currency, item.checked.places
            )
            continue
        for owner, amount_minor in wanted_minor.items():
            capacity_minor[owner, earning.currency] -= amount_minor
    return full
