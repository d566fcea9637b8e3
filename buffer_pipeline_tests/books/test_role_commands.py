"""Each command under the login of the role that it needs."""

import signal
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline.cli.app import main
from buffer_pipeline.hold import HoldState
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.databases import ROLES, Books
from buffer_pipeline_tests.support.payouts import APPROVER, MAKER, place_payout

COMMANDS: Final = {
    "reader": [
        ("report",),
        ("reconcile",),
        ("hold", "list"),
        ("explain", "1"),
        ("hold", "show", "1"),
        ("backjob", "list"),
        ("wallet", "show", PAYEE),
        ("wallet", "statement", PAYEE),
        ("stuck",),
        ("audit", "list", "--owner", PAYEE),
        ("payout", "destination", "show", PAYEE),
    ],
    "releaser": [
        ("release",),
        ("notifications", "drain"),
        ("notifications", "list"),
        ("contact", "show", PAYEE),
        ("report",),
        ("reconcile",),
        ("hold", "list"),
        ("explain", "1"),
        ("stuck",),
    ],
    "payouts": [
        ("payout", "list"),
        ("payout", "batch", "make", "--currency", "PHP", "--by", MAKER),
        ("payout", "batch", "approve", "1", "--by", APPROVER),
        ("payout", "batch", "send", "1", "--by", MAKER),
        ("payout", "batch", "show", "1"),
        ("payout", "export", "1", "--out", "batch.csv"),
        ("hold", "list"),
        ("explain", "1"),
    ],
    "platform": [
        ("payout", "destination", "show", PAYEE),
        ("payout", "request", PAYEE, "--amount=1", "--currency=PHP", "--key=out-2"),
        ("payout", "cancel", "1", "--by", ADMIN, "--reason", "asked"),
        ("payout", "schedule", PAYEE, "daily", "--by", ADMIN, "--reason", "asked"),
        ("wallet", "deposit", PAYER, "--amount", "1.00", "--currency", "PHP", "--reference", "in-2"),
        ("wallet", "deposit", PAYER, "--amount=1", "--currency=PHP", "--reference=in-4", f"--by={ADMIN}"),
        ("freeze", "1", "--kind", "risk", "--by", ADMIN, "--reason", "a look"),
        ("contact", "show", PAYEE),
        ("hold", "list"),
        ("explain", "1"),
        ("reconcile",),
    ],
    # A login of the API runs no command but `serve`, which takes the roles of keys.
    "api": [],
}
"""The commands of each role's login, as in docs/roles.md."""


@pytest.mark.parametrize("role", ROLES)
def test_commands_work_under_the_login_of_their_role(
    roles: Books,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Under another role's login they end with a refusal."""
    with roles.owner.begin() as connection:
        place_hold(connection)
        set_contact(connection, owner=PAYEE, locale="en_PH", now=NOON)
        place_hold(connection, state=HoldState.FROZEN)
        place_payout(connection)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUFFER_DATABASE_URL", roles.of(role).url.render_as_string(hide_password=False))
    # A command installs signal handlers, here in the process of the tests.
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def code_of(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        assert isinstance(stopped.value.code, int)
        return stopped.value.code

    codes = {arguments: code_of(*arguments) for arguments in COMMANDS[role]}
    capsys.readouterr()
    strange: tuple[str, ...] = (
        "wallet",
        "deposit",
        PAYER,
        "--amount",
        "1.00",
        "--currency",
        "PHP",
        "--reference",
        "in-3",
    )
    if role == "platform":
        strange = ("notifications", "drain")
    refused = code_of(*strange)

    assert codes == dict.fromkeys(COMMANDS[role], 0)
    assert refused == 1
    assert "permission denied" in capsys.readouterr().err
