"""The wheel, built as a release is, installed into a clean environment and used outside the checkout."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.conftest import fresh_books
from buffer_pipeline_tests.stack import WAIT_SECONDS_MAX, end_of, first_line, free_port, launch_release

ROOT: Final = Path(__file__).parents[1]
EARNING: Final = (
    "--job=job-8 --payee=worker-17 --payer=client-3 --amount=1250.50 --currency=PHP"
    " --held-at=2026-03-02T12:00Z"
)
PRETEND: Final = "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_BUFFER_PIPELINE"


NONE: Final[Mapping[str, str]] = {}


def run(*words: str | Path, cwd: Path, status: int = 0, settings: Mapping[str, str] = NONE) -> str:
    """Run a program as somebody does who knows nothing of the checkout; return what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH", "DAGSTER_HOME"} and not name.startswith("GIT_")
    }
    done = subprocess.run(
        list(words), cwd=cwd, env={**inherited, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


@dataclass(frozen=True)
class Built:
    """A release's two files, the programs of an environment that has the wheel, and a folder to be in."""

    sdist: Path
    wheel: Path
    programs: Path
    outside: Path

    def run(self, program: str, *words: str, status: int = 0, settings: Mapping[str, str] = NONE) -> str:
        """Run one of its programs outside the checkout."""
        return run(self.programs / program, *words, cwd=self.outside, status=status, settings=settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, the wheel that is built from it, and a clean environment: locked versions, no extra."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("dist", "outside"):
        (folder / name).mkdir()
    run("uv", "build", "--out-dir", folder / "dist", cwd=ROOT)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    locked = ["uv", "export", "--locked", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet"]
    run(*locked, "--output-file", folder / "locked.txt", cwd=ROOT)
    run("uv", "venv", "--python", sys.executable, folder / "venv", cwd=folder)
    install: list[str | Path] = [
        "uv",
        "pip",
        "install",
        "--python",
        folder / "venv",
        "--constraints",
        folder / "locked.txt",
    ]
    run(*install, wheel, cwd=folder)
    return Built(sdist, wheel, folder / "venv" / "bin", folder / "outside")


@pytest.fixture
def empty_books(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a database that nobody has migrated, for its owner."""
    with fresh_books(server, template="template1") as url:
        yield url


def test_the_wheel_migrates_holds_and_releases(built: Built, empty_books: str) -> None:
    """Its command line, and the job as Dagster runs it by the module's name, do the work."""
    settings = {"BUFFER_DATABASE_URL": empty_books}

    built.run("buffer-pipeline", "migrate", settings=settings)
    for number in (1, 2):
        built.run(
            "buffer-pipeline",
            "hold",
            "add",
            f"--reference=invoice-{number}",
            *EARNING.split(),
            settings=settings,
        )
        if number == 1:
            released = json.loads(built.run("buffer-pipeline", "release", "--json", settings=settings))
    job = ["--module-name", "buffer_pipeline.orchestration.definitions", "--attribute", "defs"]
    built.run("dagster", "job", "execute", *job, "--job", "release_pending_payments", settings=settings)
    wallet = json.loads(
        built.run("buffer-pipeline", "wallet", "show", "worker-17", "--json", settings=settings)
    )

    assert released["holds_released"] == 1
    assert "2501.00" in json.dumps(wallet)
    assert built.run("buffer-pipeline", "reconcile", settings=settings) == "9 invariants hold.\n"


def test_dev_serves_from_the_wheel(built: Built, server: EmbeddedServer, empty_books: str) -> None:
    """`buffer-pipeline dev` finds the settings of Dagster in the wheel, and a run ends well."""
    port = free_port()
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
        status = end_of(port, launch_release(port))
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=WAIT_SECONDS_MAX)

    assert started.startswith("Dagster UI: ")
    assert (status, code) == ("SUCCESS", 0)


def test_help_and_version(built: Built) -> None:
    """Both are answered without a database, and the version is the wheel's."""
    version = built.run("buffer-pipeline", "--version").strip()

    assert built.wheel.name.startswith(f"buffer_pipeline-{version}-")
    assert json.loads(built.run("buffer-pipeline", "--version", "--json")) == {"version": version}
    assert "hold earnings" in built.run("buffer-pipeline", "--help")


def test_no_embedded_database_comes_along(built: Built) -> None:
    """A plain install has none; a command that needs one says which extra brings it."""
    said = built.run("buffer-pipeline", "hold", "list", status=2)

    assert "pip install 'buffer-pipeline[embedded]'" in said


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
    run("uv", "build", "--wheel", "--out-dir", tmp_path, cwd=ROOT)
    (straight,) = tmp_path.glob("*.whl")
    with ZipFile(built.wheel) as wheel:
        rooms = {name.split("/")[0] for name in wheel.namelist()}
    with tarfile.open(built.sdist) as sdist:
        top = {Path(name).parts[1] for name in sdist.getnames()}

    assert straight.read_bytes() == built.wheel.read_bytes()
    assert rooms == {"buffer_pipeline", built.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    assert top <= {path.name for path in ROOT.iterdir() if path.name != ".env"} | {"PKG-INFO"}


def version_of(folder: Path, **settings: str) -> str:
    """Return the version that the sources in `folder` would be built as."""
    return run("uvx", "--with", "hatch-vcs", "hatchling", "version", cwd=folder, settings=settings).strip()


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
    run("git", "init", "--quiet", cwd=tree)
    run("git", "add", ".", cwd=tree)
    run(*commit, "A release.", cwd=tree)
    run("git", "tag", "v7.1.0", cwd=tree)
    assert version_of(tree) == "7.1.0"
    run(*commit, "More.", cwd=tree)
    assert re.fullmatch(r"7\.1\.1\.dev1\+g[0-9a-f]+", version_of(tree))
    run("git", "clone", "--quiet", "--depth=1", "--no-tags", f"file://{tree}", shallow, cwd=tmp_path)
    assert re.fullmatch(r"0\.0\.1\.dev1\+unknown\.g[0-9a-f]+", version_of(shallow))
