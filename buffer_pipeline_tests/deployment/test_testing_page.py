"""docs/testing.md: its commands print what it shows, and its test for pytest passes as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline_tests.support.pages import DOCS, blocks_of, run_blocks

PAGE: Final = DOCS / "testing.md"
ENVIRONMENT: Final = {
    **{name: value for name, value in os.environ.items() if not name.startswith("BUFFER_")},
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


@pytest.mark.timeout(600)
def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    """In their order, on one sandbox."""
    run_blocks(blocks_of(PAGE), cwd=tmp_path, environment=ENVIRONMENT)


@pytest.mark.timeout(600)
def test_example_for_pytest_passes(tmp_path: Path) -> None:
    """In a folder of its own, without this project's configuration."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "test_seven_days.py").write_text(example)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            str(tmp_path / "temp"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
