"""Programs run outside the checkout, and environments with them."""

import os
import subprocess
import sys
from pathlib import Path

from buffer_pipeline_tests.support.paths import ROOT


def end(cwd: Path, *words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program without access to the checkout."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH", "DAGSTER_HOME"} and not name.startswith("GIT_")
    }
    return subprocess.run(
        words, cwd=cwd, env={**inherited, **settings}, capture_output=True, text=True, check=False
    )


def run(cwd: Path, *words: str | Path, **settings: str) -> str:
    """Run a program that must succeed, and return its output."""
    done = end(cwd, *words, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(wheel: Path, extras: str = "") -> Path:
    """Create an environment with a wheel and some of its extras, as locked; return its programs."""
    venv = wheel.parent / f"venv-{extras or 'core'}"
    locked = wheel.parent / "locked.txt"
    if not locked.exists():
        export = ["uv", "export", "--locked", "--no-dev", "--all-extras", "--no-emit-project", "--no-hashes"]
        run(ROOT, *export, "--quiet", "--output-file", locked)
    run(wheel.parent, "uv", "venv", "--clear", "--python", sys.executable, venv)
    what = f"{wheel}[{extras}]" if extras else str(wheel)
    run(wheel.parent, "uv", "pip", "install", "--python", venv, "--constraints", locked, what)
    return venv / "bin"
