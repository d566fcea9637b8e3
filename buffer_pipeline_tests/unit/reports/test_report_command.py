"""`report`: a table, JSON, a page."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from stat import S_IMODE
from typing import Any

from sqlalchemy import Connection, Engine, event

from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import place_hold, row_counts
from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.daily_reports import release_at, write_into


def fill_yesterday(engine: Engine) -> date:
    """Add and release holds in two currencies yesterday; return that day."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    noon = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC)
    with engine.begin() as connection:
        for amount, currency in (("1250.50", "PHP"), ("30000", "JPY"), ("0.05", "PHP")):
            place_hold(connection, amount=amount, currency=currency, held_at=noon, release_date=noon)
        release_at(connection, noon + timedelta(minutes=5))
        # Today does not count, because it is not over.
        place_hold(connection, amount="7.00", held_at=noon + timedelta(days=1))
    return yesterday


def test_report_prints_a_table(run: Run, engine: Engine) -> None:
    """A line per figure, with the day, the mean, the change and the period."""
    yesterday = fill_yesterday(engine)

    result = run("report", "--days", "3")

    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    first_day = yesterday - timedelta(days=2)
    assert (
        lines[0]
        == f"{yesterday} compared with the 14 days before it; the period is {first_day} to {yesterday} (UTC)."
    )
    assert lines[1] == "currency figure day fortnight mean change period"
    assert "PHP amount released 1,250.55 0.00 – 1,250.55" in lines
    assert "JPY amount released 30,000 0 – 30,000" in lines
    assert "all currencies holds released 3 0.0 – 3" in lines


def test_report_has_exact_amounts_for_programs(run: Run, engine: Engine) -> None:
    """In JSON, amounts are text with the currency's decimal places, counts and seconds are numbers."""
    yesterday = fill_yesterday(engine)
    with engine.connect() as connection:
        before = row_counts(connection)

    document = run("report", "--json").json

    assert document["day"] == yesterday.isoformat()
    assert document["first_day"] == (yesterday - timedelta(days=29)).isoformat()
    assert document["html"] is None
    by_name = {(line["currency"], line["figure"]): line for line in document["figures"]}
    assert by_name["PHP", "released"] == {
        "currency": "PHP",
        "figure": "released",
        "day": "1250.55",
        "fortnight_mean": "0.00",
        "change_percent": None,
        "period": "1250.55",
    }
    assert by_name["JPY", "released"]["day"] == "30000"
    assert by_name[None, "lateness_median_seconds"]["day"] == 300.0
    assert by_name[None, "payees"]["day"] == 1
    assert (None, "released") not in by_name
    assert len(document["days"]) == 30 * 3
    (day,) = [row for row in document["days"] if (row["day"], row["currency"]) == (str(yesterday), "PHP")]
    assert day["released"] == "1250.55"
    assert day["buffered"] == "0.00"
    with engine.connect() as connection:
        assert row_counts(connection) == before


def test_report_says_when_its_day_is_not_yesterday(run: Run, engine: Engine) -> None:
    """While a transaction writes into yesterday, the day before is reported, with a remark."""
    yesterday = fill_yesterday(engine)
    with engine.connect() as writer:
        write_into(writer, datetime(yesterday.year, yesterday.month, yesterday.day, 23, tzinfo=UTC))

        table = run("report", "--days", "3")
        document = run("report", "--days", "3", "--json")

    remark = f"yesterday is not complete: a transaction still writes into {yesterday}"
    assert (table.code, document.code) == (0, 0)
    assert table.out.splitlines()[0] == remark
    assert table.out.splitlines()[1].startswith(f"{yesterday - timedelta(days=1)} compared with")
    assert document.json["day"] == (yesterday - timedelta(days=1)).isoformat()
    assert document.err == remark + "\n"
    assert run("report", "--json").err == ""


def test_report_refuses_while_the_past_is_written(run: Run, engine: Engine, tmp_path: Path) -> None:
    """A transaction that writes into an earlier day is named, and nothing is reported."""
    fill_yesterday(engine)
    file = tmp_path / "report.html"
    with engine.connect() as writer:
        write_into(writer, datetime(2024, 2, 29, 5, 30, tzinfo=UTC))

        result = run("report", "--html", str(file))

    assert (result.code, result.out) == (1, "")
    assert result.err == f"{HourInProgress(datetime(2024, 2, 29, 5, tzinfo=UTC))}\n"
    assert not file.exists()


def test_report_reads_one_snapshot(run: Run, engine: Engine) -> None:
    """A commit between two of its statements is in all figures or in none."""
    yesterday = fill_yesterday(engine)
    noon = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC)
    payees: list[str] = []

    def pay_somebody(connection: Connection, *_: Any) -> None:
        if connection.engine is not engine:
            payees.append(f"late-{len(payees)}")
            with engine.begin() as writer:
                place_hold(writer, payee=payees[-1], currency="SGD", held_at=noon, state=HoldState.RELEASED)

    event.listen(Engine, "before_cursor_execute", pay_somebody)
    try:
        document = run("report", "--json").json
    finally:
        event.remove(Engine, "before_cursor_execute", pay_somebody)

    day = {line["figure"]: line["day"] for line in document["figures"] if line["currency"] == "SGD"}
    assert day["holds_added"] == day["holds_released"] == day["holds_released_early"] == day["payees"]
    assert day["added"] == day["released"]
    assert day["buffered"] == "0.00"
    assert 0 < day["payees"] < len(payees), "nobody was paid between two statements"


def test_report_writes_a_page(run: Run, engine: Engine, tmp_path: Path) -> None:
    """The file is complete or absent. An older one is replaced, and no other file remains."""
    yesterday = fill_yesterday(engine)
    file, link = tmp_path / "report.html", tmp_path / "latest.html"
    file.write_text("yesterday's")
    link.symlink_to(file)

    result = run("report", "--days", "2", "--html", str(link), "--json")

    assert result.code == 0
    assert result.json["html"] == str(link)
    assert link.is_symlink()
    assert (
        f"<title>Payment buffer, {yesterday - timedelta(days=1)} to {yesterday}</title>" in file.read_text()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.html", "report.html"]


def test_page_keeps_the_permissions_of_its_file(run: Run, tmp_path: Path) -> None:
    """A new file gets the default permissions."""
    private, shared, new = (tmp_path / name for name in ("private.html", "shared.html", "new.html"))
    for file, mode in ((private, 0o600), (shared, 0o664)):
        file.touch()
        file.chmod(mode)

    umask = os.umask(0o027)
    try:
        codes = [run("report", "--html", str(file)).code for file in (private, shared, new)]
    finally:
        restored = os.umask(umask)

    assert codes == [0, 0, 0]
    assert [S_IMODE(file.stat().st_mode) for file in (private, shared, new)] == [0o600, 0o664, 0o640]
    assert restored == 0o027
    assert all("</html>" in file.read_text() for file in (private, shared, new))


def test_report_refuses_a_place_that_it_cannot_write_to(run: Run, tmp_path: Path) -> None:
    """A missing folder is named. Neither a folder nor a device is replaced by a file."""
    absent = tmp_path / "absent" / "report.html"

    results = [run("report", "--html", str(place)) for place in (absent, tmp_path, "/dev/null", "x" * 300)]

    assert [result.code for result in results] == [1, 1, 1, 1]
    assert results[0].err == f"--html {absent}: the folder {absent.parent} does not exist; create it first\n"
    assert results[1].err == f"--html {tmp_path}: exists and is not a file; name one, such as report.html\n"
    assert results[2].err == "--html /dev/null: exists and is not a file; name one, such as report.html\n"
    assert results[3].err == f"--html {'x' * 300}: File name too long\n"
    assert Path("/dev/null").is_char_device()


def test_report_days_have_bounds(run: Run) -> None:
    """From a day to a leap year. Other values are wrong usage."""
    codes = {days: run("report", "--days", days, "--json").code for days in ("0", "1", "366", "367", "-1")}

    assert codes == {"0": 2, "1": 0, "366": 0, "367": 2, "-1": 2}


def test_the_command_line_loads_no_frames_until_it_reports() -> None:
    """Every other command starts without importing pandas, pygal and Jinja2."""
    heavy = ("pandas", "pygal", "jinja2")
    code = f"import sys, buffer_pipeline.cli.app; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
