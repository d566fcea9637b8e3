"""History is sealed once, in order, and never past an open transaction."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.audit.seals import Anchor, Verification, seal
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import (
    NOON,
    PAYEE,
    PAYER,
    all_at_once,
    bring_in,
    next_generation,
    place_hold,
    waiting_for_a_lock,
)
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.seals import LINES, verified

pytestmark = pytest.mark.usefixtures("short_ranges")

# ---- sealed lines


def test_all_is_sealed_and_nothing_twice(every_kind: Engine) -> None:
    """Every transaction gets one seal. Seals have a limited length, and later lines get later seals."""
    first = seal(every_kind)
    nothing = seal(every_kind)
    with every_kind.begin() as connection:
        place_hold(connection, job="job-9")
    one_more = seal(every_kind)

    found = verified(every_kind, first.anchor, one_more.anchor)

    assert (first.lines, nothing.lines, one_more.lines) == (LINES, 0, 1)
    assert first.anchor is not None
    assert (first.anchor.seal_id, nothing.anchor) == (3, first.anchor)
    assert found == Verification(anchor=one_more.anchor, seals=4, lines=LINES + 1, unsealed=0)


def test_books_without_seals_have_nothing_to_compare(every_kind: Engine) -> None:
    """Unsealed lines are counted as such."""
    assert verified(every_kind) == Verification(
        anchor=None, seals=0, lines=0, unsealed=LINES, unsealed_since=NOON
    )


def test_empty_books_get_no_seal(engine: Engine) -> None:
    """There is nothing to seal."""
    sealed = seal(engine)

    assert (sealed.anchor, sealed.lines, sealed.waits) == (None, 0, False)


def test_the_chain_needs_nothing_but_sha_256(every_kind: Engine) -> None:
    """The digests can be recomputed from the rows as decision 20 describes, without this program."""
    anchor = seal(every_kind).anchor

    with every_kind.connect() as connection:
        lines = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    digests = {line.transaction_id: sha256(_digested(line)).digest()[:16] for line in lines}
    numbers = sorted(digests)
    link = bytes(32)
    for seal_id, place in enumerate(range(0, len(numbers), 4), 1):
        sealed_numbers = numbers[place : place + 4]
        link = sha256(
            link
            + struct.pack(">4q", seal_id, sealed_numbers[0], sealed_numbers[-1], len(sealed_numbers))
            + b"".join(digests[number] for number in sealed_numbers)
        ).digest()

    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert anchor == Anchor(seal_id=3, digest=link)


def _digested(line: Any) -> bytes:
    """Return the bytes of a line that are digested."""

    def micros(moment: datetime) -> int:
        return (moment - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    if line.type == "EARNING":
        return (
            struct.pack(
                ">4qi2q",
                line.to_wallet_id,
                line.amount_minor,
                line.balance_after_minor,
                line.hold_id,
                line.batch_id,
                micros(line.recorded_at),
                micros(line.release_date),
            )
            + str(line.currency).encode()
        )
    if line.type == "PENDING_EARNING":
        return (
            struct.pack(">4q", line.to_wallet_id, line.amount_minor, line.hold_id, micros(line.recorded_at))
            + str(line.currency).encode()
        )
    values = [
        line.type,
        line.from_account,
        line.from_wallet_id,
        line.to_account,
        line.to_wallet_id,
        line.currency,
        line.amount_minor,
        line.balance_after_minor,
        line.hold_id,
        line.backjob_id,
        line.batch_id,
        line.reference,
    ]
    times = [_epoch(line.recorded_at), _epoch(line.release_date)]
    return (json.dumps(values)[:-1] + ", " + ", ".join(times) + "]").encode()


def _epoch(moment: datetime | None) -> str:
    if moment is None:
        return "null"
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


# ---- open transactions


def test_no_line_can_appear_among_sealed_ones(engine: Engine) -> None:
    """While an older transaction is open, nothing is sealed. After its end, its line and the
    newer one are.
    """
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect() as slow:
        place_hold(slow, job="job-2", payee="worker-2", payer="client-2")
        with engine.begin() as connection:
            place_hold(connection, job="job-3", payee="worker-3", payer="client-4")

        before = seal(engine, wait_seconds=0)
        slow.commit()

    after = seal(engine)

    assert (before.lines, before.waits, before.anchor) == (0, True, None)
    assert (after.lines, after.waits) == (3, False)
    assert verified(engine).offence is None


def test_an_open_transaction_with_a_later_number_is_waited_for(engine: Engine) -> None:
    """Even one that began after the ended ones waits, if its line is older than the newest."""
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
    with engine.connect() as one, engine.connect() as two:
        deposit(one, owner="worker-1", amount="1", currency="PHP", reference="in-1", now=NOON)
        deposit(two, owner="worker-2", amount="1", currency="PHP", reference="in-2", now=NOON)
        deposit(one, owner="worker-1", amount="1", currency="PHP", reference="in-3", now=NOON)
        one.commit()

        before = seal(engine, wait_seconds=0)
        two.commit()

    assert (before.lines, before.waits) == (0, True)
    assert seal(engine).lines == 3
    assert verified(engine).offence is None


def test_sealing_waits_for_an_insert_that_has_its_id(roles: Books) -> None:
    """A platform's own INSERT that waits after getting its line's id counts as an open transaction."""
    raw = text(
        "INSERT INTO buffer.transaction (type, from_account, to_account, to_wallet_id, currency,"
        " amount_minor, balance_after_minor, reference, recorded_at)"
        " VALUES ('DEPOSIT', 'EXTERNAL', 'BALANCE',"
        " (SELECT wallet_id FROM buffer.wallet), 'PHP', 100, 200, 'raw-1',"
        " now() + CAST(pg_advisory_xact_lock(17) IS NULL AS integer) * interval '1 second')"
    )

    def insert() -> None:
        with roles.platform.begin() as connection:
            connection.execute(raw)

    def put_in(owner: str, reference: str) -> None:
        with roles.platform.begin() as connection:
            deposit(connection, owner=owner, amount="1", currency="PHP", reference=reference, now=NOON)

    put_in(PAYEE, "in-1")
    with roles.owner.connect() as gate, ThreadPoolExecutor(1) as other:
        gate.execute(text("SELECT pg_advisory_lock(17)"))
        inserted = other.submit(insert)
        while not waiting_for_a_lock(gate):
            pass
        put_in(PAYER, "in-2")

        before = seal(roles.releaser, wait_seconds=0)
        gate.execute(text("SELECT pg_advisory_unlock(17)"))
        inserted.result()

    assert (before.lines, before.waits) == (0, True)
    assert seal(roles.releaser).lines == 3
    assert verified(roles.reader).offence is None


def test_a_transaction_that_writes_elsewhere_holds_nothing_back(every_kind: Engine) -> None:
    """Sealing waits only for transactions that may write lines."""
    with every_kind.connect() as other:
        other.execute(text("SELECT pg_current_xact_id()"))
        other.execute(text("CREATE TEMPORARY TABLE elsewhere (id int)"))

        sealed = seal(every_kind, wait_seconds=0)

    assert (sealed.lines, sealed.waits) == (LINES, False)


def test_held_seal_lock_does_not_delay_a_release(every_kind: Engine) -> None:
    """Any login can take an advisory lock. Sealing gives up and says so, and the next run seals."""
    with every_kind.connect() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('buffer.seal', 0))"))

        held_up = seal(every_kind, wait_seconds=0.1)

    assert (held_up.lines, held_up.waits) == (0, True)
    assert seal(every_kind).lines == LINES


def test_sealing_can_be_stopped(every_kind: Engine) -> None:
    """Written seals stay, and the next call continues after them."""
    stopped = seal(every_kind, stop=lambda: True)
    rest = seal(every_kind)

    assert (stopped.lines, stopped.waits, rest.lines) == (4, True, LINES - 4)
    assert verified(every_kind, stopped.anchor, rest.anchor).offence is None


def test_two_sealers_make_one_chain(every_kind: Engine) -> None:
    """The second one finds nothing left to seal."""
    sealed = all_at_once(every_kind, lambda _: seal(every_kind), lambda _: seal(every_kind))
    del sealed

    found = verified(every_kind)

    assert (found.seals, found.lines, found.unsealed, found.offence) == (3, LINES, 0, None)


def test_gaps_between_ids_are_sealed(engine: Engine) -> None:
    """Any number of unused ids may lie between two lines."""
    with engine.begin() as connection:
        place_hold(connection)
        next_generation(connection, generations=10**9)
        place_hold(connection, job="job-2")

    assert seal(engine).lines == 2
    assert verified(engine) == Verification(anchor=seal(engine).anchor, seals=2, lines=2, unsealed=0)


# ---- anchors


@pytest.mark.parametrize(
    "noted", ["", "41", "x:00", "41:00", f"0:{'00' * 32}", f"1:{'zz' * 32}", f"{2**70}:{'00' * 32}"]
)
def test_malformed_anchor_is_refused(noted: str) -> None:
    """It is not looked up."""
    with pytest.raises(InvalidInput, match=r"^anchor "):
        Anchor.parse(noted)
