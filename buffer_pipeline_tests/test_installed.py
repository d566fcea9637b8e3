"""The wheel, built as a release is, installed into a clean environment and used outside the checkout."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.builders import place_hold, state_of
from buffer_pipeline_tests.conftest import fresh_books
from buffer_pipeline_tests.stack import (
    WAIT_SECONDS_MAX,
    end_of,
    first_line,
    free_port,
    launch_release,
    repository,
)

ROOT: Final = Path(__file__).parents[1]
pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.
EARNING: Final = (
    "--reference=job-8-done --job=job-8 --payee=worker-17 --payer=client-3 --amount=1250.50 --currency=PHP"
    " --held-at=2026-03-02T12:00Z"
)
PRETEND: Final = "SETUPTOOLS_SCM_PRETEND_VERSION"


def end(cwd: Path, *words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program as somebody does who knows nothing of the checkout."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH", "DAGSTER_HOME"} and not name.startswith("GIT_")
    }
    return subprocess.run(
        words, cwd=cwd, env={**inherited, **settings}, capture_output=True, text=True, check=False
    )


def run(cwd: Path, *words: str | Path, **settings: str) -> str:
    """Run a program that must succeed, and return what it printed."""
    done = end(cwd, *words, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Built:
    """A release's two files, the programs of an environment that has the wheel, and a folder to be in."""

    sdist: Path
    wheel: Path
    programs: Path
    outside: Path

    def run(self, *words: str, **settings: str) -> str:
        """Run `buffer-pipeline` outside the checkout."""
        return run(self.outside, self.programs / "buffer-pipeline", *words, **settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, the wheel that is built from it, and a clean environment: locked versions, no extra."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("dist", "outside"):
        (folder / name).mkdir()
    run(ROOT, "uv", "build", "--out-dir", folder / "dist")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    locked = ["uv", "export", "--locked", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet"]
    run(ROOT, *locked, "--output-file", folder / "locked.txt")
    run(folder, "uv", "venv", "--python", sys.executable, "venv")
    run(folder, "uv", "pip", "install", "--python", "venv", "--constraints", "locked.txt", wheel)
    return Built(sdist, wheel, folder / "venv" / "bin", folder / "outside")


@pytest.fixture
def empty_books(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a database that nobody has migrated, for its owner."""
    with fresh_books(server, template="template1") as url:
        yield url


def test_the_wheel_migrates_holds_and_releases(built: Built, empty_books: str) -> None:
    """Its command line brings books into an empty database and settles a hold there."""
    settings = {"BUFFER_DATABASE_URL": empty_books}

    built.run("migrate", **settings)
    built.run("hold", "add", *EARNING.split(), **settings)
    released = json.loads(built.run("release", "--json", **settings))

    assert released["holds_released"] == 1
    assert "1250.50" in built.run("wallet", "show", "worker-17", "--json", **settings)


def test_dev_serves_from_the_wheel(built: Built, server: EmbeddedServer, empty_books: str) -> None:
    """`dev` finds Dagster's settings in the wheel, migrates, and a run of the job settles a hold."""
    port = free_port()
    engine = make_engine(empty_books)
    process = subprocess.Popen(
        [built.programs / "buffer-pipeline", "dev", "--no-sample", f"--port={port}"],
        cwd=built.outside,
        env={
            **os.environ,
            "BUFFER_DATABASE_URL": empty_books,
            "BUFFER_DAGSTER_DATABASE_URL": server.dagster_url.render_as_string(),
            "BUFFER_HOME": str(built.outside / "home"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        started = first_line(process)
        with engine.begin() as connection:
            hold_id = place_hold(connection)
        schedules = {schedule["name"] for schedule in repository(port)["schedules"]}
        status = end_of(port, launch_release(port))
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=WAIT_SECONDS_MAX)
    with engine.connect() as connection:
        state = state_of(connection, hold_id)
    engine.dispose()

    assert started.startswith("Dagster UI: ")
    assert "hourly_release" in schedules
    assert (status, state, code) == ("SUCCESS", HoldState.RELEASED, 0)


def test_help_and_version(built: Built) -> None:
    """Both are answered without a database, and the version is the wheel's."""
    version = json.loads(built.run("--version", "--json"))["version"]

    assert built.wheel.name.startswith(f"buffer_pipeline-{version}-")
    assert "hold earnings" in built.run("--help")


def test_no_embedded_database_comes_along(built: Built) -> None:
    """A plain install has none; a command that needs one says which extra brings it."""
    done = end(built.outside, built.programs / "buffer-pipeline", "hold", "list")

    assert done.returncode == 2
    assert "pip install 'buffer-pipeline[embedded]'" in done.stderr


CALLER: Final = """from buffer_pipeline import ReleaseBatch, release_matured
reveal_type(ReleaseBatch.holds_released)
release_matured("books", now="noon", batch_limit=10)
"""


def test_a_caller_sees_types(built: Built) -> None:
    """Mypy reads the annotations of the installed package, and objects to a clock that is text."""
    (built.outside / "caller.py").write_text(CALLER)

    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "caller.py"]
    done = subprocess.run(
        [*mypy, "--python-executable", built.programs / "python"],
        cwd=built.outside,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 'Revealed type is "int' in done.stdout
    assert 'Argument "now" to "release_matured" has incompatible type "str"' in done.stdout


def test_the_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """Byte for byte what the checkout builds, with nothing that lies about in either."""
    run(ROOT, "uv", "build", "--wheel", "--out-dir", tmp_path)
    (straight,) = tmp_path.glob("*.whl")
    with ZipFile(built.wheel) as wheel:
        rooms = {name.split("/")[0] for name in wheel.namelist()}
    with tarfile.open(built.sdist) as sdist:
        top = {Path(name).parts[1] for name in sdist.getnames()}

    assert straight.read_bytes() == built.wheel.read_bytes()
    metadata = built.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert rooms == {"buffer_pipeline", "buffer_pipeline_start", metadata}
    assert top <= {path.name for path in ROOT.iterdir() if path.name != ".env"} | {"PKG-INFO"}


def version_of(folder: Path, **settings: str) -> str:
    """Return the version that the sources in `folder` would be built as."""
    return run(folder, "uvx", "--with", "hatch-vcs", "hatchling", "version", **settings).strip()


def test_the_version_is_the_tags(built: Built, tmp_path: Path) -> None:
    """By tag, behind it, in a shallow clone without tags, without git, and as an image's build is told."""
    with tarfile.open(built.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    version = built.sdist.name.removeprefix("buffer_pipeline-").removesuffix(".tar.gz")
    shallow = tmp_path / "shallow"
    git = ["git", "-c", "user.name=worker-17", "-c", "user.email=worker-17@example.org"]
    commit = [*git, "commit", "--quiet", "--allow-empty", "--message"]

    assert version_of(tree) == version
    (tree / "PKG-INFO").unlink()
    assert version_of(tree) == "0.0.0+unknown"
    assert version_of(tree, **{PRETEND: "7.1.0"}) == "7.1.0"
    run(tree, "git", "init", "--quiet")
    run(tree, "git", "add", ".")
    run(tree, *commit, "A release.")
    run(tree, "git", "tag", "v7.1.0")
    assert version_of(tree) == "7.1.0"
    run(tree, *commit, "More.")
    assert re.fullmatch(r"7\.1\.1\.dev1\+g[0-9a-f]+", version_of(tree))
    run(tmp_path, "git", "clone", "--quiet", "--depth=1", "--no-tags", f"file://{tree}", shallow)
    assert re.fullmatch(r"0\.0\.1\.dev1\+unknown\.g[0-9a-f]+", version_of(shallow))
