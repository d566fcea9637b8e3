"""Broken exports: sound rows are imported, all others are named."""

import csv
import os
import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.legacy.export import read_export
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline_tests.support.builders import row_counts
from buffer_pipeline_tests.support.hostile import amounts, cases, numbers, texts, times
from buffer_pipeline_tests.support.hostile_files import broken, written
from buffer_pipeline_tests.support.legacy import EXPORT, TAKEN_AT

FILES: Final = ("accounts_accounts", "accounts_wallet", "accounts_transaction", "jobs", "job_disputes")


def table(name: str) -> list[list[str]]:
    """Return the rows of a file of the shipped export, beginning with the header."""
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
    """Return the tables with one change in one of them."""
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
    """Write the files that differ from the shipped ones; the others exist."""
    for name, rows in tables.items():
        if rows is not TABLES[name]:
            (folder / f"{name}.csv").write_bytes(written(rows))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped export."""
    return Path(shutil.copytree(EXPORT, tmp_path_factory.mktemp("legacy") / "export"))


def restore(export: Path) -> None:
    """Restore the shipped files of the copy."""
    for name in FILES:
        (export / f"{name}.csv").unlink(missing_ok=True)
        shutil.copy(EXPORT / f"{name}.csv", export / f"{name}.csv")


@cases(200)
@given(mutations=st.lists(changes, min_size=1, max_size=4))
def test_a_changed_export_is_sorted_or_refused(export: Path, mutations: list[Change]) -> None:
    """Every row is sound or quarantined with a reason. An unreadable file is refused by name."""
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
def test_a_changed_export_is_imported_whole_or_not_at_all(
    connection: Connection, export: Path, mutations: list[Change], strict: bool
) -> None:
    """A refusal writes nothing, and an import keeps every invariant."""
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
def test_file_with_other_bytes_is_refused_or_quarantined(export: Path, name: str, change: bytes) -> None:
    """Truncated, in another encoding, or another file."""
    restore(export)
    (export / f"{name}.csv").write_bytes(change)

    try:
        read_export(export, currency="PHP", places=2)
    except InvalidInput as refusal:
        assert len(str(refusal).splitlines()) == 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "empty", "loop", "device"])
def test_path_that_is_no_file_is_refused_by_name(
    connection: Connection, export: Path, name: str, what: str
) -> None:
    """Including a pipe without a writer and an endless device. Nothing is written."""
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
