"""`contact …`, and `notifications list` and `replay`."""

import pytest
from pytest_httpserver import HTTPServer

from buffer_pipeline_tests.support.builders import PAYEE
from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add
from buffer_pipeline_tests.support.notification_commands import endpoints, give_up_on


def test_contact_keeps_what_is_not_given(run: Run) -> None:
    """An empty text removes a value."""
    first = run("contact", "set", PAYEE, "--locale", "fil_PH", "--email", "w17@example.com", "--json")
    second = run("contact", "set", PAYEE, "--time-zone", "Asia/Manila", "--locale", "", "--json")
    shown = run("contact", "show", PAYEE, "--json")

    assert first.json == {
        "owner": PAYEE,
        "locale": "fil_PH",
        "time_zone": None,
        "email": "w17@example.com",
        "notify_of_shares": False,
    }
    assert second.json == shown.json
    assert shown.json == {
        "owner": PAYEE,
        "locale": None,
        "time_zone": "Asia/Manila",
        "email": "w17@example.com",
        "notify_of_shares": False,
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
    """Exit code 2 for wrong usage, 1 for a refusal; one line that names the cause and no secret."""
    refused = run(*arguments)

    assert refused.code == code
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1
    assert "hunter2" not in refused.err


def test_dead_letters_are_listed_and_replayed_by_id(
    run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter has its reason. After a replay it arrives with the same id."""
    hold_add(run)
    drained = give_up_on(run, backend, monkeypatch)

    dead = run("notifications", "list", "--state", "DEAD", "--owner", PAYEE, "--json")
    delivery_id = str(dead.json[0]["delivery_id"])
    replayed = run("notifications", "replay", "--id", delivery_id, "--json")
    again = run("notifications", "replay", "--id", delivery_id)
    sent = run("notifications", "drain", "--json")

    assert drained.json["dead"] == 1
    assert (len(dead.json), dead.json[0]["endpoint"], dead.json[0]["attempts"]) == (1, "backend", 1)
    assert "404" in dead.json[0]["reason"]
    assert replayed.json == {"replayed": 1, "delivery_ids": [int(delivery_id)]}
    assert f"not changed: {delivery_id}." in again.out
    assert sent.json["sent"] == 1
    first, second = [request.headers["webhook-id"] for request, _ in backend.log]
    assert first == second == "ntf_1"


def test_replay_by_time_range(run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only dead letters from inside the range, and of the endpoint, wait again."""
    hold_add(run)
    give_up_on(run, backend, monkeypatch)

    def replayed(*arguments: str) -> int:
        count: int = run("notifications", "replay", *arguments, "--json").json["replayed"]
        return count

    assert replayed("--until", LONG_AGO) == 0
    assert replayed("--since", "2999-01-01T00:00Z") == 0
    assert replayed("--since", LONG_AGO, "--endpoint", "other") == 0
    assert replayed("--since", LONG_AGO, "--endpoint", "backend") == 1
    assert replayed("--all") == 0


def test_list_filters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each filter narrows the list, newest first. A page begins after the last one."""
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


def test_undispatched_notifications_are_listed_as_waiting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even before the first drain, without an endpoint."""
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
