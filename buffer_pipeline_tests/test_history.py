"""The past as it was sealed: whatever is altered behind a seal is named, whoever has altered it."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from buffer_pipeline import history
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.database import make_engine, one_moment
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.history import Anchor, Verification, seal, verify
from buffer_pipeline.orchestration.checks import history_as_sealed
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.tables import transaction
from buffer_pipeline.wallet import deposit, open_balance, withdraw
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    PAYEE,
    PAYER,
    all_at_once,
    bring_in,
    next_generation,
    place_hold,
    waiting_for_a_lock,
)
from buffer_pipeline_tests.conftest import NOON, Books
from buffer_pipeline_tests.runs import corrupt, release

LINES: Final = 11


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seals of four lines, so that a few make a chain."""
    monkeypatch.setattr(history, "STRETCH", 4)


@pytest.fixture
def every_kind(engine: Engine) -> Engine:
    """Books with eleven transactions, of every type there is; none is sealed."""
    with engine.begin() as connection:
        open_balance(connection, owner=PAYEE, amount="3.00", currency="PHP", reference="old-17", now=NOON)
        deposit(connection, owner=PAYEE, amount="70.00", currency="PHP", reference="in-1", now=NOON)
        withdraw(connection, owner=PAYEE, amount="30.00", currency="PHP", reference="out-1", now=NOON)
        for job in ("job-1", "job-2", "job-3"):
            place_hold(connection, job=job)
        place_hold(connection, job="refunded", amount="500.00")
        backjob = request_backjob(connection, job="refunded", by=PAYER, reason="bad", now=NOON)
        approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="so be it", now=NOON)
    run = drain_matured(engine, due_by=DAY_7 - timedelta(days=7) + timedelta(days=7), source="a run")
    assert run.holds_released == 3
    return engine


def verified(engine: Engine, *anchors: Anchor | None) -> Verification:
    """Return what verifying finds."""
    with one_moment(engine) as connection:
        return verify(connection, anchors=[anchor for anchor in anchors if anchor is not None])


def ids(engine: Engine) -> list[int]:
    """Return the ids of all transactions."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT transaction_id FROM buffer.transaction ORDER BY 1")))


# ---- what is sealed


def test_all_is_sealed_and_nothing_twice(every_kind: Engine) -> None:
    """Every transaction is under a seal, in seals of a bounded length; later ones come under later seals."""
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
    """What is not sealed is counted as such."""
    assert verified(every_kind) == Verification(
        anchor=None, seals=0, lines=0, unsealed=LINES, unsealed_since=NOON
    )


def test_empty_books_have_nothing_to_seal(engine: Engine) -> None:
    """No seal is made of nothing."""
    sealed = seal(engine)

    assert (sealed.anchor, sealed.lines, sealed.waits) == (None, 0, False)


def test_the_chain_needs_nothing_but_sha_256(every_kind: Engine) -> None:
    """The digests can be computed anew from the rows by what decision 20 says, without this program."""
    anchor = seal(every_kind).anchor

    with every_kind.connect() as connection:
        lines = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    digests = {line.transaction_id: sha256(_told(line)).digest()[:16] for line in lines}
    numbers = sorted(digests)
    link = bytes(32)
    for seal_id, place in enumerate(range(0, len(numbers), 4), 1):
        stretch = numbers[place : place + 4]
        link = sha256(
            link
            + struct.pack(">4q", seal_id, stretch[0], stretch[-1], len(stretch))
            + b"".join(digests[number] for number in stretch)
        ).digest()

    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert anchor == Anchor(seal_id=3, digest=link)


def _told(line: Any) -> bytes:
    """Return what is digested of a line."""

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


# ---- what is altered

_ALTERED: Final = {
    "type": "'DEPOSIT'",
    "from_account": "'OPENING'",
    "from_wallet_id": "coalesce(from_wallet_id, 0) + 1",
    "to_account": "'EXTERNAL'",
    "to_wallet_id": "coalesce(to_wallet_id, 0) + 1",
    "currency": "'EUR'",
    "amount_minor": "amount_minor + 1",
    "balance_after_minor": "coalesce(balance_after_minor, 0) + 1",
    "hold_id": "coalesce(hold_id, 0) + 1",
    "backjob_id": "coalesce(backjob_id, 0) + 1",
    "batch_id": "coalesce(batch_id, 0) + 1",
    "reference": "coalesce(reference, '') || '.'",
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "release_date": "coalesce(release_date, recorded_at) + interval '1 microsecond'",
}


@pytest.mark.parametrize("column", _ALTERED)
def test_each_column_of_each_kind_of_line_is_sealed(
    every_kind: Engine, superuser_url: str, column: str
) -> None:
    """A superuser without constraints alters one column of one line, of every type in turn: it is named."""
    seal(every_kind)
    with every_kind.connect() as connection:
        of_type: dict[str, int] = dict(
            connection.execute(
                text("SELECT type, min(transaction_id) FROM buffer.transaction GROUP BY type")
            ).all()
        )
        constraints = connection.scalars(
            text(
                "SELECT conname FROM pg_constraint"
                " WHERE conrelid = CAST('buffer.transaction' AS regclass) AND contype = 'c'"
            )
        ).all()
    corrupt(
        superuser_url,
        *(f"ALTER TABLE buffer.transaction DROP CONSTRAINT {name}" for name in constraints),
        "DROP INDEX buffer.transaction_hold_line_key",
        "DROP INDEX buffer.transaction_hold_earned_key",
    )
    engine = make_engine(superuser_url)

    named = {}
    for kind, transaction_id in of_type.items():
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(
                text(
                    f"UPDATE buffer.transaction SET {column} = {_ALTERED[column]} WHERE transaction_id = :id"
                ),
                {"id": transaction_id},
            )
            named[kind] = verify(connection)
            connection.rollback()
    engine.dispose()

    assert _ALTERED.keys() | {"transaction_id"} == set(transaction.c.keys())
    already = {"DEPOSIT"} if column == "type" else {"OPENING_BALANCE"} if column == "from_account" else set()
    already |= {"WITHDRAWAL"} if column == "to_account" else set()
    assert len(named) == 6
    assert {kind: found.transaction_id for kind, found in named.items() if kind not in already} == {
        kind: number for kind, number in of_type.items() if kind not in already
    }
    assert all(
        str(found.offence).endswith("it is not what was sealed")
        for kind, found in named.items()
        if kind not in already
    )


def test_a_batch_of_a_far_away_number_is_another(every_kind: Engine, superuser_url: str) -> None:
    """An EARNING that is said to be of a batch beyond what a packed line has room for is named."""
    anchor = seal(every_kind).anchor

    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET batch_id = batch_id + 2147483648 WHERE transaction_id ="
        " (SELECT max(transaction_id) FROM buffer.transaction)",
    )

    assert verified(every_kind, anchor).transaction_id == ids(every_kind)[-1]


def test_nothing_in_the_database_says_how_lines_are_digested(every_kind: Engine, superuser_url: str) -> None:
    """What verifying computes comes with the program: the books' schema has no function to replace for it."""
    seal(every_kind)
    engine = make_engine(superuser_url)
    with engine.connect() as connection:
        names = connection.scalars(
            text(
                "SELECT proname FROM pg_proc WHERE pronamespace = CAST('buffer' AS regnamespace)"
                " AND prorettype <> CAST('trigger' AS regtype)"
            )
        ).all()
    engine.dispose()

    # The one marks an hour, the other adds up what a release credits.
    assert set(names) == {"enter_hour", "sum_minor"}
    assert verified(every_kind).offence is None


def test_first_of_many_is_named(every_kind: Engine, superuser_url: str) -> None:
    """Of an altered, a missing and an added line the one that stands first is named, with what was done."""
    seal(every_kind)
    numbers = ids(every_kind)
    alter = "UPDATE buffer.transaction SET amount_minor = amount_minor + 1 WHERE transaction_id = "
    remove = "DELETE FROM buffer.transaction WHERE transaction_id = "

    corrupt(superuser_url, f"{alter}{numbers[9]}")
    altered = verified(every_kind)
    corrupt(superuser_url, f"{remove}{numbers[6]}")
    missing = verified(every_kind)
    corrupt(
        superuser_url,
        f"CREATE TABLE public.kept AS SELECT * FROM buffer.transaction WHERE transaction_id = {numbers[1]}",
        "UPDATE public.kept SET transaction_id = -1, reference = 'odd'",
        "INSERT INTO buffer.transaction OVERRIDING SYSTEM VALUE SELECT * FROM public.kept",
    )
    below_all = verified(every_kind)

    assert (altered.transaction_id, missing.transaction_id) == (numbers[9], numbers[6])
    assert "was altered" in str(altered.offence)
    assert "is missing" in str(missing.offence)
    assert (altered.lines, missing.lines) == (8, 4)
    assert below_all.transaction_id == -1
    assert "was added" in str(below_all.offence)


def test_line_added_in_a_gap_is_named(engine: Engine, superuser_url: str) -> None:
    """An id that a rolled back transaction has left free is no place for a line that comes later."""
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect() as connection:
        place_hold(connection, job="job-2")
        connection.rollback()
    with engine.begin() as connection:
        place_hold(connection, job="job-3")
    sealed = seal(engine)
    first, last = ids(engine)
    unharmed = verified(engine)

    corrupt(
        superuser_url,
        f"CREATE TABLE public.kept AS SELECT * FROM buffer.transaction WHERE transaction_id = {last}",
        f"UPDATE public.kept SET transaction_id = {first + 1}, hold_id = 17",
        "INSERT INTO buffer.transaction OVERRIDING SYSTEM VALUE SELECT * FROM public.kept",
    )
    found = verified(engine)

    assert (last - first, sealed.lines, unharmed.offence) == (2, 2, None)
    assert (found.transaction_id, found.lines) == (first + 1, 0)
    assert "was added" in str(found.offence)


# ---- the chain itself


@pytest.mark.parametrize(
    ("statement", "offence"),
    [
        (
            "UPDATE buffer.seal SET line_digests = digest || digest WHERE seal_id = 2",
            "seal 2, of transactions",
        ),
        ("UPDATE buffer.seal SET digest = sha256(digest) WHERE seal_id = 2", "seal 2, of transactions"),
        (
            "UPDATE buffer.seal SET through_id = through_id - 1, lines = lines - 1,"
            " line_digests = substr(line_digests, 1, 48) WHERE seal_id = 1",
            "seal 1, of transactions",
        ),
        ("DELETE FROM buffer.seal WHERE seal_id = 2", "seal 2: is missing"),
        ("DELETE FROM buffer.seal WHERE seal_id = 3", "seal 3: was noted and is missing"),
        ("DELETE FROM buffer.seal", "seal 3: was noted and is missing"),
    ],
)
def test_an_altered_chain_is_named(
    every_kind: Engine, superuser_url: str, statement: str, offence: str
) -> None:
    """Whoever alters seals instead of lines, or takes some away, is found by the chain or by the anchor."""
    anchor = seal(every_kind).anchor

    corrupt(superuser_url, statement)
    found = verified(every_kind, anchor)

    assert str(found.offence).startswith(offence)
    assert found.transaction_id is None


def test_a_seal_that_says_too_much_is_named(every_kind: Engine, superuser_url: str) -> None:
    """One that is chained well and whose range is wider than its lines is named itself."""
    seal(every_kind)
    through = ids(every_kind)[-1]
    with every_kind.begin() as connection:
        place_hold(connection, job="job-9")
        next_generation(connection)
        place_hold(connection, job="job-10")
    seal(every_kind)
    with every_kind.connect() as connection:
        before, forged = connection.execute(
            text("SELECT * FROM buffer.seal ORDER BY seal_id DESC LIMIT 2")
        ).all()[::-1]
    assert before.through_id == through + 1
    digest = sha256(before.digest)
    digest.update(struct.pack(">4q", forged.seal_id, forged.first_id, forged.through_id + 5, forged.lines))
    digest.update(struct.pack(">q", forged.first_id) + forged.line_digests)
    corrupt(
        superuser_url,
        "UPDATE buffer.seal SET through_id = through_id + 5, transaction_ids = ARRAY[first_id],"
        f" digest = decode('{digest.hexdigest()}', 'hex') WHERE seal_id = {forged.seal_id}",
    )

    found = verified(every_kind)

    assert str(found.offence).endswith("says of itself what its lines do not")
    assert found.transaction_id is None


def test_two_anchors_of_one_number_cannot_both_be(every_kind: Engine, superuser_url: str) -> None:
    """In whichever order they are given, one of the two is not in the chain."""
    original = seal(every_kind).anchor
    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET amount_minor = amount_minor + 1 WHERE type = 'DEPOSIT'",
        "DELETE FROM buffer.seal",
    )
    anew = seal(every_kind).anchor

    for anchors in ((original, anew), (anew, original)):
        assert "is not the one that was noted" in str(verified(every_kind, *anchors).offence)


def test_history_that_was_sealed_anew_is_found_by_an_anchor(every_kind: Engine, superuser_url: str) -> None:
    """A superuser who alters a line and makes the whole chain again deceives the chain, and no anchor."""
    anchor = seal(every_kind).anchor

    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET amount_minor = amount_minor + 1 WHERE type = 'DEPOSIT'",
        "DELETE FROM buffer.seal",
    )
    anew = seal(every_kind).anchor

    assert verified(every_kind, anew).offence is None
    assert str(verified(every_kind, anchor).offence).endswith(
        "is not the one that was noted; all was sealed anew"
    )


# ---- what is under way


def test_no_line_can_come_to_stand_among_sealed_ones(engine: Engine) -> None:
    """While an older transaction is open nothing is sealed; behind it its line and the younger one are."""
    with engine.begin() as connection:
        place_hold(connection)
    with engine.connect() as slow:
        place_hold(slow, job="job-2", payee="worker-2", payer="client-2")
        with engine.begin() as connection:
            place_hold(connection, job="job-3", payee="worker-3", payer="client-4")

        before = seal(engine, wait_seconds=0)
        slow.commit()

    behind = seal(engine)

    assert (before.lines, before.waits, before.anchor) == (0, True, None)
    assert (behind.lines, behind.waits) == (3, False)
    assert verified(engine).offence is None


def test_an_open_transaction_with_a_later_number_is_waited_for(engine: Engine) -> None:
    """One that began behind all that has ended, and has an older line than the newest, is not passed over."""
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


def test_a_line_whose_id_comes_before_all_else_is_waited_for(roles: Books) -> None:
    """A platform's own INSERT that waits behind its line's id is an open transaction to the sealer."""
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


def test_whoever_holds_the_sealers_lock_holds_up_no_release(every_kind: Engine) -> None:
    """Any login may take an advisory lock: sealing gives up and says so, and the next run makes up for it."""
    with every_kind.connect() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('buffer.seal', 0))"))

        held_up = seal(every_kind, wait_seconds=0.1)

    assert (held_up.lines, held_up.waits) == (0, True)
    assert seal(every_kind).lines == LINES


def test_sealing_stops_where_it_is_asked_to(every_kind: Engine) -> None:
    """What is sealed by then stays sealed, and the next time goes on behind it."""
    stopped = seal(every_kind, stop=lambda: True)
    rest = seal(every_kind)

    assert (stopped.lines, stopped.waits, rest.lines) == (4, True, LINES - 4)
    assert verified(every_kind, stopped.anchor, rest.anchor).offence is None


def test_two_sealers_make_one_chain(every_kind: Engine) -> None:
    """Whoever comes second seals what the first has left: nothing."""
    sealed = all_at_once(every_kind, lambda _: seal(every_kind), lambda _: seal(every_kind))
    del sealed

    found = verified(every_kind)

    assert (found.seals, found.lines, found.unsealed, found.offence) == (3, LINES, 0, None)


def test_far_away_ids_are_sealed_as_they_are(engine: Engine) -> None:
    """Between two lines may be any number of ids that nothing has."""
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
def test_an_anchor_that_is_none_is_refused(noted: str) -> None:
    """What no release has said is not looked for."""
    with pytest.raises(InvalidInput, match=r"^anchor "):
        Anchor.parse(noted)


@pytest.mark.usefixtures("environment")
def test_the_daily_job_proves_history_by_what_runs_noted(
    engine: Engine, superuser_url: str, instance: dg.DagsterInstance
) -> None:
    """A run notes its seal in Dagster; a chain that was made again in the books fails the daily check."""
    with engine.begin() as connection:
        place_hold(connection)
    release(instance)
    job = defs.resolve_job_def("reconcile_books")
    sound = job.execute_in_process(instance=instance, raise_on_error=False)

    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET recorded_at = recorded_at + interval '1 second'",
        "DELETE FROM buffer.seal",
    )
    seal(engine)
    broken = job.execute_in_process(instance=instance, raise_on_error=False)

    [name] = [key.name for key in history_as_sealed.check_keys]
    passed, failed = (
        next(found for found in result.get_asset_check_evaluations() if found.check_name == name)
        for result in (sound, broken)
    )
    assert (passed.passed, passed.metadata["anchors"].value, passed.metadata["transactions"].value) == (
        True,
        1,
        2,
    )
    assert (failed.passed, failed.metadata["transactions"].value) == (False, 0)
    assert "is not the one that was noted" in str(failed.metadata["offence"].value)


@pytest.mark.usefixtures("environment")
def test_the_daily_job_warns_of_what_is_not_sealed_for_long(
    every_kind: Engine, instance: dg.DagsterInstance
) -> None:
    """Lines of months ago that no run has sealed, as when a transaction is open all the time."""
    job = defs.resolve_job_def("reconcile_books")
    before = job.execute_in_process(instance=instance, raise_on_error=False)
    seal(every_kind)
    behind = job.execute_in_process(instance=instance, raise_on_error=False)

    [name] = [key.name for key in history_as_sealed.check_keys]
    warned, passed = (
        next(found for found in run.get_asset_check_evaluations() if found.check_name == name)
        for run in (before, behind)
    )
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert warned.metadata["unsealed"].value == LINES
    assert passed.passed
