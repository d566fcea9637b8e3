"""What README, SECURITY and docs say to type: it is run, or it is known who runs it, and all of it exists."""

import ast
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pytest
import typer
import yaml
from sqlalchemy import Engine, text

import buffer_pipeline
from buffer_pipeline.cli.app import app
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.history import seal
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline_tests.builders import place_hold
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.pages import DOCS, Block, blocks_of, run_blocks

ROOT: Final = DOCS.parent
PAGES: Final = {
    str(page.relative_to(ROOT)): page
    for page in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md")))
}
ELSEWHERE: Final = {
    "docs/adoption.md": "test_adoption",
    "docs/compose.md": "test_compose",
    "docs/operations.md": "test_operations",
}
"""Pages whose blocks another test runs whole."""

NOT_HERE: Final = {
    "docker": "needs a registry: test_compose builds the first image with what stands in for its bases",
    "deploy/make-secrets": "test_compose makes the secrets by it",
    "printf": "asks for a password: test_compose answers it",
    "psql --host": "needs a server of that name: test_kubernetes types it for another",
    "kubectl": "needs a cluster: test_helm runs what needs none, test_kubernetes checks what is applied",
    "helm": "needs a network and a cluster: test_helm lints and renders, test_kubernetes checks the values",
    "python -m buffer_pipeline_start.probe": "test_probe asks a code server and a daemon",
    "pip": "test_installed installs the wheel; CI installs uv",
    "uv run pytest": "this is it",
    "uv run buffer-pipeline dev": "test_dev starts it",
    "uv run buffer-pipeline simulate --home year": "a year takes minutes: test_simulation plays twenty days",
    "uv run buffer-pipeline report --home year": "of that year: test_daily_report reports one",
}
"""How a command begins that no test types as it stands, and what tries it instead."""


def commands(block: Block) -> Iterator[str]:
    """Return the commands of a block, each a line."""
    yield from (command for line in block.body.splitlines() for command in line.split(" && "))


def is_tried_elsewhere(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in NOT_HERE)


def shell_blocks(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.kind == "sh"]


@pytest.mark.parametrize(
    "page", [name for name, page in PAGES.items() if name not in ELSEWHERE and shell_blocks(page)]
)
def test_commands_of_a_page(page: str, database_url: str, engine: Engine, tmp_path: Path) -> None:
    """Each command that can be run here ends well, on books that have what the page speaks of."""
    anchor = fill(engine, database_url)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "BUFFER_HOME": str(tmp_path / "home"),
        "BUFFER_DATABASE_URL": database_url,
        "ANCHOR": anchor,
    }
    for block in shell_blocks(PAGES[page]):
        # The environment is there already.
        runnable = [
            command.replace("uv run ", "") for command in commands(block) if not is_tried_elsewhere(command)
        ]
        body = "\n".join(runnable)
        run_blocks([block._replace(body=body)], cwd=tmp_path, environment=environment)


def fill(engine: Engine, database_url: str) -> str:
    """Two dead letters with the numbers of docs/notifications.md and a sealed history; return its anchor."""
    with make_engine(database_url.replace("//buffer@", "//postgres@")).begin() as connection:
        connection.execute(text("ALTER TABLE buffer.notification ALTER notification_id RESTART WITH 8812"))
    with engine.begin() as connection:
        for _ in range(2):
            place_hold(connection, held_at=NOON, release_date=NOON)
        now = database_clock(connection)
        dispatch(connection, [Route(name="backend")], batch_limit=2, now=now)
        claimed = claim(
            connection, endpoint="backend", owners_limit=1, per_owner_limit=2, lease_seconds=60, now=now
        )
        settlements = [Settlement(claimed=each, outcome=Outcome.DEAD, reason="gone") for each in claimed]
        assert settle(connection, settlements, now=now)
    return str(seal(engine).anchor)


def test_what_is_tried_elsewhere_is_still_on_a_page() -> None:
    """Each reason for not typing a command here belongs to a command."""
    lines = [
        command for page in PAGES.values() for block in shell_blocks(page) for command in commands(block)
    ]

    assert [
        beginning for beginning in NOT_HERE if not any(line.startswith(beginning) for line in lines)
    ] == []


COMMAND: Final = re.compile(r"(?:^|[ (`])buffer-pipeline (?!COMMAND)([a-z][^`\n|>&;)]*)", re.MULTILINE)


def test_commands_and_options_exist() -> None:
    """Each `buffer-pipeline …` on a page, in a block or in a sentence, names a command and options of it."""
    unknown, seen = [], 0
    for name, page in PAGES.items():
        for written in COMMAND.findall(page.read_text(encoding="utf-8")):
            seen += 1
            unknown += [
                f"{name}: {written}: {why}"
                for why in misunderstood(shlex.split(written.removesuffix("\\").replace("'", "")))
            ]

    assert unknown == []
    assert seen > 50


def misunderstood(words: list[str]) -> Iterator[str]:
    """Say what of a command line the program would not understand."""
    command: Any = typer.main.get_command(app)
    options = {option for parameter in command.params for option in parameter.opts}
    while hasattr(command, "commands"):
        if not words or words[0].rstrip(",.:") not in command.commands:
            yield f"no command {words[:1]}"
            return
        command = command.commands[words.pop(0).rstrip(",.:")]
    options |= {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--") and word.split("=")[0].rstrip(",.:") not in {*options, "--help"}:
            yield f"no option {word}"


PYTHON: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_calls_in_python_fit_the_verbs() -> None:
    """Each call of the package on a page names something public, with arguments that it takes."""
    calls = 0
    for page in PAGES.values():
        for block in PYTHON.findall(page.read_text(encoding="utf-8")):
            # An ellipsis stands for an argument, or for the rest of them.
            whole = re.sub(r",\s*…", "", block).replace("…", "...")
            for call in ast.walk(ast.parse(whole)):
                if isinstance(call, ast.Call) and (verb := public(call.func)) is not None:
                    calls += 1
                    given = [argument for argument in call.args if not is_ellipsis(argument)]
                    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                    inspect.signature(verb).bind_partial(*given, **keywords)

    assert calls > 20


def public(called: ast.expr) -> Any | None:
    """Return what of the package is called, if it is."""
    if (
        isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.value.id == "buffer"
    ):
        return getattr(buffer_pipeline, called.attr)
    if isinstance(called, ast.Name) and called.id in buffer_pipeline.__all__:
        return getattr(buffer_pipeline, called.id)
    return None


def is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def test_launchpad_takes_what_the_page_says() -> None:
    """The run config of docs/operators.md is one that the job accepts."""
    page = (DOCS / "operators.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"^```yaml\n(ops:.*?)^```$", page, re.MULTILINE | re.DOTALL)

    assert dg.validate_run_config(defs.resolve_job_def("release_pending_payments"), yaml.safe_load(written))


def test_statements_of_the_roles_page(superuser_url: str) -> None:
    """The statements of docs/roles.md run as they stand, where no such role exists yet."""
    page = (DOCS / "roles.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = re.findall(r"CREATE ROLE (\w+)", "".join(blocks))
    engine = make_engine(superuser_url)

    with engine.connect() as connection, connection.begin() as transaction:
        for role in made:
            if connection.scalar(text("SELECT to_regrole(:role)"), {"role": role}):
                connection.execute(text(f"ALTER ROLE {role} RENAME TO {role}_of_this_server"))
        # Those that the others are members of stand further below.
        for block in reversed(blocks):
            connection.execute(text(block))
        found = connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:made)"), {"made": made}
        ).all()
        transaction.rollback()
    engine.dispose()

    assert sorted(found) == sorted(made)
    assert len(made) == 6
