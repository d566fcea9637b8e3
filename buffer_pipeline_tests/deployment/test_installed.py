"""The wheel of a release, installed in a clean environment and used outside the checkout."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import place_hold, state_of
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.programs import end, install, run
from buffer_pipeline_tests.support.stack import (
    WAIT_SECONDS_MAX,
    end_of,
    free_port,
    launch_release,
    lines_until_ui,
    repository,
)

pytestmark = pytest.mark.dagster  # A whole installation, on the server that comes along.
EARNING: Final = (
    "--reference=job-8-done --job=job-8 --payee=worker-17 --payer=client-3 --amount=1250.50 --currency=PHP"
    " --held-at=2026-03-02T12:00Z"
)


@dataclass(frozen=True)
class Built:
    """A release's two files, the programs of an environment with the wheel, and a working folder."""

    sdist: Path
    wheel: Path
    programs: Path
    outside: Path

    def run(self, *words: str, **settings: str) -> str:
        """Run `buffer-pipeline` outside the checkout."""
        return run(self.outside, self.programs / "buffer-pipeline", *words, **settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, the wheel built from it, and a clean, locked environment as on a server."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("dist", "outside"):
        (folder / name).mkdir()
    run(ROOT, "uv", "build", "--out-dir", folder / "dist")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return Built(sdist, wheel, install(wheel, "dagster,metrics,alerts"), folder / "outside")


@pytest.fixture
def empty_books(server: EmbeddedServer) -> Iterator[str]:
    """The owner's URL of a database without books."""
    with fresh_books(server, template="template1") as url:
        yield url


def test_the_wheel_migrates_holds_and_releases(built: Built, empty_books: str) -> None:
    """Its command line migrates an empty database and settles a hold."""
    settings = {"BUFFER_DATABASE_URL": empty_books}

    built.run("migrate", **settings)
    built.run("hold", "add", *EARNING.split(), **settings)
    released = json.loads(built.run("release", "--json", **settings))

    assert released["holds_released"] == 1
    assert "1250.50" in built.run("wallet", "show", "worker-17", "--json", **settings)


def test_dev_serves_from_the_wheel(built: Built, server: EmbeddedServer, empty_books: str) -> None:
    """`dev` finds Dagster's settings in the wheel and migrates, and a run of the job settles a hold."""
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
        started = lines_until_ui(process)
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

    assert started[-1].startswith("Dagster UI: ")
    assert "hourly_release" in schedules
    assert (status, state, code) == ("SUCCESS", HoldState.RELEASED, 0)


def test_help_and_version(built: Built) -> None:
    """Both work without a database. The version is the wheel's."""
    version = json.loads(built.run("--version", "--json"))["version"]

    assert built.wheel.name.startswith(f"buffer_pipeline-{version}-")
    assert "hold earnings" in built.run("--help")


def test_plain_install_has_no_embedded_database(built: Built) -> None:
    """A command that needs it names the extra."""
    done = end(built.outside, built.programs / "buffer-pipeline", "hold", "list")

    assert done.returncode == 2
    assert "pip install 'buffer-pipeline[embedded]'" in done.stderr


CALLER: Final = """from buffer_pipeline import ReleaseBatch, release_matured
reveal_type(ReleaseBatch.holds_released)
release_matured("books", now="noon", batch_limit=10)
"""


def test_a_caller_sees_types(built: Built) -> None:
    """Mypy reads the package's annotations and rejects a `now` that is text."""
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
    """It is byte for byte what the checkout builds, without stray files."""
    run(ROOT, "uv", "build", "--wheel", "--out-dir", tmp_path)
    (straight,) = tmp_path.glob("*.whl")
    with ZipFile(built.wheel) as wheel:
        folders = {name.split("/")[0] for name in wheel.namelist()}
    with tarfile.open(built.sdist) as sdist:
        top = {Path(name).parts[1] for name in sdist.getnames()}

    assert straight.read_bytes() == built.wheel.read_bytes()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert built.wheel.name == f"buffer_pipeline-{version}-py3-none-any.whl"
    metadata = built.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert folders == {"buffer_pipeline", "buffer_pipeline_start", metadata}
    assert top <= {path.name for path in ROOT.iterdir() if path.name != ".env"} | {"PKG-INFO"}
