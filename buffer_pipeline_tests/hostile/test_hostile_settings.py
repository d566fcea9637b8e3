"""Arbitrary text in each BUFFER_ variable: a setting, or one line that names the variable and no secret."""

import json
import os
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from buffer_pipeline.errors import SettingError
from buffer_pipeline.notifications.channels.channel import configured_endpoints
from buffer_pipeline.settings import Settings, load_settings
from buffer_pipeline_tests.support.hostile import (
    ODD_NUMBERS,
    ODD_TEXTS,
    ODD_TIMES,
    bytes_as_arguments,
    cases,
    require_silence,
    run_command,
    texts,
)

VARIABLES: Final = sorted(f"BUFFER_{name.upper()}" for name in Settings.model_fields)
PLANTED: Final = "hunter2+Swordfish/9"
SIGNING: Final = "whsec_c3dvcmRmaXNoLXN3b3JkZmlzaC1zd29yZGZpc2g="

# A password in a URL should be percent-encoded; users often forget it.
parts: Final = st.one_of(
    st.sampled_from((PLANTED, "u", "h", "db", "localhost", "5432", "[::1]", "a.invalid", "%40", "%00", "")),
    st.sampled_from((":", "@", "/", "//", "?", "#", "&", "=", "://", " ", ",", "%", "\n", "\x00", "\udce9")),
)
urls: Final = st.builds(
    lambda scheme, rest: scheme + "".join(rest),
    st.sampled_from(
        (
            "postgresql://",
            "postgres://",
            "postgresql+psycopg://",
            "mysql://",
            "http://",
            "https://",
            "json://",
            "",
        )
    ),
    st.lists(parts, max_size=9),
)

leaves: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just(PLANTED), st.just(SIGNING)
)
names: Final = st.sampled_from(
    (
        "name",
        "channel",
        "types",
        "url",
        "secrets",
        "host",
        "port",
        "password",
        "username",
        "sender",
        "ca_file",
        "tls",
        "concurrency",
        "timeout_seconds",
        "allow_private",
        "self",
        "model_config",
        "options",
        "__class__",
    )
)
expected: Final = st.sampled_from(
    (
        "log",
        "webhook",
        "email",
        "inbox",
        "backend",
        ["PAYMENT_RELEASED"],
        "https://a.invalid/?t=1",
        [SIGNING],
        5,
        True,
    )
)
objects: Final = st.dictionaries(names, st.one_of(expected, leaves, st.lists(leaves, max_size=2)), max_size=7)
named: Final = st.builds(
    lambda given, channel: {"name": "backend", "channel": channel, **given},
    objects,
    st.sampled_from(("log", "webhook", "email", "inbox")),
)
endpoints: Final = st.one_of(
    st.lists(st.one_of(objects, named, leaves), max_size=3).map(json.dumps),
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=9).map(json.dumps),
    st.sampled_from((1, 900, 1_000, 100_000)).map(lambda depth: "[" * depth),
    st.integers(4_000, 6_000).map(lambda digits: f"[{'9' * digits}]"),
)


def values_of(variable: str) -> st.SearchStrategy[str]:
    """Return values for a variable."""
    anything = st.one_of(texts, bytes_as_arguments, st.sampled_from((*ODD_NUMBERS, *ODD_TIMES)))
    if variable.endswith(("URL", "URLS")):
        return st.one_of(urls, urls, urls, anything)
    return st.one_of(endpoints, endpoints, anything) if variable == "BUFFER_ENDPOINTS" else anything


def in_an_environment(value: str) -> bool:
    """Return True if a variable can have this value."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def secrets_in(value: str) -> list[str]:
    """Return the planted secrets in a value."""
    return [secret for secret in (PLANTED, "Swordfish", SIGNING) if secret in value]


@cases(5_000)
@given(given_value=st.sampled_from(VARIABLES).flatmap(lambda name: st.tuples(st.just(name), values_of(name))))
def test_wrong_variable_raises_a_setting_error(given_value: tuple[str, str]) -> None:
    """One line with the variable's name and without secrets."""
    name, value = given_value
    assume(in_an_environment(value))
    shown = ""
    os.environ[name] = value
    try:
        settings = load_settings()
        if name == "BUFFER_ENDPOINTS":
            configured_endpoints(settings.endpoints)
    except SettingError as refusal:
        shown = str(refusal)
        assert shown.startswith(f"{name}: ")
        assert len(shown.splitlines()) == 1
        assert len(shown) < 1_000
        assert refusal.__cause__ is None
    else:
        shown = repr(settings)
    finally:
        del os.environ[name]
    if name.endswith(("DATABASE_URL", "URLS", "ENDPOINTS")):
        require_silence(shown, *secrets_in(value))


@cases(400)
@given(value=urls)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Also if it is no URL, or its password has an unencoded @ or /."""
    assume(value)
    assume(in_an_environment(value))
    # Neither a local server nor a real name server.
    for variable, nowhere in {"PGHOST": "/nowhere", "PGPORT": "1", "PGCONNECT_TIMEOUT": "1"}.items():
        monkeypatch.setenv(variable, nowhere)
    monkeypatch.setenv("BUFFER_DATABASE_URL", value)

    outcome = run_command("hold", "list", "--json")

    assert outcome.code == 2
    assert outcome.err.startswith("BUFFER_DATABASE_URL: ")
    assert len(outcome.err.splitlines()) == 1
    assert json.loads(outcome.out)["error"]["type"] == "SettingError"
    # A host and the text after it are no secret; everything before the last @ may be one.
    require_silence(outcome.err + outcome.out, *secrets_in(value.rpartition("@")[0].partition("?")[0]))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{PLANTED}",
        "postgresql://app:p@Swordfish@127.0.0.1:1/books",
        f"postgresql://app:1/{PLANTED}@x@127.0.0.1/books",
        f"postgresql://app@127.0.0.1:{PLANTED}/books",
        f"{PLANTED}://app@127.0.0.1/books",
        "Swordfish://app@127.0.0.1/books",
        f"postgresql://app:{PLANTED}@127.0.0.1:1/books?nonsense=1",
        f"postgresql://app:{PLANTED}@127.0.0.1:1/books?host=a:b,c&port=x",
        f"postgresql://app:{PLANTED}@{'a' * 64}.invalid/books",
        f"postgresql://app:{PLANTED}\udce9@127.0.0.1:1/books",
        f"postgresql://app:{PLANTED}@127.0.0.1:1/books?plugin=nonsense",
    ],
)
@pytest.mark.parametrize("command", [("hold", "list"), ("release",), ("reconcile",), ("migrate",)])
def test_a_wrong_database_url_repeats_no_password(
    monkeypatch: pytest.MonkeyPatch, url: str, command: tuple[str, ...]
) -> None:
    """The usual mistakes: a port, a host or an @ missing or not encoded."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", url)

    outcome = run_command(*command)

    assert outcome.code == 2
    assert outcome.err.startswith("BUFFER_DATABASE_URL: ")
    require_silence(outcome.err + outcome.out, PLANTED, "Swordfish")


def test_the_odd_texts_are_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them in each variable, besides Hypothesis's examples."""
    for name in VARIABLES:
        for value in filter(in_an_environment, ODD_TEXTS):
            monkeypatch.setenv(name, value)
            try:
                load_settings()
            except SettingError as refusal:
                assert str(refusal).startswith(f"{name}: ")
                assert len(str(refusal).splitlines()) == 1
            monkeypatch.delenv(name)
