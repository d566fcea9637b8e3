"""Files that nobody would hand in: every good line is in, every other is named, nothing else is written."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.cli.hold_import import _read
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.inputs import parse_time, require_text
from buffer_pipeline.intake import CheckedEarning
from buffer_pipeline.legacy import import_legacy
from buffer_pipeline.legacy_export import read_export
from buffer_pipeline.money import AMOUNT_MINOR_MAX, format_amount, listed_places, parse_amount
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import hold
from buffer_pipeline_tests.builders import row_counts
from buffer_pipeline_tests.hostile import (
    ODD_CURRENCIES,
    amounts,
    cases,
    digest,
    numbers,
    run_command,
    texts,
    times,
)
from buffer_pipeline_tests.test_legacy import EXPORT, TAKEN_AT

HEADER: Final = [
    "reference",
    "job",
    "payee",
    "payer",
    "amount",
    "currency",
    "title",
    "held_at",
    "release_date",
]

# ---- single values


@cases(4_000)
@given(amount=amounts, currency=st.sampled_from(ODD_CURRENCIES))
def test_an_amount_is_exact_or_refused(amount: str, currency: str) -> None:
    """What is taken is written back with the same digits; nothing is rounded, cut or guessed."""
    try:
        minor = parse_amount(amount, currency, listed_places(currency))
    except InvalidInput as refusal:
        assert len(str(refusal)) < 400
        return

    assert 0 < minor <= AMOUNT_MINOR_MAX
    given_digits, places = amount.strip().lstrip("+"), listed_places(currency)
    assert given_digits.isascii()
    whole, _, fraction = given_digits.partition(".")
    assert not fraction[places:].strip("0")
    exact = (whole.lstrip("0") or "0") + (f".{fraction[:places].ljust(places, '0')}" if places else "")
    assert format_amount(minor, places) == exact


@cases(2_500)
@given(value=times)
def test_a_time_is_a_moment_or_refused(value: str) -> None:
    """What is taken comes back from its own text; a time without a zone is never taken."""
    try:
        moment = parse_time("held_at", value)
    except InvalidInput as refusal:
        assert str(refusal).startswith("held_at ")
        return

    assert parse_time("held_at", moment.isoformat()) == moment
    assert moment.utcoffset() is not None


@cases(1_000)
@given(value=texts)
def test_a_text_is_kept_or_refused(value: str) -> None:
    """What is taken can be stored and shown on one line."""
    try:
        taken = require_text("owner", value)
    except InvalidInput as refusal:
        assert str(refusal).startswith("owner")
        return

    assert taken == value
    assert len(taken.splitlines()) == 1
    assert b"\0" not in taken.encode()


# ---- hold import

good_lines: Final = st.builds(
    lambda number, amount: [
        f"good-{number}",
        "job-8",
        "worker-17",
        "client-3",
        f"{amount}.50",
        "PHP",
        "",
        "",
        "",
    ],
    st.integers(1, 40),
    st.just("12"),
)
odd_lines: Final = st.one_of(
    st.tuples(texts, texts, texts, texts, amounts, st.sampled_from(ODD_CURRENCIES), texts, times, times).map(
        list
    ),
    st.builds(
        lambda line, place, field: [*line[:place], field, *line[place + 1 :]],
        good_lines,
        st.integers(0, 8),
        st.one_of(texts, amounts, times),
    ),
    st.lists(texts, max_size=11),
)


def written(rows: list[list[str]]) -> bytes:
    """Return rows as CSV; what UTF-8 does not have is left out."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "ignore")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a file: lines good and odd under a header good or odd, and then, perhaps, its bytes broken."""
    header = list(HEADER)
    change = draw(st.sampled_from(("", "", "", "", "", "shuffled", "missing", "twice", "odd")))
    if change == "shuffled":
        header = draw(st.permutations(header))
    elif change == "missing":
        header.pop(draw(st.integers(0, 8)))
    elif change == "twice":
        header[draw(st.integers(0, 8))] = "job"
    elif change == "odd":
        header.append(draw(texts))
    content = written([header, *draw(st.lists(st.one_of(good_lines, odd_lines), max_size=6))])
    return draw(broken(content))


def broken(content: bytes) -> st.SearchStrategy[bytes]:
    """Return the content as it is, or with some of its bytes changed, left out, or in another encoding."""
    place = st.integers(0, max(len(content) - 1, 0))
    piece = st.sampled_from(
        (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc3", b'""', b";", b"\t")
    )
    inserted = st.builds(lambda at, what: content[:at] + what + content[at:], place, piece)
    return st.one_of(
        st.just(content),
        st.just(content),
        inserted,
        st.builds(lambda at: content[:at], place),
        st.builds(lambda at, size: content[:at] + content[at + size :], place, st.integers(1, 20)),
        st.sampled_from(
            (
                b"\xef\xbb\xbf" + content,
                content.replace(b"\r\n", b"\n"),
                content.replace(b",", b";"),
                content * 2,
            )
        ),
        st.sampled_from(("utf-16", "utf-32", "cp1252")).map(
            lambda encoding: content.decode("utf-8", "replace").encode(encoding, "replace")
        ),
        st.binary(max_size=200),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are written."""
    return tmp_path_factory.mktemp("import")


@cases(1_000)
@given(content=files())
def test_a_file_is_read_line_by_line_or_refused(folder: Path, content: bytes) -> None:
    """Each line is an earning or a refusal under its own number; what is not a table is refused whole."""
    file = folder / "read.csv"
    file.write_bytes(content)

    try:
        found = list(_read(file, {}))
    except (InvalidInput, UnicodeDecodeError):
        return

    lines = [line for line, _ in found]
    assert lines == sorted(set(lines))
    assert all(1 < line <= content.count(b"\n") + content.count(b"\r") + 1 for line in lines)
    assert all(isinstance(item, CheckedEarning | Refused) for _, item in found)


@pytest.fixture
def as_owner(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the books, with all that may be done to them."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)


@pytest.mark.usefixtures("as_owner")
@cases(200)
@given(content=files(), all_or_nothing=st.booleans())
def test_an_import_holds_every_good_line_and_nothing_else(
    engine: Engine, folder: Path, content: bytes, all_or_nothing: bool
) -> None:
    """Its figures add up, a second run adds nothing, and what it says is held is what the books have."""
    file = folder / "import.csv"
    file.write_bytes(content)
    before, holds_before = digest(engine), references(engine)

    first = run_command("hold", "import", str(file), "--json", *["--all-or-nothing"] * all_or_nothing)

    assert "Traceback" not in first.err
    document = json.loads(first.out)
    added = references(engine) - holds_before
    event(f"exit {first.code}")
    if "error" in document:
        assert first.code in {1, 2}
        assert digest(engine) == before
        return
    assert first.code == (1 if document["refused"] else 0)
    assert len(added) == document["added"]
    if all_or_nothing and document["refused"]:
        assert digest(engine) == before
    else:
        assert document["read"] == document["added"] + document["replayed"] + len(document["refused"])
    for refused in document["refused"]:
        assert refused["line"] > 1
        assert refused["reason"]
    again = json.loads(run_command("hold", "import", str(file), "--json").out)
    if not all_or_nothing:
        assert again["added"] == 0
        assert again["refused"] == document["refused"]


def references(engine: Engine) -> set[str]:
    """Return the references of all holds."""
    with engine.connect() as connection:
        return set(connection.scalars(select(hold.c.reference)))


@pytest.mark.usefixtures("as_owner")
def test_good_lines_among_bad_ones_are_all_held(engine: Engine, folder: Path) -> None:
    """Formulas, odd amounts and broken quotes refuse their own lines only."""
    good = [["=1+1", "job-8", "worker-17", "client-3", "12.50", "PHP", "=cmd|'/C calc'!A0", "", ""]]
    good += [[f"good-{n}", "job-8", "worker-17", "client-3", "12.50", "PHP", "", "", ""] for n in range(30)]
    bad = [[*good[1][:4], amount, *good[1][5:]] for amount in ("1e30", "NaN", "１２", "-0", "0.001", "")]
    rows = [HEADER]
    for number, line in enumerate(good):
        rows += [line, [f"bad-{number}", *bad[number % len(bad)][1:]]]
    file = folder / "mixed.csv"
    file.write_bytes(written(rows) + b'x,"y"z,a,b,1,PHP,,,\r\n')

    outcome = run_command("hold", "import", str(file), "--json")

    assert references(engine) == {line[0] for line in good}
    document = json.loads(outcome.out)
    assert [each["line"] for each in document["refused"]] == [
        *range(3, 2 * len(good) + 2, 2),
        2 * len(good) + 2,
    ]
    with engine.begin() as connection:
        assert reconcile(connection) == []


# ---- import-legacy

FILES: Final = ("accounts_accounts", "accounts_wallet", "accounts_transaction", "jobs", "job_disputes")


def table(name: str) -> list[list[str]]:
    """Return the rows of a file of the shipped export, the header first."""
    with (EXPORT / f"{name}.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


TABLES: Final = {name: table(name) for name in FILES}
Change = tuple[str, str, int, int, str]
changes: Final = st.tuples(
    st.sampled_from(FILES),
    st.sampled_from(
        ("cell", "cell", "cell", "cell", "row", "row twice", "column", "column twice", "short", "header")
    ),
    st.integers(0, 10_000),
    st.integers(0, 30),
    st.one_of(
        texts,
        amounts,
        times,
        numbers,
        st.sampled_from(
            (
                "PENDING",
                "COMPLETED",
                "CANCELLED",
                "PENDING_EARNING",
                "True",
                "true",
                "ADMIN_HOLD",
                "OPEN",
                "1",
            )
        ),
    ),
)


def changed(tables: dict[str, list[list[str]]], change: Change) -> dict[str, list[list[str]]]:
    """Return the tables with one thing about one of them changed."""
    name, how, row, column, value = change
    rows = [list(fields) for fields in tables[name]]
    if len(rows) < 2 or not rows[0]:
        return tables
    at, column = 1 + row % (len(rows) - 1), column % len(rows[0])
    if how == "cell" and rows[at]:
        rows[at][column % len(rows[at])] = value
    elif how == "row":
        rows.pop(at)
    elif how == "row twice":
        rows.append(list(rows[at]))
    elif how == "column":
        rows = [fields[:column] + fields[column + 1 :] for fields in rows]
    elif how == "column twice":
        rows = [[*fields, *fields[column : column + 1]] for fields in rows]
    elif how == "short":
        rows[at] = rows[at][:column]
    elif how == "header":
        rows[0][column] = value
    return {**tables, name: rows}


def write_export(folder: Path, tables: dict[str, list[list[str]]]) -> None:
    """Write the files that differ from the shipped ones; the others are there."""
    for name, rows in tables.items():
        if rows is not TABLES[name]:
            (folder / f"{name}.csv").write_bytes(written(rows))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped export."""
    return Path(shutil.copytree(EXPORT, tmp_path_factory.mktemp("legacy") / "export"))


def restore(export: Path) -> None:
    """Bring the copy back to what was shipped."""
    for name in FILES:
        (export / f"{name}.csv").unlink(missing_ok=True)
        shutil.copy(EXPORT / f"{name}.csv", export / f"{name}.csv")


@cases(200)
@given(mutations=st.lists(changes, min_size=1, max_size=4))
def test_a_changed_export_is_sorted_or_refused(export: Path, mutations: list[Change]) -> None:
    """Every row of it is sound or quarantined with a reason; a file that is not one is refused by name."""
    restore(export)
    tables = dict(TABLES)
    for change in mutations:
        tables = changed(tables, change)
    write_export(export, tables)

    try:
        found = read_export(export, currency="PHP", places=2)
    except InvalidInput as refusal:
        assert ".csv: " in str(refusal)
        return

    assert all(entry.reason and entry.row in found.rows for entry in found.quarantined)


@cases(40)
@given(mutations=st.lists(changes, min_size=1, max_size=3), strict=st.booleans())
def test_a_changed_export_comes_over_whole_or_not_at_all(
    connection: Connection, export: Path, mutations: list[Change], strict: bool
) -> None:
    """A refusal has written nothing; what came over keeps every invariant."""
    restore(export)
    tables = dict(TABLES)
    for change in mutations:
        tables = changed(tables, change)
    write_export(export, tables)
    before = row_counts(connection)

    with connection.begin_nested() as attempt:
        try:
            done = import_legacy(connection, export, now=TAKEN_AT, strict=strict)
        except Refused:
            assert row_counts(connection) == before
        else:
            assert not (strict and done.quarantined)
            assert row_counts(connection)["hold"] == done.holds
            assert reconcile(connection) == []
        attempt.rollback()


@cases(300)
@given(
    name=st.sampled_from(FILES),
    change=st.sampled_from(FILES).flatmap(lambda name: broken((EXPORT / f"{name}.csv").read_bytes()[:2_000])),
)
def test_a_file_of_other_bytes_is_refused_by_name(export: Path, name: str, change: bytes) -> None:
    """Cut off, in another encoding, or another file's: never more than a refusal or a quarantine."""
    restore(export)
    (export / f"{name}.csv").write_bytes(change)

    try:
        read_export(export, currency="PHP", places=2)
    except InvalidInput as refusal:
        assert len(str(refusal).splitlines()) == 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "empty", "loop", "device"])
def test_what_is_no_file_is_refused_by_name(
    connection: Connection, export: Path, name: str, what: str
) -> None:
    """Also a pipe that nobody writes into, and a device without an end; nothing is written."""
    restore(export)
    file = export / f"{name}.csv"
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "empty":
        file.touch()
    elif what == "loop":
        file.symlink_to(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    before = row_counts(connection)

    with pytest.raises(InvalidInput, match=f"{name}.csv"):
        import_legacy(connection, export, now=TAKEN_AT)

    assert row_counts(connection) == before
    if file.is_dir():
        file.rmdir()
