"""`notifications preview`, and a third-party channel."""

from pathlib import Path
from typing import Final

import pytest
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook

from buffer_pipeline.cli.notifications import Type
from buffer_pipeline.notifications.messages import TYPES
from buffer_pipeline_tests.support.commands import Run, hold_add
from buffer_pipeline_tests.support.notification_commands import SECRET, endpoints, url_of, webhook


def test_every_notification_type_can_be_previewed() -> None:
    """One vocabulary."""
    assert tuple(Type) == TYPES


TWICE: Final = ("PAYMENT_RELEASED", "EARNING_CLAWED_BACK", "DEBT_RECOVERED")
"""A release is of a whole hold or of a part; a claw-back and a recovery may leave a debt."""


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_is_previewed_in_every_channel(run: Run, type_: str) -> None:
    """For each reader, configured or not, and nothing is sent."""
    previewed = run("notifications", "preview", type_, "--json")

    assert previewed.code == 0
    readers = {row["to_payer"] for row in previewed.json}
    for reader in readers:
        channels = [row["channel"] for row in previewed.json if row["to_payer"] is reader]
        messages = 2 if type_ in TWICE else 1
        assert channels == ["log", "inbox", "email", "webhook"] * messages
    assert len(readers) == (2 if type_ in {"PAYMENT_REFUNDED", "BACKJOB_REJECTED", "BACKJOB_APPROVED"} else 1)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("PAYEE", "The client paid ₱1,250.50 for 'Fix kitchen faucet'."),
        ("FEE", "A fee of ₱150.06 for 'Fix kitchen faucet'"),
        ("TAX", "Tax of ₱25.01 for 'Fix kitchen faucet'"),
        ("RESERVE", "A reserve of ₱125.05 for 'Fix kitchen faucet'"),
    ],
)
def test_the_message_about_a_share_is_previewed(run: Run, kind: str, shown: str) -> None:
    """Once per channel. A message about a job has no share."""
    previewed = run("notifications", "preview", "PAYMENT_PENDING", "--kind", kind, "--json")
    refused = run("notifications", "preview", "BACKJOB_RECEIVED", "--kind", kind)

    assert [row["channel"] for row in previewed.json] == ["log", "inbox", "email", "webhook"]
    assert all(shown in row["text"] for row in previewed.json if row["channel"] == "inbox")
    assert refused.code == 1
    assert f"kind {kind}: a BACKJOB_RECEIVED is about a job and not about a share" in refused.err


def test_preview_uses_the_readers_locale(
    run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locale and zone can be chosen. An endpoint is shown by name; if it does not take the type, a made-up
    endpoint shows its channel.
    """
    endpoints(
        monkeypatch,
        webhook(backend),
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
    assert backend.log == []


def test_webhook_preview_is_the_whole_request(
    run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the headers, and with the signature of the body."""
    endpoints(monkeypatch, webhook(backend))

    previewed = run("notifications", "preview", "BACKJOB_RECEIVED", "--json")

    (shown,) = [row["text"] for row in previewed.json if row["endpoint"] == "backend"]
    head, body = shown.split("\n\n")
    request, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    assert request == f"POST {url_of(backend)}"
    assert headers["webhook-id"] == "ntf_1"
    payload = Webhook(SECRET).verify(body, headers)
    assert payload["data"]["title"] == "Fix kitchen faucet"


OWN_CHANNEL: Final = """
from contextlib import asynccontextmanager
from pathlib import Path

from buffer_pipeline.notifications.channels.channel import ChannelOptions

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


def test_third_party_channel_needs_a_file_and_an_entry_point(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is configured, previewed and used like the built-in ones."""
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
