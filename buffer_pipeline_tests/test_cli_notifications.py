"""`contact …` and `notifications …` on the command line."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, text
from standardwebhooks import Webhook
from werkzeug import Request, Response

from buffer_pipeline.cli.notifications import Type
from buffer_pipeline.messages import TYPES
from buffer_pipeline_tests.builders import PAYEE, PAYER
from buffer_pipeline_tests.test_cli import LONG_AGO, Result, Run, hold_add, run
from buffer_pipeline_tests.test_processes import read_until, start_on

__all__ = ["run"]  # The fixture.

SECRET: Final = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def receiver(httpserver: HTTPServer) -> HTTPServer:
    """A backend that takes notifications."""
    httpserver.expect_request("/notifications", method="POST").respond_with_data("")
    return httpserver


def url_of(receiver: HTTPServer) -> str:
    """Return where it takes them."""
    return receiver.url_for("/notifications")


def endpoints(monkeypatch: pytest.MonkeyPatch, *configured: dict[str, Any]) -> None:
    """Set BUFFER_ENDPOINTS."""
    monkeypatch.setenv("BUFFER_ENDPOINTS", json.dumps(configured))


def webhook(receiver: HTTPServer, **options: Any) -> dict[str, Any]:
    """Return the endpoint `backend`."""
    return {
        "name": "backend",
        "channel": "webhook",
        "url": url_of(receiver),
        "secrets": [SECRET],
        "allow_private": True,
        **options,
    }


def give_up_on(run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Have a notification refused for good by the receiver, which then takes everything again."""
    receiver.clear_all_handlers()
    receiver.expect_request("/notifications").respond_with_data("no such route", status=404)
    endpoints(monkeypatch, webhook(receiver))
    drained = run("notifications", "drain", "--json")
    receiver.clear_all_handlers()
    receiver.expect_request("/notifications").respond_with_data("")
    return drained


# ---- contacts


def test_a_contact_is_changed_where_it_is_given(run: Run) -> None:
    """What a command leaves out stays; an empty text forgets it."""
    first = run("contact", "set", PAYEE, "--locale", "fil_PH", "--email", "w17@example.com", "--json")
    second = run("contact", "set", PAYEE, "--time-zone", "Asia/Manila", "--locale", "", "--json")
    shown = run("contact", "show", PAYEE, "--json")

    assert first.json == {"owner": PAYEE, "locale": "fil_PH", "time_zone": None, "email": "w17@example.com"}
    assert second.json == shown.json
    assert shown.json == {
        "owner": PAYEE,
        "locale": None,
        "time_zone": "Asia/Manila",
        "email": "w17@example.com",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("contact", "show", PAYEE), 1, "does not exist"),
        (("contact", "set", PAYEE), 2, "--locale"),
        (("contact", "set", PAYEE, "--email", "w17"), 1, "email 'w17'"),
        (("contact", "set", PAYEE, "--locale", "xx"), 1, "locale 'xx'"),
        (("notifications", "replay"), 2, "--id"),
        (("notifications", "replay", "--all", "--id", "1"), 2, "--id"),
        (("notifications", "replay", "--since", "yesterday"), 1, "since"),
        (
            ("notifications", "replay", "--since", "2026-11-18T00:00Z", "--until", "2026-11-17T00:00Z"),
            1,
            "until",
        ),
        (("notifications", "replay", "--id", "0"), 1, "delivery 0"),
        (("notifications", "list", "--type", "PAYMENT_LOST"), 2, "PAYMENT_LOST"),
        (("notifications", "list", "--limit", "0"), 2, "limit"),
        (("notifications", "preview", "PAYMENT_LOST"), 2, "PAYMENT_LOST"),
        (("notifications", "preview", "PAYMENT_RELEASED", "--locale", "xx"), 1, "locale 'xx'"),
        (("notifications", "preview", "PAYMENT_RELEASED", "--time-zone", "Mars/Base"), 1, "time_zone"),
        (("notifications", "test-webhook", "ftp://example.com"), 1, "url"),
        (("notifications", "test-webhook", "http://127.0.0.1:1/"), 1, "allow_private"),
        (("notifications", "test-webhook", "https://example.com", "--secret", "hunter2"), 1, "secrets"),
    ],
)
def test_refusals_are_one_line(run: Run, arguments: tuple[str, ...], code: int, named: str) -> None:
    """Exit 2 for wrong usage, 1 for a refusal; one line that names the thing and no secret."""
    refused = run(*arguments)

    assert refused.code == code
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert "hunter2" not in refused.err


# ---- drain, list, replay


def test_a_drain_sends_and_says_what_became_of_it(
    run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the books owe goes to every endpoint that takes the type, signed; again, there is nothing."""
    endpoints(
        monkeypatch,
        webhook(receiver, types=["PAYMENT_RELEASED"]),
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
    assert again.out == "Sent 0; to be tried again 0, given up 0.\n"
    assert sorted((row["endpoint"], row["type"]) for row in listed.json) == [
        ("app", "PAYMENT_PENDING"),
        ("app", "PAYMENT_RELEASED"),
        ("backend", "PAYMENT_RELEASED"),
        ("log", "PAYMENT_PENDING"),
        ("log", "PAYMENT_RELEASED"),
    ]
    (request, _), *more = receiver.log
    assert more == []
    payload = Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))
    assert payload["type"] == "payment.released"
    assert payload["data"]["amount"] == "1250.50"


def test_words_follow_the_contact_and_the_folder(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A contact's locale and a folder of templates are what the drain speaks by."""
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


def test_both_sides_of_a_refund_read_their_own_words(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an owner paid or earned comes from the books, for payments and for backjobs."""
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


def test_everybody_of_a_backjob_reads_of_their_own_work_and_refund(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose share of an approval is nothing is told of no refund; no worker reads another's title."""
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    hold_add(run, reference="a", title="Fix kitchen faucet")
    hold_add(run, reference="b", title="Paint the gate", payee="worker-18")
    run("backjob", "request", "--job", "job-8", "--by", "support-2", "--reason", "it leaks")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "indeed", "--amount", "0.01")

    run("notifications", "drain")

    with engine.begin() as connection:
        rows = connection.execute(text("SELECT owner, type, body, title FROM buffer.inbox_message")).all()
    told = {(row.owner, row.type): row.body for row in rows}
    assert {owner for owner, type_ in told if type_ == "PAYMENT_REFUNDED"} == {PAYEE, PAYER}
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
    assert {owner for owner, type_ in told if type_ == "BACKJOB_APPROVED"} == {
        PAYEE,
        PAYER,
        "worker-18",
    }


def test_what_was_given_up_is_listed_and_replayed_by_id(
    run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter has its reason; replayed, it waits and arrives with the same id."""
    hold_add(run)
    drained = give_up_on(run, receiver, monkeypatch)

    dead = run("notifications", "list", "--state", "DEAD", "--owner", PAYEE, "--json")
    delivery_id = str(dead.json[0]["delivery_id"])
    replayed = run("notifications", "replay", "--id", delivery_id, "--json")
    again = run("notifications", "replay", "--id", delivery_id)
    sent = run("notifications", "drain", "--json")

    assert drained.json["dead"] == 1
    assert (len(dead.json), dead.json[0]["endpoint"], dead.json[0]["attempts"]) == (1, "backend", 1)
    assert "404" in dead.json[0]["reason"]
    assert replayed.json == {"replayed": 1, "delivery_ids": [int(delivery_id)]}
    assert f"left as they are: {delivery_id}." in again.out
    assert sent.json["sent"] == 1
    first, second = [request.headers["webhook-id"] for request, _ in receiver.log]
    assert first == second == "ntf_1"


def test_replay_by_time_range(run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was given up inside the range, and at the endpoint, waits again."""
    hold_add(run)
    give_up_on(run, receiver, monkeypatch)

    def replayed(*arguments: str) -> int:
        count: int = run("notifications", "replay", *arguments, "--json").json["replayed"]
        return count

    assert replayed("--until", LONG_AGO) == 0
    assert replayed("--since", "2999-01-01T00:00Z") == 0
    assert replayed("--since", LONG_AGO, "--endpoint", "other") == 0
    assert replayed("--since", LONG_AGO, "--endpoint", "backend") == 1
    assert replayed("--all") == 0


def test_list_filters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each filter narrows the list, newest first; a page begins behind the one before."""
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    hold_add(run, reference="a", held_at=LONG_AGO)
    hold_add(run, reference="b", payee="worker-18")
    run("release")
    run("notifications", "drain")

    def found(*arguments: str) -> list[int]:
        return [row["notification_id"] for row in run("notifications", "list", *arguments, "--json").json]

    assert found() == [3, 2, 1]
    assert found("--owner", "worker-18") == [2]
    assert found("--type", "PAYMENT_RELEASED") == [3]
    assert found("--state", "DELIVERED", "--limit", "1") == [3]
    assert found("--state", "WAITING") == []
    assert found("--endpoint", "other") == []
    first = run("notifications", "list", "--limit", "2", "--json").json
    assert found("--before", str(first[-1]["delivery_id"])) == [1]


def test_what_is_not_dispatched_is_listed_as_waiting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first drain too, an operator sees what is owed; of an endpoint it is not yet."""
    endpoints(monkeypatch, {"name": "app", "channel": "inbox"})
    hold_add(run, reference="a")
    run("notifications", "drain")
    hold_add(run, reference="b", payee="worker-18")

    def found(*arguments: str) -> list[tuple[int, str, str]]:
        rows = run("notifications", "list", *arguments, "--json").json
        return [(row["notification_id"], row["endpoint"], row["state"]) for row in rows]

    assert found() == [(2, "", "WAITING"), (1, "app", "DELIVERED")]
    assert found("--limit", "1") == found("--state", "WAITING") == [(2, "", "WAITING")]
    assert found("--owner", "worker-18") == [(2, "", "WAITING")]
    assert found("--owner", PAYEE) == found("--endpoint", "app") == [(1, "app", "DELIVERED")]
    assert found("--type", "PAYMENT_RELEASED") == found("--state", "DEAD") == []
    assert "not dispatched yet" in run("notifications", "list").out


def test_sigterm_ends_a_drain_behind_what_is_under_way(
    run: Run, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the receiver has begun to take is settled, what is not begun waits, and the exit is in order."""
    arrived, may_answer = threading.Event(), threading.Event()

    def answer(_: Request) -> Response:
        arrived.set()
        assert may_answer.wait(30)
        return Response("")

    httpserver.expect_request("/notifications").respond_with_handler(answer)
    endpoints(monkeypatch, webhook(httpserver, concurrency=1))
    for number in (17, 18, 19):
        hold_add(run, payee=f"worker-{number}", reference=f"earning-{number}")

    command = [sys.executable, "-c", "from buffer_pipeline.cli import main; main()"]
    with subprocess.Popen(
        [*command, "notifications", "drain", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert arrived.wait(60)
        process.send_signal(signal.SIGTERM)
        # It ends behind the message that is under way, however late the signal is seen.
        may_answer.set()
        out, _ = process.communicate(timeout=60)

    drained = json.loads(out)
    assert process.returncode == 0
    assert 1 <= drained["sent"] <= 3
    assert drained["sent"] + drained["waiting"] == 3
    assert len(httpserver.log) == drained["sent"]


def test_a_terminal_shows_how_far_a_drain_is(
    run: Run, httpserver: HTTPServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the messages that wait, those that are dispatched meanwhile too, it says how many are through."""
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


# ---- preview


def test_the_types_of_the_command_line_are_those_that_have_words() -> None:
    """One vocabulary."""
    assert tuple(Type) == TYPES


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_is_previewed_in_every_channel(run: Run, type_: str) -> None:
    """Each channel shows what it would send, configured or not, to each reader; nothing is sent."""
    previewed = run("notifications", "preview", type_, "--json")

    assert previewed.code == 0
    readers = {row["to_payer"] for row in previewed.json}
    for reader in readers:
        channels = [row["channel"] for row in previewed.json if row["to_payer"] is reader]
        assert channels == ["log", "inbox", "email", "webhook"]
    assert len(readers) == (2 if type_ in {"PAYMENT_REFUNDED", "BACKJOB_REJECTED", "BACKJOB_APPROVED"} else 1)


def test_a_preview_is_in_the_readers_words(
    run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locale and zone can be chosen; an endpoint shows under its name, and one that takes no such type not:
    its channel is shown by a made-up endpoint."""
    endpoints(
        monkeypatch,
        webhook(receiver),
        {"name": "app", "channel": "inbox", "types": ["PAYMENT_RELEASED"]},
    )

    previewed = run(
        "notifications", "preview", "PAYMENT_PENDING", "--locale", "de_DE", "--time-zone", "Europe/Berlin"
    )

    assert "--- backend (webhook), to the payee ---" in previewed.out
    assert "9. März 2026, 13:00 (GMT+01:00)" in previewed.out
    assert "--- inbox (inbox), to the payee ---" in previewed.out
    assert "--- app (" not in previewed.out
    assert "--- log (log)" in previewed.out
    assert "--- email (email)" in previewed.out
    assert SECRET not in previewed.out
    assert receiver.log == []


def test_a_webhooks_preview_is_the_request_as_it_is_sent(
    run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headers are there, and the signature is that of the body below them."""
    endpoints(monkeypatch, webhook(receiver))

    previewed = run("notifications", "preview", "BACKJOB_RECEIVED", "--json")

    (shown,) = [row["text"] for row in previewed.json if row["endpoint"] == "backend"]
    head, body = shown.split("\n\n")
    request, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    assert request == f"POST {url_of(receiver)}"
    assert headers["webhook-id"] == "ntf_1"
    payload = Webhook(SECRET).verify(body, headers)
    assert payload["data"]["title"] == "Fix kitchen faucet"


OWN_CHANNEL: Final = """
from contextlib import asynccontextmanager
from pathlib import Path

from buffer_pipeline.delivery.channel import ChannelOptions

class Options(ChannelOptions):
    file: Path

class Channel:
    Options = Options
    needs_address = False

    def __init__(self, options):
        self.options = options

    @asynccontextmanager
    async def open(self, *, engine):
        yield self

    async def send(self, message):
        with self.options.file.open("a") as file:
            file.write(f"{message.owner}: {message.title}\\n")
"""


def test_a_channel_is_a_file_and_an_entry_point(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A channel that another package brings is configured, previewed and sent by like the built-in ones."""
    (tmp_path / "market_pager.py").write_text(OWN_CHANNEL)
    metadata = tmp_path / "market_pager-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: market-pager\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[buffer_pipeline.channels]\npager = market_pager:Channel\n")
    monkeypatch.syspath_prepend(tmp_path)
    endpoints(monkeypatch, {"name": "pager", "channel": "pager", "file": str(tmp_path / "sent")})
    hold_add(run)

    previewed = run("notifications", "preview", "PAYMENT_PENDING", "--json")
    drained = run("notifications", "drain", "--json")

    assert {row["endpoint"]: row["text"] for row in previewed.json}["pager"] == "no preview"
    assert drained.json["sent"] == 1
    assert (tmp_path / "sent").read_text() == "worker-17: Payment Pending - ₱1,250.50 💰\n"


# ---- test-webhook


def test_a_webhook_is_tried_with_a_secret(run: Run, receiver: HTTPServer) -> None:
    """The receiver can verify what it gets; the id is none that a real notification has."""
    tried = run(
        "notifications", "test-webhook", url_of(receiver), "--secret", SECRET, "--allow-private", "--json"
    )

    assert (tried.code, tried.json["delivered"], tried.json["outcome"]) == (0, True, "delivered")
    (request, _), *_ = receiver.log
    payload = Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))
    assert request.headers["webhook-id"] == tried.json["webhook_id"]
    assert 9 * 10**15 <= payload["data"]["notification_id"] < 2**53
    assert payload["type"] == "payment.released"
    assert payload["data"]["owner"] == "test-webhook"
    assert payload["data"]["title"].startswith("Test: ")
    assert payload["data"]["message"]["title"] == "Test: Payment Released! 🎉"
    assert SECRET not in tried.out + tried.err


def test_two_trials_at_once_differ(run: Run, receiver: HTTPServer) -> None:
    """Within one second each has an id of its own, so that neither is taken for a repetition."""
    arguments = ("notifications", "test-webhook", url_of(receiver), "--allow-private", "--json")

    ids = {run(*arguments).json["webhook_id"] for _ in range(3)}

    assert len(ids) == 3


def test_a_webhook_is_tried_with_its_endpoints_options(
    run: Run, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL of a configured endpoint is signed with that endpoint's secret."""
    endpoints(monkeypatch, webhook(receiver))

    tried = run("notifications", "test-webhook", url_of(receiver), "--type", "BACKJOB_REJECTED", "--json")

    assert tried.json["delivered"] is True
    assert tried.json["made_up_secret"] is None
    (request, _), *_ = receiver.log
    assert Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))["type"] == (
        "backjob.rejected"
    )


def test_a_secret_that_is_made_up_is_shown(run: Run, receiver: HTTPServer) -> None:
    """Without any secret one is made, so that the receiver's verification can be tried with it."""
    tried = run("notifications", "test-webhook", url_of(receiver), "--allow-private", "--json")

    (request, _), *_ = receiver.log
    assert Webhook(tried.json["made_up_secret"]).verify(request.get_data(), dict(request.headers.items()))


@pytest.mark.parametrize(
    ("status", "outcome"), [(500, "would be tried again"), (410, "refused for good"), (302, "redirect")]
)
def test_a_webhook_that_does_not_take_it_exits_1(
    run: Run, httpserver: HTTPServer, status: int, outcome: str
) -> None:
    """The answer and what would become of a real notification are said."""

    def answer(_: Request) -> Response:
        return Response("not here", status=status, headers={"Location": "https://example.com/"})

    httpserver.expect_request("/notifications").respond_with_handler(answer)

    tried = run("notifications", "test-webhook", url_of(httpserver), "--allow-private", "--json")

    assert tried.code == 1
    assert outcome in tried.json["outcome"]
    assert str(status) in tried.json["outcome"]


def test_help_of_every_command_has_an_example(run: Run) -> None:
    """Each command explains itself with an example."""
    commands = (
        "contact set, contact show, notifications list, notifications drain, notifications replay,"
        " notifications preview, notifications test-webhook"
    )

    for command in commands.split(","):
        explained = run(*command.split(), "--help")

        assert explained.code == 0
        assert "Example: " in explained.out, command
