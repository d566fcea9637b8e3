"""Broken files of earnings: every good line is imported, every other one is named."""

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.cli.hold_import import _read
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.inputs import parse_time, require_text
from buffer_pipeline.intake import CheckedEarning
from buffer_pipeline.money import AMOUNT_MINOR_MAX, format_amount, listed_places, parse_amount
from buffer_pipeline.tables import hold
from buffer_pipeline_tests.support.hostile import (
    ODD_CURRENCIES,
    amounts,
    cases,
    digest,
    run_command,
    texts,
    times,
)
from buffer_pipeline_tests.support.hostile_files import broken, written

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
    """An accepted amount is written back with the same digits."""
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
    """An accepted time round-trips through its text. A time without a zone is refused."""
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
    """An accepted text can be stored and shown on one line."""
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


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a file: good and odd lines under a good or odd header, possibly with broken bytes."""
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files."""
    return tmp_path_factory.mktemp("import")


@cases(1_000)
@given(content=files())
def test_a_file_is_read_line_by_line_or_refused(folder: Path, content: bytes) -> None:
    """Each line is an earning or a refusal with its line number. A file that is no table is refused whole."""
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
    """Settings for the books, with the owner's login."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url)


@pytest.mark.usefixtures("as_owner")
@cases(200)
@given(content=files(), all_or_nothing=st.booleans())
def test_an_import_holds_every_good_line_and_nothing_else(
    engine: Engine, folder: Path, content: bytes, all_or_nothing: bool
) -> None:
    """Its figures add up, a second run adds nothing, and the books have exactly the reported holds."""
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
    """Formulas, odd amounts and broken quotes refuse only their own lines."""
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
