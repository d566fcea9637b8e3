"""`hold import`: good lines are added, bad ones reported."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from buffer_pipeline_tests.support.commands import Run, rows_in_books

CSV_HEADER = "reference,job,payee,payer,amount,currency,title,held_at,release_date\n"


def test_import_takes_the_good_lines_and_reports_the_bad(run: Run, tmp_path: Path) -> None:
    """Bad lines are reported with line number and reason. A second import replays the good ones."""
    file = tmp_path / "earnings.csv"
    file.write_text(
        CSV_HEADER
        + "a,job-1,worker-1,client-1,10.00,PHP,Fix,,\n"
        + "b,job-1,worker-2,client-1,-1,PHP,Fix,,\n"
        + "c,job-1,worker-2,client-1\n"
        + 'd,job-2,worker-2,client-1,5,PHP,"Two\nlines? no",,\n'
        + "e,job-2,worker-2,client-1,5,PHP,Ünïcode 🚰,2026-01-05T00:00:00Z,2026-01-06T00:00:00Z\n"
        + "f,job-2,worker-2,client-1,5,PHP,Fix,2026-01-05,\n",
        encoding="utf-8",
    )

    first = run("hold", "import", str(file), "--json")
    second = run("hold", "import", str(file), "--json")

    assert first.code == 1
    assert (first.json["read"], first.json["added"], first.json["replayed"]) == (6, 2, 0)
    assert [row["line"] for row in first.json["refused"]] == [3, 4, 5, 8]
    assert "amount -1" in first.json["refused"][0]["reason"]
    assert "4 fields" in first.json["refused"][1]["reason"]
    assert "title" in first.json["refused"][2]["reason"]
    assert "held_at" in first.json["refused"][3]["reason"]
    assert (second.json["added"], second.json["replayed"]) == (0, 2)


def test_import_spans_many_transactions(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with more lines than a transaction takes is read to its end, with correct line numbers."""
    monkeypatch.setattr("buffer_pipeline.cli.hold_import.EARNINGS_PER_TRANSACTION", 2)
    file = tmp_path / "earnings.csv"
    rows = [f"r{number},job-1,worker-1,client-1,{number},PHP,,,\n" for number in (1, 2, 3, 0, 5, 0, 7)]
    file.write_text(CSV_HEADER + "".join(rows) + "r1,job-1,worker-1,client-1,1,PHP,,,\n")

    imported = run("hold", "import", str(file), "--json")

    assert (imported.json["read"], imported.json["added"], imported.json["replayed"]) == (8, 5, 1)
    assert [row["line"] for row in imported.json["refused"]] == [5, 7]


def test_import_holds_the_first_of_two_lines_with_a_reference(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent transactions do not race for a reference, nor deadlock."""
    monkeypatch.setattr("buffer_pipeline.cli.hold_import.EARNINGS_PER_TRANSACTION", 2)
    file = tmp_path / "earnings.csv"
    pairs = [(f"r{number}", f"s{number}") for number in range(50)]
    rows = [
        f"{reference},job-1,worker-1,client-1,{amount},PHP,,,\n"
        for first, second in pairs
        for reference, amount in ((first, 1), (second, 1), (second, 2), (first, 2))
    ]
    file.write_text(CSV_HEADER + "".join(rows))

    imported = run("hold", "import", str(file), "--json")

    assert (imported.json["read"], imported.json["added"]) == (200, 100)
    later = [line for pair in range(50) for line in (4 * pair + 4, 4 * pair + 5)]
    assert [row["line"] for row in imported.json["refused"]] == later


def test_import_names_the_line_where_a_quote_was_opened(run: Run, tmp_path: Path) -> None:
    """An unclosed quote includes the lines after it, and the report names its line."""
    file = tmp_path / "earnings.csv"
    rows = [
        f"q{number},job-1,worker-1,client-1,1,PHP,{title},,\n"
        for number, title in enumerate(["a", '"b', "c"])
    ]
    file.write_text(CSV_HEADER + "".join(rows))

    imported = run("hold", "import", str(file), "--json")

    assert (imported.code, imported.json["added"]) == (1, 1)
    assert [row["line"] for row in imported.json["refused"]] == [3]
    assert imported.json["refused"][0]["reason"].endswith("line 4 was not read")


def test_import_all_or_nothing(run: Run, engine: Engine, tmp_path: Path) -> None:
    """One bad line refuses the file. A good file is imported with exit code 0."""
    bad, good = tmp_path / "bad.csv", tmp_path / "good.csv"
    good.write_text(CSV_HEADER + "a,job-1,worker-1,client-1,10.00,PHP,Fix,,\n")
    bad.write_text(good.read_text() + "b,job-1,worker-2,client-1,x,PHP,Fix,,\n")
    before = rows_in_books(engine)

    refused = run("hold", "import", str(bad), "--all-or-nothing", "--json")
    unchanged = rows_in_books(engine)
    taken = run("hold", "import", str(good), "--all-or-nothing", "--json")

    assert refused.code == 1
    assert refused.json["added"] == 0
    assert [row["line"] for row in refused.json["refused"]] == [3]
    assert unchanged == before
    assert (taken.code, taken.json["added"]) == (0, 1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"reference,job,payee,payer,amount\nr,j,w,c,1\n", "currency"),
        (CSV_HEADER.replace("title", "tittle").encode(), "tittle"),
        (CSV_HEADER.encode() + "a,job-1,worker-1,client-1,1,PHP,Fün,,\n".encode("latin-1"), "UTF-8"),
        (b"", "reference"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    run: Run, engine: Engine, tmp_path: Path, content: bytes, named: str
) -> None:
    """For a missing or unknown column or a wrong encoding, before anything is written."""
    file = tmp_path / "earnings.csv"
    file.write_bytes(content)
    before = rows_in_books(engine)

    refused = run("hold", "import", str(file))

    assert refused.code == 1
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert rows_in_books(engine) == before
