"""BUFFER_ENDPOINTS: what is accepted, what is refused, and what is never shown."""

import json

import pytest

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.channels.channel import configured_endpoints
from buffer_pipeline.settings import load_settings

WEBHOOK = {
    "name": "backend",
    "channel": "webhook",
    "url": "https://backend.example.com/notifications",
    "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    "types": ["PAYMENT_RELEASED"],
    "concurrency": 4,
}


def test_default_endpoint_is_the_log() -> None:
    """Without the setting there is one endpoint, for every type."""
    endpoints = configured_endpoints(load_settings().endpoints)

    assert [(endpoint.name, endpoint.types) for endpoint in endpoints] == [("log", None)]


def test_several_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a channel with its types and options."""
    monkeypatch.setenv("BUFFER_ENDPOINTS", json.dumps([WEBHOOK, {"name": "log", "channel": "log"}]))

    settings = load_settings()
    endpoints = configured_endpoints(settings.endpoints)

    assert [(endpoint.name, endpoint.types) for endpoint in endpoints] == [
        ("backend", frozenset({"PAYMENT_RELEASED"})),
        ("log", None),
    ]
    assert endpoints[0].options.concurrency == 4
    assert "whsec" not in f"{settings!r} {settings} {settings.endpoints} {endpoints}"


def test_no_endpoint_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list sends nothing."""
    monkeypatch.setenv("BUFFER_ENDPOINTS", "[]")

    assert configured_endpoints(load_settings().endpoints) == ()


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("[{hunter2", "not JSON: "),
        ('"hunter2"', "not a list such as"),
        ('{"hunter2": 1}', "not a list such as"),
        ('["hunter2"]', "endpoint 1 is not an object such as"),
        ('[{"channel": "log", "key": "hunter2"}]', "endpoint 1: name: Field required"),
        ('[{"name": "log", "key": "hunter2"}]', "endpoint 1: channel: Field required"),
        (
            '[{"name": "Hunter 2", "channel": "log", "key": "hunter2"}]',
            "endpoint 1: name: String should match",
        ),
        ('[{"name": "log", "channel": "log", "types": "hunter2"}]', "endpoint 1: types: Input should be"),
        ('[{"name": "log", "channel": "log", "types": []}]', "endpoint 1: types: "),
        (
            '[{"name": "log", "channel": "log"}, {"name": "log", "channel": "log", "key": "hunter2"}]',
            "two endpoints have the name log",
        ),
    ],
)
def test_errors_do_not_repeat_the_setting(monkeypatch: pytest.MonkeyPatch, value: str, fact: str) -> None:
    """An endpoint's options contain secrets."""
    monkeypatch.setenv("BUFFER_ENDPOINTS", value)

    with pytest.raises(SettingError) as refusal:
        load_settings()

    assert str(refusal.value).startswith(f"BUFFER_ENDPOINTS: {fact}")
    assert "hunter2" not in str(refusal.value)
