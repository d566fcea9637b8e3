"""Random sequences of all verbs on the real books and on a model, with a simulated clock.

After every step: the books sum to zero in each currency; pending earnings equal the unsettled holds; no hold
is settled twice; a refused verb has changed nothing, by a digest of every table; and wallets, holds, freezes,
backjobs, debts, payouts, batches, lines and notifications match the model.

    uv run pytest --everything buffer_pipeline_tests/books/test_machine.py

runs 500 sequences of 35 steps, and 100 without `--everything`. `--hypothesis-profile=long` runs 10,000,
`--hypothesis-seed=17` repeats a run, and MACHINE_SEQUENCES=50 in the environment sets their number.

Each run draws new sequences. A failing one is shrunk and printed as calls, with the run's seed. `-s` prints
how often each verb succeeded and was refused, by reason. It fails if one of these never happens in three
times 500 sequences.
"""

from collections import Counter
from collections.abc import Iterator
from random import SystemRandom
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from buffer_pipeline_tests.support.machine.backjobs import BackjobRules
from buffer_pipeline_tests.support.machine.debts import DebtRules
from buffer_pipeline_tests.support.machine.early import EarlyRules
from buffer_pipeline_tests.support.machine.freezes import FreezeRules
from buffer_pipeline_tests.support.machine.moving import MoveRules
from buffer_pipeline_tests.support.machine.owner_freezes import OwnerFreezeRules
from buffer_pipeline_tests.support.machine.payout_files import PayoutFileRules
from buffer_pipeline_tests.support.machine.releasing import ReleaseRules
from buffer_pipeline_tests.support.machine.rules import HoldRuleRules
from buffer_pipeline_tests.support.machine.wallets import WalletRules
from buffer_pipeline_tests.support.observed import RealBooks, real_books
from buffer_pipeline_tests.support.scale import count

ENOUGH: Final = 500
"""With this many sequences, everything in TO_BE_SEEN should happen."""
SEQUENCES: Final = count("MACHINE_SEQUENCES", part=100, whole=max(ENOUGH, settings().max_examples))
"""More if the Hypothesis profile says so."""
STEPS: Final = 35
"""A step calls one verb, or several: to send a batch, it is requested, made and approved first."""
RUN: Final = 100
"""Sequences of one seed."""
SEQUENCES_MAX: Final = 3 * SEQUENCES
"""Some of TO_BE_SEEN are rare. If SEQUENCES do not reach one, more runs follow."""

TO_BE_SEEN: Final = (
    "a batch has several payouts",
    "a batch leaves payouts to wait",
    "a batch loses a payout",
    "a batch loses its last payout",
    "a claw-back by the earning's reference",
    "a claw-back is covered in part",
    "a claw-back leaves several debts",
    "a claw-back of several shares",
    "a creditor is paid and releases at once",
    "a debt is advanced",
    "a debt paid in part is forgiven",
    "a debt to a bank",
    "a file has another amount",
    "a file has lines of no payout of the batch",
    "a file speaks of the rest of a batch",
    "a paid payout is returned",
    "a part pays a debt",
    "a release pays a debt in part",
    "a release pays a debt off",
    "a release pays a debt to a bank",
    "a release pays several debts",
    "a returned payout is reported as paid",
    "an override passes a debt",
    "an override passes a freeze",
    "an override passes a new destination",
    "approve_payout_batch: NotAllowed: its maker approves it",
    "approve_payout_batch: done",
    "cancel_payout: PayoutRefused: cannot cancel from SENT",
    "cancel_payout: done",
    "cancel_payout: replayed",
    "cancel_payout_batch: done",
    "claw_back: InsufficientFunds: more than is left to take back",
    "claw_back: InsufficientFunds: nothing is left to take back",
    "claw_back: InsufficientFunds: the balance does not cover what is advanced",
    "claw_back: InvalidInput: advanced by the payee or the payer",
    "claw_back: ReferenceConflict: already used for another claw-back",
    "claw_back: ReferenceConflict: already used for something else",
    "claw_back: RuleRefused: the whole amount is kept",
    "claw_back: StateRefused: BUFFERED",
    "claw_back: StateRefused: FROZEN",
    "claw_back: done",
    "claw_back: done, with a debt",
    "claw_back: replayed",
    "forgive_debt: DebtRefused: closed",
    "forgive_debt: ReferenceConflict: already used for another debt",
    "forgive_debt: done",
    "forgive_debt: replayed",
    "make_payout_batch: PayoutRefused: nothing to pay",
    "make_payout_batch: done",
    "mark_payouts: PayoutRefused: no line is of the batch",
    "mark_payouts: PayoutRefused: the file speaks of another number of payouts",
    "mark_payouts: PayoutRefused: the file was imported before",
    "mark_payouts: done",
    "payouts are paid",
    "payouts are returned",
    "recover_debts: DebtRefused: no open debt",
    "recover_debts: InsufficientFunds: the balance is empty",
    "recover_debts: done",
    "recover_debts: replayed",
    "request_payout: InsufficientFunds: more than the balance",
    "request_payout: PayoutRefused: below the minimum",
    "request_payout: PayoutRefused: the owner is frozen",
    "request_payout: PayoutRefused: the owner owes a debt",
    "request_payout: ReferenceConflict: already used for another payout",
    "request_payout: done",
    "request_payout: done, with an override",
    "request_payout: replayed",
    "send_payout_batch: PayoutRefused: an owner has another account by now",
    "send_payout_batch: PayoutRefused: an owner is frozen or owes a debt by now",
    "send_payout_batch: done",
    "a backjob freezes a fee and a reserve",
    "a backjob skips a hold with a closed window",
    "a backjob of several currencies",
    "a backjob of several holds is refunded in part",
    "a backjob of several payees",
    "a freeze covers several shares",
    "a freeze covers what is left of an earning",
    "a freeze of several shares is closed",
    "a hold is added for a frozen owner",
    "a hold is added to a job with an open backjob",
    "a hold gets nothing of a refund",
    "a job with several holds is released early",
    "a part is refunded, the rest released",
    "a release leaves due holds",
    "a reserve is all that is left",
    "a reserve is released early",
    "a rule divides an earning",
    "a rule is the payee's",
    "a share is added for a frozen owner",
    "a share rounds to nothing",
    "add: JobConflict: job of another payer",
    "add: ReferenceConflict: already used for another earning",
    "add: done",
    "add: replayed",
    "add_many, one: InvalidInput: a share without an owner",
    "add_many, one: InvalidInput: not above zero",
    "add_many, one: InvalidInput: the payee is the payer",
    "add_many, one: InvalidInput: no share for the payee",
    "add_many, one: InvalidInput: the shares differ from the amount",
    "add_many, one: InvalidInput: too many places",
    "add_many, one: JobConflict: job of another payer",
    "add_many, one: NotFound: no such rule",
    "add_many, one: ReferenceConflict: already used for another earning",
    "add_many, one: RuleRefused: leaves nothing for the payee",
    "add_many, one: RuleRefused: has another currency",
    "add_many, one: RuleRefused: a share for the payer",
    "add_many, one: RuleRefused: retired",
    "add_many, one: done",
    "add_many, one: replayed",
    "an earning is divided",
    "an early release leaves a reserve",
    "an owner of fees is notified",
    "an owner with frozen holds is frozen",
    "an unfrozen owner has frozen holds",
    "approve_backjob, in part: BackjobRefused: already decided",
    "approve_backjob, in part: FreezeRefused: another freeze is open",
    "approve_backjob, in part: InsufficientFunds: more than is held",
    "approve_backjob, in part: InvalidInput: a part of several currencies",
    "approve_backjob, in part: NotFound: does not freeze this hold",
    "approve_backjob, in part: done",
    "approve_backjob, whole: InvalidInput: names no hold",
    "approve_backjob, whole: ReferenceConflict: already used for other content",
    "approve_backjob, whole: done",
    "approve_backjob, whole: replayed",
    "deposit: ReferenceConflict: already used for another movement",
    "deposit: done",
    "deposit: replayed",
    "release_all_due, dry: nothing",
    "release_all_due: done",
    "freeze_hold: ReferenceConflict: already used for other content",
    "freeze_hold: StateRefused: RELEASED",
    "freeze_hold: done",
    "freeze_hold: replayed",
    "freeze_owner: FreezeRefused: already frozen",
    "freeze_owner: InvalidInput: a BACKJOB freeze without a backjob",
    "freeze_owner: ReferenceConflict: already used for other content",
    "freeze_owner: done",
    "freeze_owner: replayed",
    "reject_backjob leaves a hold frozen",
    "reject_backjob: BackjobRefused: already decided",
    "reject_backjob: done",
    "reject_backjob: replayed",
    "refund_hold: BackjobRefused: a backjob covers it",
    "refund_hold: InsufficientFunds: more than is held",
    "refund_hold: RuleRefused: the whole amount is kept",
    "refund_hold: ReferenceConflict: already used for a movement",
    "refund_hold: ReferenceConflict: already used for another refund",
    "refund_hold: StateRefused: BUFFERED",
    "refund_hold: done",
    "refund_hold: done, in part",
    "refund_hold: replayed",
    "release_early: NotAllowed: only an admin releases a reserve",
    "release_early: NotAllowed: neither payer nor admin",
    "release_early: StateRefused: FROZEN",
    "release_early: StateRefused: RELEASED",
    "release_early: ReferenceConflict: already used for another early release",
    "release_early: done",
    "release_early: replayed",
    "release_matured: done",
    "release_part: DateRefused: before the payer's minimum days",
    "release_part: InsufficientFunds: more than is held",
    "release_part: InvalidInput: a part of a job, or without a reference",
    "release_part: NotAllowed: neither payer nor admin",
    "release_part: ReferenceConflict: already used for another early release",
    "release_part: StateRefused: FROZEN",
    "release_part: done",
    "release_part: done, in part",
    "release_part: replayed",
    "release_range: done",
    "request_backjob: BackjobRefused: too many were rejected",
    "request_backjob: BackjobRefused: another one is open",
    "request_backjob: NotAllowed: job of another payer",
    "request_backjob: NotFound: no hold of this job",
    "request_backjob: ReferenceConflict: already used for other content",
    "request_backjob: WindowClosed: the release date is reached",
    "request_backjob: done",
    "request_backjob: replayed",
    "a frozen hold is moved",
    "a move leaves a share on its date",
    "a move takes shares along",
    "reschedule_hold: DateRefused: before now",
    "reschedule_hold: DateRefused: before the minimum days",
    "reschedule_hold: DateRefused: beyond the cap",
    "reschedule_hold: DateRefused: already its date",
    "reschedule_hold: NotAllowed: a payer cannot postpone",
    "reschedule_hold: NotAllowed: neither payer nor admin",
    "reschedule_hold: NotFound: no such hold",
    "reschedule_hold: ReferenceConflict: already used for other content",
    "reschedule_hold: done",
    "reschedule_hold: done, later",
    "reschedule_hold: replayed",
    "several shares are refunded by an admin",
    "a part of several shares is released",
    "shares are refunded in part",
    "stacked freezes",
    "unfreeze_hold: FreezeRefused: belongs to a backjob",
    "unfreeze_hold: FreezeRefused: belongs to an earning's freeze",
    "unfreeze_hold: FreezeRefused: belongs to an owner's freeze",
    "unfreeze_hold: ReferenceConflict: already used for other content",
    "unfreeze_hold: done",
    "unfreeze_hold: done, others are open",
    "unfreeze_hold: replayed",
    "unfreeze_owner: FreezeRefused: not frozen",
    "unfreeze_owner: ReferenceConflict: already used for other content",
    "unfreeze_owner: done",
    "unfreeze_owner: replayed",
    "withdraw: InsufficientFunds: more than the balance",
    "withdraw: NotFound: no such wallet",
    "withdraw: ReferenceConflict: already used for another movement",
    "withdraw: done",
    "withdraw: replayed",
    "withdraw_backjob: done",
)
"""What must happen. If it does not, the sequences have become too narrow."""


class BooksMachine(
    DebtRules,
    PayoutFileRules,
    ReleaseRules,
    EarlyRules,
    BackjobRules,
    FreezeRules,
    OwnerFreezeRules,
    HoldRuleRules,
    MoveRules,
    WalletRules,
):
    """One sequence of verbs."""


@pytest.fixture
def books(database_url: str, superuser_url: str) -> Iterator[RealBooks]:
    """Real books for the machine."""
    with real_books(database_url, superuser_url) as books:
        yield books


def run_sequences(sequences: int, number: int, nodeid: str) -> None:
    """Run some sequences with this seed."""
    seed(number)(BooksMachine)
    try:
        run_state_machine_as_test(
            BooksMachine,
            settings=settings(
                max_examples=sequences,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=False,
                print_blob=True,
                phases=[Phase.reuse, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as failure:
        failure.add_note(f"Seed {number}. Run again: uv run pytest {nodeid} --hypothesis-seed={number}")
        raise


@pytest.mark.timeout(900 + SEQUENCES_MAX)  # Shortening what failed takes its time.
def test_books_follow_the_model(books: RealBooks, request: pytest.FixtureRequest) -> None:
    """For any verbs, in any order and at any times."""
    given = request.config.getoption("--hypothesis-seed")
    number = SystemRandom().getrandbits(32) if given is None else int(given)
    BooksMachine.books = books
    BooksMachine.begun, BooksMachine.first = 0, None
    BooksMachine.outcomes, BooksMachine.reached = Counter(), Counter()

    never: list[str] = []
    for begun in range(0, SEQUENCES_MAX, RUN):
        if begun >= SEQUENCES and not never:
            break
        run_sequences(min(RUN, SEQUENCES), number + begun, request.node.nodeid)
        seen = BooksMachine.outcomes + BooksMachine.reached
        never = sorted(set(TO_BE_SEEN) - set(seen)) if SEQUENCES >= ENOUGH else []

    assert BooksMachine.begun >= SEQUENCES
    for what, times in sorted(seen.items()):
        print(f"{times:8,}  {what}")
    assert never == []
