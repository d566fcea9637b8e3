"""README, SECURITY and docs: each command is run here or in another test, and everything they name exists."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pytest
import typer
import yaml
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

import buffer_pipeline
from buffer_pipeline.audit.seals import seal
from buffer_pipeline.cli.app import app
from buffer_pipeline.cli.commands import CommandList
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.notifications.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.settings import Settings
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.commands import commands as commands_of
from buffer_pipeline_tests.support.pages import DOCS, Block, blocks_of, run_blocks

ROOT: Final = DOCS.parent
PAGES: Final = {
    str(page.relative_to(ROOT)): page
    for page in (
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        *sorted(DOCS.glob("*.md")),
        *sorted((DOCS / "reference").glob("*.md")),
    )
}
ELSEWHERE: Final = {
    "docs/adoption.md": "test_adoption",
    "docs/compose.md": "test_compose",
    "docs/runbook.md": "test_operations",
    "docs/testing.md": "test_testing_page",
}
"""Pages whose blocks another test runs completely."""

NOT_HERE: Final = {
    "docker": "needs a registry: test_compose builds the first image with what stands in for its bases",
    "deploy/make-secrets": "test_compose makes the secrets by it",
    "printf": "asks for a password: test_compose answers it",
    "psql --host": "needs a server of that name: test_kubernetes types it for another",
    "kubectl": "needs a cluster: test_helm runs what needs none, test_kubernetes checks what is applied",
    "helm": "needs a network and a cluster: test_helm lints and renders, test_kubernetes checks the values",
    "python -m buffer_pipeline_start.probe": "test_probe asks a code server and a daemon",
    "pip": "test_installed and test_extras install the wheel; CI installs uv",
    "uv run pytest": "this is it",
    "uv run buffer-pipeline dev": "test_dev starts it",
    "buffer-pipeline serve": "test_server starts it",
    "uv run buffer-pipeline simulate --home year": "a year takes minutes: test_simulation plays twenty days",
    "uv run buffer-pipeline report --home year": "of that year: test_daily_report reports one",
}
"""Beginnings of commands that no test types unchanged, and the test that covers each."""


def commands(block: Block) -> Iterator[str]:
    """Return the commands of a block, one per line."""
    yield from (command for line in block.body.splitlines() for command in line.split(" && "))


def is_tried_elsewhere(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in NOT_HERE)


def shell_blocks(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.kind == "sh"]


@pytest.mark.parametrize(
    "page", [name for name, page in PAGES.items() if name not in ELSEWHERE and shell_blocks(page)]
)
def test_commands_of_a_page(page: str, database_url: str, engine: Engine, tmp_path: Path) -> None:
    """Each command that can run here succeeds, on books with the data that the page needs."""
    anchor = fill(engine, database_url)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "BUFFER_HOME": str(tmp_path / "home"),
        "BUFFER_DATABASE_URL": database_url,
        "ANCHOR": anchor,
    }
    for block in shell_blocks(PAGES[page]):
        # The environment exists already.
        runnable = [
            command.replace("uv run ", "") for command in commands(block) if not is_tried_elsewhere(command)
        ]
        body = "\n".join(runnable)
        run_blocks([block._replace(body=body)], cwd=tmp_path, environment=environment)


def fill(engine: Engine, database_url: str) -> str:
    """Write two dead letters with the ids of docs/notifications.md, and a sealed history. Return
    its anchor.
    """
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


def test_each_exception_matches_a_command_of_a_page() -> None:
    """An exception without a command is obsolete."""
    lines = [
        command for page in PAGES.values() for block in shell_blocks(page) for command in commands(block)
    ]

    assert [
        beginning for beginning in NOT_HERE if not any(line.startswith(beginning) for line in lines)
    ] == []


COMMAND: Final = re.compile(r"(?:^|[ (`])buffer-pipeline (?!COMMAND)([a-z][^`\n|>&;)]*)", re.MULTILINE)


def test_commands_and_options_exist() -> None:
    """Each `buffer-pipeline …` on a page, in a block or a sentence, has an existing command and existing
    options.
    """
    unknown, seen = [], 0
    for name, page in PAGES.items():
        for written in COMMAND.findall(page.read_text(encoding="utf-8")):
            seen += 1
            unknown += [
                f"{name}: {written}: {why}"
                for why in unknown_words(shlex.split(written.removesuffix("\\").replace("'", "")))
            ]

    assert unknown == []
    assert seen > 50


def unknown_words(words: list[str]) -> Iterator[str]:
    """Yield the words of a command line that the program does not know."""
    command: Any = typer.main.get_command(app)
    options = {option for parameter in command.params for option in parameter.opts}
    while isinstance(command, CommandList):
        if words == ["--help"]:
            return
        if " ".join(words[:2]) in command.commands:
            words[:2] = [" ".join(words[:2])]
        if not words or words[0].rstrip(",.:") not in command.commands:
            yield f"no command {words[:1]}"
            return
        command = command.load(words.pop(0).rstrip(",.:"))
    options |= {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--") and word.split("=")[0].rstrip(",.:") not in {*options, "--help"}:
            yield f"no option {word}"


PYTHON: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_python_calls_match_the_signatures() -> None:
    """Each call of the package on a page has a public name and valid arguments."""
    calls = 0
    for page in PAGES.values():
        for block in PYTHON.findall(page.read_text(encoding="utf-8")):
            # An ellipsis replaces one or more arguments.
            whole = re.sub(r",\s*…", "", block).replace("…", "...")
            for call in ast.walk(ast.parse(whole)):
                if isinstance(call, ast.Call) and (verb := public(call.func)) is not None:
                    calls += 1
                    given = [argument for argument in call.args if not is_ellipsis(argument)]
                    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                    inspect.signature(verb).bind_partial(*given, **keywords)

    assert calls > 20


def public(called: ast.expr) -> Any | None:
    """Return the public function of the package that a call names, or None."""
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


def test_readme_example_prints_its_documented_output(database_url: str) -> None:
    """The README's first Python block runs unchanged and prints the lines of the next block."""
    page = PAGES["README.md"].read_text(encoding="utf-8")
    (code, printed), *_ = re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)

    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BUFFER_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.sub(r"hold \d+", "hold 1", ran.stdout) == printed


def cells_of(page: str) -> list[list[str]]:
    """Return the code in the first cell of each row of a page's tables, except rows of options."""
    lines = PAGES[page].read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `") and not line.startswith("| `--")]
    return [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows]


def test_page_of_settings_has_each_setting() -> None:
    """docs/reference/settings.md has a row for each setting, and no other."""
    documented = [name for cell in cells_of("docs/reference/settings.md") for name in cell]

    assert sorted(documented) == sorted(f"BUFFER_{field.upper()}" for field in Settings.model_fields)


def test_page_of_commands_has_each_command() -> None:
    """docs/reference/commands.md names each command. A group is named with its first command."""
    documented: set[str] = set()
    for cell in cells_of("docs/reference/commands.md"):
        group = ""
        for written in cell:
            words = [word for word in written.split() if word.islower() and not word.startswith("-")]
            if len(words) == 2:
                group = words[0]
            documented.add(" ".join(words if len(words) != 1 or not group else [group, *words]))

    assert documented == set(commands_of(typer.main.get_command(app)))


def test_links_have_a_target() -> None:
    """Each relative link names an existing file and, after a #, one of its headings."""
    lost = []
    for name, page in (PAGES | {"CONTRIBUTING.md": ROOT / "CONTRIBUTING.md"}).items():
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if "://" in link or (target.exists() and (not heading or heading in anchors_of(target))):
                continue
            lost.append(f"{name}: {link}")

    assert lost == []


def anchors_of(page: Path) -> set[str]:
    """Return GitHub's anchors for a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_architecture_page_names_existing_files_and_tables() -> None:
    """Each file, table and test file of docs/architecture.md exists."""
    page = PAGES["docs/architecture.md"].read_text(encoding="utf-8")
    files = {path.name for path in ROOT.glob("buffer_pipeline*/**/*") if path.suffix in {".py", ".sql"}}
    schema = (ROOT / "buffer_pipeline" / "sql" / "schema.sql").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(\w+\.(?:py|sql))\b", page))
    tables = set(re.findall(r"`buffer\.(\w+)`", page))

    assert named - files == set()
    assert {table for table in tables if f" buffer.{table} " not in schema} == set()
    assert len(named) > 20
    tests = {path.stem for path in ROOT.glob("buffer_pipeline_tests/**/test_*.py")}
    assert set(re.findall(r"`(test_\w+)`", page)) - tests == set()


def test_launchpad_accepts_the_documented_config() -> None:
    """The job accepts the run config of docs/dagster-ui.md."""
    page = (DOCS / "dagster-ui.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"^```yaml\n(ops:.*?)^```$", page, re.MULTILINE | re.DOTALL)

    assert dg.validate_run_config(defs.resolve_job_def("release_pending_payments"), yaml.safe_load(written))


def test_statements_of_the_roles_page(superuser_url: str) -> None:
    """The statements of docs/roles.md run unchanged on a server without these roles."""
    page = (DOCS / "roles.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = re.findall(r"CREATE ROLE (\w+)", "".join(blocks))
    engine = make_engine(superuser_url)

    with engine.connect() as connection, connection.begin() as transaction:
        for role in made:
            if connection.scalar(text("SELECT to_regrole(:role)"), {"role": role}):
                connection.execute(text(f"ALTER ROLE {role} RENAME TO {role}_of_this_server"))
        # The group roles are created further down on the page.
        for block in reversed(blocks):
            connection.execute(text(block))
        found = connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:made)"), {"made": made}
        ).all()
        transaction.rollback()
    engine.dispose()

    assert sorted(found) == sorted(made)
    assert len(made) == 10
