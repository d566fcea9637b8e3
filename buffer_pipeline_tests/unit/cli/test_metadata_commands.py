"""Metadata on the command line: given as JSON or in a file, searched by KEY=VALUE, and shown unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine
from standardwebhooks import Webhook

from buffer_pipeline_tests.support.commands import LONG_AGO, Run, hold_add, rows_in_books
from buffer_pipeline_tests.support.notification_commands import SECRET, endpoints, webhook

ODD = {"amount_minor": 5, "currency": "XXX", "metadata": "m", "state": None, "when": "2026-03-02T12:00Z"}
"""Keys with a meaning in a row of a hold."""


def test_metadata_is_returned_by_every_command(run: Run) -> None:
    """`hold show`, `hold list`, `stuck` and backjob commands return the object, or {} without one."""
    hold_add(run, metadata=json.dumps(ODD), held_at=LONG_AGO, release_date="2999-01-01T00:00:00Z")
    hold_add(run, reference="plain", job="job-9")

    shown = run("hold", "show", "1", "--json").json
    listed = run("hold", "list", "--json").json
    requested = run(
        "backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips", "--json"
    ).json

    assert shown["metadata"] == ODD
    assert {row["reference"]: row["metadata"] for row in listed} == {"job-8-done": ODD, "plain": {}}
    assert [hold["metadata"] for hold in requested["holds"]] == [ODD]
    assert shown["amount"] == "1250.50"


def test_hold_show_prints_metadata_on_one_line(run: Run) -> None:
    """As JSON without control characters. A hold without metadata has no such line."""
    hold_add(run, metadata=json.dumps({"note": "a\nb\x1b[31m", "clé": "🚰"}))
    hold_add(run, reference="plain")

    with_it, without = run("hold", "show", "1").out, run("hold", "show", "2").out

    assert '\nmetadata: {"clé": "🚰", "note": "a\\nb\\u001b[31m"}\n' in with_it
    assert "metadata" not in without


def test_replay_compares_metadata_only_if_given(run: Run) -> None:
    """With {}, the hold must have none."""
    hold_add(run, metadata='{"order": "A-17"}')

    left_out = hold_add(run)
    same = hold_add(run, metadata='{ "order":"A-17" }')
    other = hold_add(run, metadata='{"order": "A-18"}')
    none = hold_add(run, metadata="{}")

    assert left_out.json["replayed"]
    assert same.json["replayed"]
    assert (other.code, other.json["error"]["type"]) == (1, "ReferenceConflict")
    assert 'metadata {"order": "A-17"}, not metadata {"order": "A-18"}' in other.json["error"]["message"]
    assert 'metadata {"order": "A-17"}, not metadata {}' in none.json["error"]["message"]


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("", "not JSON"),
        ("order=17", "not JSON"),
        ("[]", "metadata: needs an object"),
        ('{"order": {"id": 17}}', "metadata key 'order'"),
        ('{"order": 1, "order": 2}', "metadata key 'order': occurs twice"),
        ('{"order": "\\u0000"}', "metadata key 'order'"),
        ('{"order": "\\ud800"}', "metadata key 'order'"),
        (json.dumps({"order": "x" * 501}), "at most 500"),
        (json.dumps({str(number): number for number in range(21)}), "at most 20"),
        ('{"order":' * 20_000, "too many levels"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(run: Run, engine: Engine, metadata: str, named: str) -> None:
    """In one line that names the key, and no table gains a row."""
    before = rows_in_books(engine)

    refused = hold_add(run, metadata=metadata)

    assert refused.code == 1
    assert named in refused.json["error"]["message"]
    assert rows_in_books(engine) == before


def test_hold_list_searches_metadata(run: Run) -> None:
    """Every pair must match. A value is text, or the number, boolean or null that it spells."""
    for reference, metadata in (
        ("text", '{"order": "17", "shop": "north=1"}'),
        ("number", '{"order": 17}'),
        ("truth", '{"order": true}'),
        ("plain", "{}"),
    ):
        hold_add(run, reference=reference, metadata=metadata)

    def found(*wanted: str) -> list[str]:
        options = [part for pair in wanted for part in ("--metadata", pair)]
        return [row["reference"] for row in run("hold", "list", *options, "--json").json]

    assert found() == ["text", "number", "truth", "plain"]
    assert found("order=17") == ["text", "number"]
    assert found("order=17", "shop=north=1") == ["text"]
    assert found("order=true") == ["truth"]
    assert found("order=") == []
    assert found("order=' OR 1=1 --") == []


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (("--metadata", "order"), 2, "Invalid value for '--metadata': 'order': write KEY=VALUE"),
        (("--metadata", "=17"), 1, "metadata key: must not be empty"),
        (("--metadata", "order=1", "--metadata", "order=2"), 1, "metadata key 'order': occurs twice"),
        (("--metadata", f"{'k' * 41}=1"), 1, "41 characters long; at most 40"),
        (("--metadata", f"order={'x' * 501}"), 1, "501 characters long; at most 500"),
    ],
)
def test_a_search_that_can_find_nothing_is_refused(
    run: Run, options: tuple[str, ...], code: int, named: str
) -> None:
    """In one line."""
    refused = run("hold", "list", *options)

    assert refused.code == code
    assert named in refused.err
    assert len(refused.err.splitlines()) == 1


def test_import_reads_metadata(run: Run, tmp_path: Path) -> None:
    """The column and each field are optional. A bad value refuses only its line."""
    file = tmp_path / "earnings.csv"
    header = "reference,job,payee,payer,amount,currency,metadata\n"
    line = "{},job-1,worker-1,client-1,10.00,PHP,{}\n"
    file.write_text(
        header
        + line.format("a", '"{""order"": ""A-17"", ""n"": 1}"')
        + line.format("b", "")
        + line.format("c", "{}")
        + line.format("d", "order=17")
        + line.format("e", '"{""n"": [1]}"')
    )

    first = run("hold", "import", str(file), "--json")
    second = run("hold", "import", str(file), "--json")
    file.write_text(header + line.format("a", "") + line.format("a", '"{""order"": ""A-18"", ""n"": 1}"'))
    third = run("hold", "import", str(file), "--json")

    assert (first.json["added"], [row["line"] for row in first.json["refused"]]) == (3, [5, 6])
    assert "metadata: not JSON" in first.json["refused"][0]["reason"]
    assert "metadata key 'n'" in first.json["refused"][1]["reason"]
    assert (second.json["added"], second.json["replayed"]) == (0, 3)
    assert third.json["replayed"] == 1
    assert 'not metadata {"order": "A-18"}' in third.json["refused"][0]["reason"]
    listed: list[dict[str, Any]] = run("hold", "list", "--json").json
    assert {row["reference"]: row["metadata"] for row in listed} == {
        "a": {"order": "A-17", "n": 1},
        "b": {},
        "c": {},
    }


def test_webhook_of_a_payment_has_its_metadata(
    run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and unchanged, for payee and payer; {} without metadata, and for a backjob."""
    endpoints(monkeypatch, webhook(backend))
    metadata = {"note": "{{ 7 * 7 }} <b>\n\x1b[31m\u202e 🚰", "n": 17, "large": 1e23, "nothing": None}
    hold_add(run, metadata=json.dumps(metadata))
    hold_add(run, reference="plain", job="job-9", payee="worker-18")
    run("backjob", "request", "--job", "job-8", "--by", "client-3", "--reason", "drips")
    run("backjob", "approve", "1", "--by", "admin-1", "--reason", "it does")

    drained = run("notifications", "drain", "--json")

    assert drained.json["dead"] == 0
    data = [
        (payload["type"], payload["data"]["owner"], payload["data"]["metadata"])
        for request, _ in backend.log
        for payload in [Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))]
    ]
    assert ("payment.refunded", "client-3", metadata) in data
    assert ("payment.pending", "worker-18", {}) in data
    for kind, owner, found in data:
        of_the_hold = kind.startswith("payment.") and owner != "worker-18"
        assert found == (metadata if of_the_hold else {}), (kind, owner)
    assert {kind for kind, _, _ in data} >= {"payment.frozen", "backjob.received", "backjob.approved"}


def test_texts_have_no_metadata(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A template that uses it is a wrong setting, and no log line has it."""
    hold_add(run, metadata='{"secret": "only the platform reads this"}')
    endpoints(monkeypatch, {"name": "log", "channel": "log"}, {"name": "app", "channel": "inbox"})

    drained = run("notifications", "drain", "--json")
    (tmp_path / "payment_pending.txt.j2").write_text(
        "{% block title %}{{ metadata }}{% endblock %}{% block text %}x{% endblock %}"
    )
    monkeypatch.setenv("BUFFER_TEMPLATES", str(tmp_path))
    refused = run("notifications", "drain")

    assert drained.json["sent"] == 2
    assert "only the platform" not in drained.err + drained.out
    assert refused.code == 2
    assert "'metadata' is undefined" in refused.err
