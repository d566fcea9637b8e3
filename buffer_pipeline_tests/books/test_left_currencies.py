"""Books with a currency that left ISO 4217's list, or has other places there: the hourly job and the
commands.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Connection, Engine, text
from werkzeug import Request, Response

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import database_clock
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.reports.daily import daily_report, render_page
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    LEFT,
    NOON,
    PAYEE,
    PAYER,
    bring_in,
    place_hold,
    state_of,
)
from buffer_pipeline_tests.support.commands import Result, Run
from buffer_pipeline_tests.support.legacy import EXPORT
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.report_runs import COUNTS, REPORT, count, figures, key_of
from buffer_pipeline_tests.support.runs import corrupt, delivered, outcomes, release, reported
from buffer_pipeline_tests.support.sensors import OVERDUE, STUCK, Sensor

# ---- the hourly job


@pytest.fixture
def webhook(
    httpserver: HTTPServer, environment: None, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The requests that the only endpoint, a webhook receiver in this process, got."""
    del environment
    sent: list[dict[str, Any]] = []

    def take(request: Request) -> Response:
        sent.append(request.get_json()["data"])
        return Response(status=204)

    httpserver.expect_request("/hook").respond_with_handler(take)
    endpoint = {
        "name": "backend",
        "channel": "webhook",
        "url": httpserver.url_for("/hook"),
        "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "allow_private": True,
    }
    monkeypatch.setenv("BUFFER_ENDPOINTS", json.dumps([endpoint]))
    return sent


@pytest.mark.parametrize("currency", LEFT)
def test_hold_in_an_unlisted_currency_is_released(
    engine: Engine,
    webhook: list[dict[str, Any]],
    lasting_instance: dg.DagsterInstance,
    currency: str,
) -> None:
    """The job releases it with six others, passes its checks, notifies all owners and reports the amounts."""
    with engine.begin() as connection:
        bring_in(connection, **{currency: 2})
        odd = place_hold(connection, currency=currency, amount="12.34")
        others = [
            place_hold(connection, payee=f"worker-{number}", job=f"job-{number}") for number in range(6)
        ]

    result = release(lasting_instance)

    assert result.success
    assert all(outcomes(result).values())
    figures_of_run = reported(result, "released_transactions")
    assert figures_of_run["holds_released"] == 7
    assert figures_of_run["amounts"] == f"12.34 {currency}, 6000.00 PHP"
    assert figures_of_run[f"amount_{currency}"] == 12.34
    with engine.connect() as connection:
        assert {state_of(connection, hold_id) for hold_id in (odd, *others)} == {HoldState.RELEASED}
        assert delivered(connection) == (14, 14)
    released = [message for message in webhook if message["hold_id"] == odd]
    assert [(message["amount"], message["currency"]) for message in released] == [("12.34", currency)] * 2
    assert "12.34" in released[1]["message"]["text"]


@pytest.mark.usefixtures("environment")
def test_unlisted_currency_is_counted_and_reported(
    engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """The hourly counts and the daily report show its amounts with the books' decimal places."""
    with engine.begin() as connection:
        bring_in(connection, BGN=2, JPY=1)
        hour = hour_of(database_clock(connection)) - 24 * HOUR
        place_hold(connection, state=HoldState.RELEASED, held_at=hour, currency="BGN", amount="12.34")
        place_hold(connection, state=HoldState.RELEASED, held_at=hour, currency="JPY", amount="100.5")
        day = hour.date()

    counted = count(lasting_instance, hour, hour)
    reported_day = defs.resolve_job_def("report_days").execute_in_process(
        instance=lasting_instance, partition_key=day.isoformat()
    )

    assert outcomes(counted) == {"counts_equal_transactions": True}
    of_hour = figures(counted, COUNTS)[key_of(hour)]
    assert of_hour["amounts"] == "12.34 BGN, 100.5 JPY"
    assert (of_hour["amount_BGN"], of_hour["amount_JPY"]) == (12.34, 100.5)
    assert reported_day.success
    assert set(figures(reported_day, REPORT)) == {day.isoformat()}
    with engine.connect() as connection:
        report = daily_report(connection, day=day)
    added = {figure.currency: figure for figure in report.figures if figure.name == "added_minor"}
    assert added["BGN"].texts()["day"] == "12.34"
    assert added["JPY"].document()["day"] == "100.5"
    assert "12.34" in render_page(report, made_at=NOON)


@pytest.mark.usefixtures("this_hour")
def test_alerts_have_amounts_in_an_unlisted_currency(
    engine: Engine, books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """Both sensors report the hold, with the books' decimal places."""
    with engine.begin() as connection:
        bring_in(connection, BGN=2, JPY=1)
        place_hold(connection, currency="BGN", amount="12.34")
        place_hold(connection, currency="JPY", amount="100.5", state=HoldState.FROZEN)
    alerts = Alerts(urls=(receiver.url,), dagster_url="https://dagster.example.com")

    for name in (OVERDUE, STUCK):
        Sensor(name, lasting_instance, books=books_of, alerts=alerts).tick()

    overdue, stuck = receiver.got
    assert overdue[0].endswith("not released: 12.34 BGN")
    assert ", 12.34 BGN, due since" in overdue[1]
    assert stuck[0].endswith("72 hours: 100.5 JPY")
    assert ", 100.5 JPY, frozen since" in stuck[1]


# ---- the commands


def _json(result: Result) -> Any:
    assert result.code == 0, result.err
    return result.json


@pytest.fixture
def leva(engine: Engine) -> int:
    """A due hold of 12.34 BGN and a balance of 5.60 BGN. BGN is in no list."""
    with engine.begin() as connection:
        bring_in(connection, BGN=2)
        hold_id = place_hold(connection, currency="BGN", amount="12.34")
        deposit(connection, owner=PAYEE, amount="5.60", currency="BGN", reference="in", now=NOON)
    return hold_id


def test_commands_work_with_an_unlisted_currency(run: Run, leva: int, tmp_path: Path) -> None:
    """Lists, a wallet, its statement, a withdrawal, an import, a report, a proof and a release."""
    listed = _json(run("hold", "list", "--json"))
    shown = _json(run("hold", "show", str(leva), "--json"))
    file = tmp_path / "earnings.csv"
    file.write_text(
        "reference,job,payee,payer,amount,currency\nnext,job-9,worker-18,client-3,0.05,BGN\n",
        encoding="utf-8",
    )
    imported = _json(run("hold", "import", str(file), "--json"))
    withdrawn = _json(
        run(
            "wallet", "withdraw", PAYEE, "--amount", "0.60", "--currency", "BGN", "--reference", "o", "--json"
        )
    )  # fmt: skip
    frozen = run("freeze", str(leva), "--kind", "risk", "--by", ADMIN, "--reason", "a look")
    stuck = _json(run("stuck", "--older-than", "0m", "--json"))
    run("unfreeze", "1", "--by", ADMIN, "--reason", "cleared")
    dry = _json(run("release", "--dry-run", "--json"))
    released = run("release", "--verbose")
    wallet = _json(run("wallet", "show", PAYEE, "--json"))
    statement = _json(run("wallet", "statement", PAYEE, "--json"))
    report = _json(run("report", "--json"))
    proof = _json(run("reconcile", "--json"))

    assert (listed[0]["amount"], listed[0]["currency"]) == ("12.34", "BGN")
    assert shown["transactions"][0]["amount"] == "12.34"
    assert (imported["added"], imported["refused"]) == (1, [])
    assert withdrawn["balance"] == "5.00"
    assert frozen.code == 0
    assert stuck[0]["amount"] == "12.34"
    assert dry["amounts"] == {"BGN": "12.34"}
    assert "12.34 BGN to worker-17" in released.out
    assert "Released 1 payment, 12.34 BGN" in released.out
    assert wallet == [
        {"owner": PAYEE, "currency": "BGN", "balance": "17.34", "pending_earnings": "0.00", "debt": "0.00"}
    ]
    assert statement[-1]["balance_after"] == "17.34"
    assert report["days"] is not None
    assert proof["ok"]


def test_decisions_by_hand_work_with_an_unlisted_currency(run: Run, engine: Engine) -> None:
    """Early release and backjob commands print the books' decimal places."""
    with engine.begin() as connection:
        bring_in(connection, HRK=2)
        now = database_clock(connection)
        place_hold(connection, currency="HRK", amount="10.00", held_at=now)
        early = place_hold(connection, currency="HRK", amount="1.25", held_at=now, job="job-9")

    requested = _json(run("backjob", "request", "--job", JOB, "--by", PAYER, "--reason", "leaks", "--json"))
    approved = _json(
        run(
            "backjob", "approve", "1", "--by", ADMIN, "--reason", "a part", "--amount", "4.50", "--json"
        )
    )  # fmt: skip
    released = _json(
        run("release-now", "--hold", str(early), "--by", PAYER, "--reason", "well done", "--json")
    )

    assert requested["holds"][0]["amount"] == "10.00"
    assert approved["holds"][0]["refunded"] == "4.50"
    assert released["amounts"] == {"HRK": "1.25"}


def test_import_uses_the_decimal_places_of_the_books(run: Run, engine: Engine, tmp_path: Path) -> None:
    """Even if the list has other places, or does not have the currency."""
    with engine.begin() as connection:
        bring_in(connection, PHP=3, ANG=2)
    file = tmp_path / "earnings.csv"
    file.write_text(
        "reference,job,payee,payer,amount,currency\n"
        "a,job-1,worker-17,client-3,1.234,PHP\nb,job-1,worker-17,client-3,1.25,ANG\n"
        "c,job-1,worker-17,client-3,1.25,BGN\nd,job-1,worker-17,client-3,1.234,KWD\n",
        encoding="utf-8",
    )

    imported = run("hold", "import", str(file), "--json").json

    assert imported["added"] == 3
    assert [(row["line"], "BGN" in row["reason"]) for row in imported["refused"]] == [(4, True)]
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT amount_minor FROM buffer.hold ORDER BY reference")).scalars()
        assert list(rows) == [1_234, 125, 1_234]
        assert reconcile(connection) == []


def test_reconcile_reports_rows_in_an_unknown_currency(run: Run, leva: int, superuser_url: str) -> None:
    """Rows in a currency that the books lack are reported in minor units, labelled as such."""
    del leva
    corrupt(superuser_url, "UPDATE buffer.transaction SET currency = 'QQQ' WHERE type = 'DEPOSIT'")

    found = run("reconcile", "--json")

    assert found.code == 1
    (rows_of_balance,) = (
        each["rows"] for each in found.json["violations"] if each["invariant"] == "books_balance"
    )
    rows = {row["currency"]: row for row in rows_of_balance}
    assert rows["QQQ"]["transactions_minor"] == 560
    assert rows["BGN"]["wallets"] == "17.94"


def test_legacy_import_uses_the_decimal_places_of_the_books(connection: Connection) -> None:
    """`import-legacy` reads and writes amounts with the books' decimal places."""
    bring_in(connection, BGN=2)

    done = import_legacy(connection, EXPORT, now=NOON + timedelta(days=365), currency="BGN")

    assert done.holds > 0
    assert reconcile(connection) == []
    assert places_of(connection) == {"BGN": 2}
