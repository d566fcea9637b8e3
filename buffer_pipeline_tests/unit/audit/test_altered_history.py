"""Altered history is found and named, whoever altered it."""

import struct
from hashlib import sha256
from typing import Final

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.audit.seals import seal, verify
from buffer_pipeline.database import make_engine
from buffer_pipeline.tables import transaction
from buffer_pipeline_tests.support.builders import next_generation, place_hold
from buffer_pipeline_tests.support.runs import corrupt
from buffer_pipeline_tests.support.seals import ids, verified

pytestmark = pytest.mark.usefixtures("short_ranges")

# ---- alterations


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
    "from_balance_after_minor": "coalesce(from_balance_after_minor, 0) + 1",
    "debt_id": "coalesce(debt_id, 0) + 1",
    "release_date": "coalesce(release_date, recorded_at) + interval '1 microsecond'",
    "payout_id": "coalesce(payout_id, 0) + 1",
}


@pytest.mark.parametrize("column", _ALTERED)
def test_each_column_of_each_kind_of_line_is_sealed(
    every_kind_and_debts: Engine, superuser_url: str, column: str
) -> None:
    """A superuser without constraints alters one column of one line of each type. Verifying names it."""
    seal(every_kind_and_debts)
    with every_kind_and_debts.connect() as connection:
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
        "DROP INDEX buffer.transaction_debt_or_payout_line_key",
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
    assert len(named) == 10
    assert {kind: found.transaction_id for kind, found in named.items() if kind not in already} == {
        kind: number for kind, number in of_type.items() if kind not in already
    }
    assert all(
        str(found.offence).endswith("it is not what was sealed")
        for kind, found in named.items()
        if kind not in already
    )


def test_batch_id_beyond_the_packed_format_is_found(every_kind: Engine, superuser_url: str) -> None:
    """An EARNING with a batch id that a packed line cannot store is named."""
    anchor = seal(every_kind).anchor

    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET batch_id = batch_id + 2147483648 WHERE transaction_id ="
        " (SELECT max(transaction_id) FROM buffer.transaction)",
    )

    assert verified(every_kind, anchor).transaction_id == ids(every_kind)[-1]


def test_digests_are_computed_outside_the_database(every_kind: Engine, superuser_url: str) -> None:
    """The books' schema has no function that could be replaced."""
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

    # They mark an hour, sum what a release credits, find an owner's holds, choose recipients, read, read the
    # clock of the books, and let the policies of a sandbox read it.
    assert set(names) == {
        "enter_hour",
        "sum_minor",
        "waiting_holds",
        "notifies_of",
        "read_holds",
        "holds_of_owner",
        "clock",
        "follow_the_sandbox",
        "statement_lines",
        "facts_of_hold",
    }
    assert verified(every_kind).offence is None


def test_first_of_many_is_named(every_kind: Engine, superuser_url: str) -> None:
    """Of an altered, a missing and an added line, the first one is named with its kind."""
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
    """A line added later with an id that a rollback left unused is found."""
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
    """Altered or removed seals are found by the chain or by an anchor."""
    anchor = seal(every_kind).anchor

    corrupt(superuser_url, statement)
    found = verified(every_kind, anchor)

    assert str(found.offence).startswith(offence)
    assert found.transaction_id is None


def test_seal_with_too_wide_a_range_is_named(every_kind: Engine, superuser_url: str) -> None:
    """It is correctly chained, but its range is wider than its lines."""
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


def test_two_anchors_of_one_seal_contradict_each_other(every_kind: Engine, superuser_url: str) -> None:
    """In either order, one of them is not in the chain."""
    original = seal(every_kind).anchor
    corrupt(
        superuser_url,
        "UPDATE buffer.transaction SET amount_minor = amount_minor + 1 WHERE type = 'DEPOSIT'",
        "DELETE FROM buffer.seal",
    )
    anew = seal(every_kind).anchor

    for anchors in ((original, anew), (anew, original)):
        assert "is not the one that was noted" in str(verified(every_kind, *anchors).offence)


def test_history_that_was_sealed_again_is_found_by_an_anchor(every_kind: Engine, superuser_url: str) -> None:
    """A superuser who alters a line and rebuilds the chain deceives the chain but not an anchor."""
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
