"""`notifications drain`: what it sends, in whose language, and what it reports."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, text
from standardwebhooks import Webhook
from werkzeug import Request, Response

from buffer_pipeline_tests.support.builders import PAYEE, PAYER
from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add
from buffer_pipeline_tests.support.notification_commands import SECRET, endpoints, webhook
from buffer_pipeline_tests.support.processes import read_until, start_on


def test_drain_sends_and_reports(run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every waiting notification goes, signed, to every endpoint for its type. A second drain
    sends nothing.
    """
    endpoints(
        monkeypatch,
        webhook(backend, types=["PAYMENT_RELEASED"]),
        {"name": "app", "channel": "inbox"},
        {"name": "log", "channel": "log"},
    )
    hold_add(run, held_at=LONG_AGO)
    run("release")

    drained = run("notifications", "drain", "--json")
    again = run("notifications", "drain")
    listed = run("notifications", "list", "--json")

    assert drained.code == 0
    assert {name: drained.json[name] for name in ("sent", "retried", "dead", "waiting")} == {
        "sent": 5,
        "retried": 0,
        "dead": 0,
        "waiting": 0,
    }
    assert "notification 1 PAYMENT_PENDING to worker-17: hold 1, job job-8" in drained.err
    assert again.out == "Sent 0; 0 to be tried again, 0 dead.\n"
    assert sorted((row["endpoint"], row["type"]) for row in listed.json) == [
        ("app", "PAYMENT_PENDING"),
        ("app", "PAYMENT_RELEASED"),
        ("backend", "PAYMENT_RELEASED"),
        ("log", "PAYMENT_PENDING"),
        ("log", "PAYMENT_RELEASED"),
    ]
    (request, _), *more = backend.log
    assert more == []
    payload = Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))
    assert payload["type"] == "payment.released"
    assert payload["data"]["amount"] == "1250.50"


def test_messages_follow_the_contact_and_the_templates(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the contact's locale, with a folder's templates."""
    (tmp_path / "payment_pending.fil.txt.j2").write_text(
        "{% block title %}Kita mo: {{ amount }}{% endblock %}{% block text %}{{ release_date }}{% endblock %}"
    )
    monkeypatch.setenv("BUFFER_TEMPLATES", str(tmp_path))
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    run("contact", "set", PAYEE, "--locale", "fil_PH", "--time-zone", "Asia/Manila")
    hold_add(run, held_at=LONG_AGO)

    run("notifications", "drain")

    with engine.begin() as connection:
        row = connection.execute(text("SELECT title, body FROM buffer.inbox_message")).one()
    assert row == ("Kita mo: ₱1,250.50", "Enero 12, 2026, 8:00 AM (GMT+08:00)")


def test_payer_and_payee_get_different_messages(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books tell if the owner paid or earned, for payments and backjobs."""
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    hold_add(run, title="Fix kitchen faucet")
    run("backjob", "request", "--job", "job-8", "--by", "support-2", "--reason", "it leaks")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "indeed")

    drained = run("notifications", "drain", "--json")

    assert drained.json["waiting"] == 0
    with engine.begin() as connection:
        bodies = {
            (row.owner, row.type): row.body
            for row in connection.execute(text("SELECT owner, type, body FROM buffer.inbox_message"))
        }
    assert "You were refunded ₱1,250.50" in bodies[PAYER, "PAYMENT_REFUNDED"]
    assert "was refunded to the client" in bodies[PAYEE, "PAYMENT_REFUNDED"]
    assert "Your backjob on 'Fix kitchen faucet' was approved" in bodies[PAYER, "BACKJOB_APPROVED"]
    assert "'Fix kitchen faucet' was approved" in bodies[PAYEE, "BACKJOB_APPROVED"]
    assert (PAYER, "BACKJOB_RECEIVED") not in bodies


def test_team_members_are_notified_only_of_their_own_work(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner without a share of a refund is not notified of it. No worker reads another's title."""
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    hold_add(run, reference="a", title="Fix kitchen faucet")
    hold_add(run, reference="b", title="Paint the gate", payee="worker-18")
    run("backjob", "request", "--job", "job-8", "--by", "support-2", "--reason", "it leaks")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "indeed", "--amount", "0.01")

    run("notifications", "drain")

    with engine.begin() as connection:
        rows = connection.execute(text("SELECT owner, type, body, title FROM buffer.inbox_message")).all()
    bodies = {(row.owner, row.type): row.body for row in rows}
    assert {owner for owner, type_ in bodies if type_ == "PAYMENT_REFUNDED"} == {PAYEE, PAYER}
    for row in rows:
        own, others = "Fix kitchen faucet", "Paint the gate"
        if row.owner == PAYER:
            continue
        if row.owner == "worker-18":
            own, others = others, own
            assert "wallet" not in row.body
            assert "been refunded" not in row.body
        assert f"'{own}'" in row.body
        assert others not in row.body + row.title
    assert {owner for owner, type_ in bodies if type_ == "BACKJOB_APPROVED"} == {
        PAYEE,
        PAYER,
        "worker-18",
    }


def test_sigterm_ends_a_drain_after_the_current_message(
    run: Run, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message in progress is settled, others wait, and the exit code is 0."""
    arrived, may_answer = threading.Event(), threading.Event()

    def answer(_: Request) -> Response:
        arrived.set()
        assert may_answer.wait(30)
        return Response("")

    httpserver.expect_request("/notifications").respond_with_handler(answer)
    endpoints(monkeypatch, webhook(httpserver, concurrency=1))
    for number in (17, 18, 19):
        hold_add(run, payee=f"worker-{number}", reference=f"earning-{number}")

    command = [sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()"]
    with subprocess.Popen(
        [*command, "notifications", "drain", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert arrived.wait(60)
        process.send_signal(signal.SIGTERM)
        # It ends after the current message, however late it sees the signal.
        may_answer.set()
        out, _ = process.communicate(timeout=60)

    drained = json.loads(out)
    assert process.returncode == 0
    assert 1 <= drained["sent"] <= 3
    assert drained["sent"] + drained["waiting"] == 3
    assert len(httpserver.log) == drained["sent"]


def test_terminal_shows_the_progress_of_a_drain(
    run: Run, httpserver: HTTPServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent messages of all waiting ones, including those dispatched meanwhile."""
    may_answer = threading.Event()

    def answer(request: Request) -> Response:
        if "worker-19" in request.get_data(as_text=True):
            assert may_answer.wait(60)
        return Response("")

    httpserver.expect_request("/notifications").respond_with_handler(answer)
    endpoints(monkeypatch, webhook(httpserver, concurrency=1))
    for number in (17, 18, 19):
        hold_add(run, payee=f"worker-{number}", reference=f"earning-{number}")
    ours, theirs = pty.openpty()

    process = start_on(
        theirs,
        *("notifications", "drain", "--json"),
        TERM="xterm",
        BUFFER_DATABASE_URL=database_url,
        BUFFER_ENDPOINTS=os.environ["BUFFER_ENDPOINTS"],
    )
    os.close(theirs)
    read_until(ours, re.compile("drain .*2/3"))
    may_answer.set()
    out, _ = process.communicate(timeout=60)
    os.close(ours)

    assert process.returncode == 0
    assert json.loads(out)["sent"] == 3
