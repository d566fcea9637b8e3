"""`hold import` compared with Python's csv module, and with sessions that the database cancels."""

import csv
import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from buffer_pipeline.cli.hold_import import _read
from buffer_pipeline.csv_records import FIELD_LENGTH_MAX, BrokenRecord, csv_records
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.intake import CheckedEarning, Earning, check_earning
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.hostile import cases, run_command
from buffer_pipeline_tests.support.processes import start, wait_until, waiting

COLUMNS: Final = ("reference", "job", "payee", "payer", "amount", "currency", "title")
HEADER: Final = ",".join(COLUMNS) + "\n"
PYTHONS_LIMIT: Final = 131_072
"""Python's default limit of a CSV field."""

PIECES: Final = (
    *("good-{n},job-8,worker-17,client-3,12.50,PHP,Tap\n" for _ in range(3)),
    'quoted-{n},job-8,worker-17,client-3,12.50,PHP,"Tap, ""new"""\n',
    'long-{n},job-8,worker-17,client-3,12.50,PHP,"' + "x" * PYTHONS_LIMIT,
    "x" * PYTHONS_LIMIT,
    "evil-{n},job-evil,attacker,victim,10000000,PHP,x\n",
    'evil-{n},job-evil,attacker,victim,10000000,PHP,"',
    "\nevil-{n},job-evil,attacker,victim,10000000,PHP,x\n",
    '"',
    '""',
    '"\n',
    'a"',
    ",",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "\u2028",
    " ",
)


@st.composite
def files(draw: st.DrawFn) -> str:
    """Draw a file of whole and partial lines, quotes and long text in any order."""
    pieces = draw(st.lists(st.sampled_from(PIECES), max_size=9))
    return HEADER + "".join(piece.replace("{n}", str(number)) for number, piece in enumerate(pieces))


def records(content: str) -> list[list[str]]:
    """Return the records of Python's csv module up to the first broken one, with fields of any length."""
    found: list[list[str]] = []
    limit = csv.field_size_limit(sys.maxsize)
    try:
        found.extend(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error:
        event("broken")
    finally:
        csv.field_size_limit(limit)
    return found


def good(content: str) -> list[Earning]:
    """Return, in order, the valid records."""
    _, *rows = records(content)
    earnings = []
    for fields in rows:
        if len(fields) == len(COLUMNS):
            earning = Earning(**dict(zip(COLUMNS, fields, strict=True)))  # type: ignore[arg-type]
            with suppress(InvalidInput):
                check_earning(earning, places={})
                earnings.append(earning)
    return earnings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files."""
    return tmp_path_factory.mktemp("import")


@cases(2_000)
@given(content=files())
def test_what_is_read_are_the_records_of_csv(folder: Path, content: str) -> None:
    """Exactly the good records before Python's first broken one are earnings."""
    csv.field_size_limit(PYTHONS_LIMIT)
    file = folder / "read.csv"
    file.write_text(content, encoding="utf-8", newline="")

    found = list(_read(file, {}))

    earnings = [item.earning for _, item in found if isinstance(item, CheckedEarning)]
    assert earnings == good(content)
    event(f"{len(earnings)} of {len(found)}")


@cases(150)
@given(content=files(), all_or_nothing=st.booleans())
def test_no_hold_has_a_record_that_csv_has_not(
    engine: Engine,
    database_url: str,
    folder: Path,
    content: str,
    all_or_nothing: bool,
) -> None:
    """The books have the good records, or nothing if one bad line refuses a file."""
    csv.field_size_limit(PYTHONS_LIMIT)
    file = folder / "import.csv"
    file.write_text(content, encoding="utf-8", newline="")
    before = references(engine)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUFFER_DATABASE_URL", database_url)
        outcome = run_command("hold", "import", str(file), "--json", *["--all-or-nothing"] * all_or_nothing)

    document = json.loads(outcome.out)
    held = (
        set() if all_or_nothing and document["refused"] else {earning.reference for earning in good(content)}
    )
    assert references(engine) == before | held
    assert outcome.code == (1 if document["refused"] else 0)


def references(engine: Engine) -> set[str]:
    """Return the references of all holds."""
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT reference FROM buffer.hold")))


@pytest.mark.parametrize("padding", [PYTHONS_LIMIT - 100, PYTHONS_LIMIT, 2 * PYTHONS_LIMIT])
def test_text_inside_a_long_field_is_no_hold(
    engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    """A title that is too long is refused, whatever lines it contains. The other earnings are added."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)
    evil = "x" * padding + "\nevil-1,j1,attacker,victim,10000000,PHP,x\n" * 3
    file = tmp_path / "earnings.csv"
    file.write_text(
        HEADER
        + "a,job-8,worker-17,client-3,12.50,PHP,Tap\n"
        + f'b,job-8,worker-17,client-3,12.50,PHP,"{evil}"\n'
        + "c,job-8,worker-17,client-3,12.50,PHP,Tap\n"
    )

    outcome = run_command("hold", "import", str(file), "--json")

    assert references(engine) == {"a", "c"}
    assert outcome.code == 1
    document = json.loads(outcome.out)
    reason = f"title: {len(evil)} characters long; at most 500"
    assert document["refused"] == [{"line": 3, "reason": reason}]
    assert (document["read"], document["not_read"]) == (3, 0)


@pytest.mark.parametrize(
    ("after", "not_read"),
    [("", ""), ("a\n", "; line 3 was not read"), ("a\nb\n", "; lines 3 to 4 were not read")],
)
def test_broken_record_names_the_unread_lines(after: str, not_read: str) -> None:
    """None, one, or several."""
    with pytest.raises(BrokenRecord) as refusal:
        list(csv_records(io.StringIO('a\n"b"c\n' + after, newline="")))

    assert str(refusal.value) == f"broken line: ',' expected after '\"'{not_read}"
    assert (refusal.value.line, refusal.value.lines_not_read) == (2, after.count("\n"))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('b,j,w,c,1,PHP,"x"y\n', "broken line: ',' expected after '\"'; lines 4 to 5 were not read"),
        ('b,j,w,c,1,PHP,"x\n', "broken line: unexpected end of data; lines 4 to 5 were not read"),
        (
            f'b,j,w,c,1,PHP,"{"x" * (FIELD_LENGTH_MAX + 1)}"\n',
            f"broken line: field larger than field limit ({FIELD_LENGTH_MAX}); lines 4 to 5 were not read",
        ),
    ],
    ids=["after a quote", "no closing quote", "no end"],
)
@pytest.mark.parametrize("all_or_nothing", [True, False])
def test_nothing_after_a_broken_record_is_read(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    reason: str,
    all_or_nothing: bool,
) -> None:
    """Earlier records are added, the line and the unread ones are reported, and the exit code is 1."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)
    csv.field_size_limit(PYTHONS_LIMIT)
    file = tmp_path / "earnings.csv"
    lines = [f"{reference},job-8,worker-17,client-3,12.50,PHP,Tap\n" for reference in "acd"]
    file.write_text(HEADER + lines[0] + broken + lines[1] + lines[2])

    outcome = run_command("hold", "import", str(file), "--json", *["--all-or-nothing"] * all_or_nothing)

    assert outcome.code == 1
    document = json.loads(outcome.out)
    assert document["refused"] == [{"line": 3, "reason": reason}]
    assert (document["read"], document["not_read"]) == (2, 2)
    assert references(engine) == (set() if all_or_nothing else {"a"})


# ---- concurrent sessions


ROWS: Final = "".join(f"r{n},job-8,worker-{n},client-3,12.50,PHP,Tap\n" for n in (1, 2))


@pytest.fixture
def owners(engine: Engine) -> None:
    """worker-1 and worker-2, in the order of their wallets, and client-3 have wallets."""
    with engine.begin() as connection:
        for owner in ("worker-1", "worker-2", "client-3"):
            deposit(connection, owner=owner, amount="1", currency="PHP", reference=f"top-{owner}", now=NOON)


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize("all_or_nothing", [True, False])
def test_import_is_retried_after_a_deadlock(
    engine: Engine, database_url: str, superuser_url: str, tmp_path: Path, all_or_nothing: bool
) -> None:
    """A session that locks two wallets in the other order costs the import an attempt and no line."""
    file = tmp_path / "earnings.csv"
    file.write_text(HEADER + ROWS)
    lock = text("SELECT FROM buffer.wallet WHERE owner = :owner AND currency = 'PHP' FOR UPDATE")
    other = make_engine(superuser_url)
    with other.connect() as session, other.connect() as observer:
        # Of the two, the import checks for a deadlock when both wait already.
        session.execute(text("SET deadlock_timeout = '1h'"))
        observer.execute(text("ALTER ROLE buffer SET deadlock_timeout = '5s'"))
        observer.commit()
        session.execute(lock, {"owner": "worker-2"})

        importing = start(
            *("hold", "import", str(file), "--json", *["--all-or-nothing"] * all_or_nothing),
            BUFFER_DATABASE_URL=database_url,
        )
        wait_until(lambda: waiting(engine) == 1 or importing.poll() is not None)
        # It returns once the database has ended the import's transaction.
        session.execute(lock, {"owner": "worker-1"})
        session.rollback()
        out, err = importing.communicate(timeout=60)
        observer.execute(text("ALTER ROLE buffer RESET deadlock_timeout"))
        observer.commit()
    other.dispose()

    assert importing.returncode == 0, err
    assert json.loads(out) == {"read": 2, "not_read": 0, "added": 2, "replayed": 0, "refused": []}
    assert references(engine) == {"r1", "r2"}


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize("all_or_nothing", [True, False])
def test_import_is_retried_after_a_serialization_failure(
    engine: Engine, database_url: str, tmp_path: Path, all_or_nothing: bool
) -> None:
    """With REPEATABLE READ as the database's default, an earlier deposit costs no line either."""
    file = tmp_path / "earnings.csv"
    file.write_text(HEADER + ROWS)
    name = engine.url.database
    with engine.begin() as connection:
        connection.execute(
            text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        )
    with engine.connect() as session:
        deposit(session, owner="worker-2", amount="5", currency="PHP", reference="in-between", now=NOON)

        importing = start(
            *("hold", "import", str(file), "--json", *["--all-or-nothing"] * all_or_nothing),
            BUFFER_DATABASE_URL=database_url,
        )
        wait_until(lambda: waiting(engine) == 1 or importing.poll() is not None)
        session.commit()
        out, err = importing.communicate(timeout=60)

    assert importing.returncode == 0, err
    assert json.loads(out) == {"read": 2, "not_read": 0, "added": 2, "replayed": 0, "refused": []}
    assert references(engine) == {"r1", "r2"}
