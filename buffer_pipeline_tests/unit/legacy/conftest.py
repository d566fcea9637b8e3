"""An export that a test may edit."""

import shutil
from pathlib import Path

import pytest

from buffer_pipeline_tests.support.legacy import EXPORT


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A copy of the export that a test may edit."""
    return Path(shutil.copytree(EXPORT, tmp_path / "export"))
