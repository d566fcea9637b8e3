"""Files stay short enough to read in one go."""

from typing import Final

from buffer_pipeline_tests.support.paths import ROOT

LINES_MAX: Final = 400

GENERATED: Final = {"buffer_pipeline/sql/schema.sql"}

FOLDERS: Final = (
    "buffer_pipeline",
    "buffer_pipeline_start",
    "buffer_pipeline_tests",
    "benchmarks",
    "mutation",
)


def test_no_file_is_longer_than_400_lines() -> None:
    """Of Python or SQL, unless it is generated."""
    files = [
        file for folder in FOLDERS for kind in ("py", "sql") for file in (ROOT / folder).rglob(f"*.{kind}")
    ]

    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}

    assert len(lines) > 500
    assert {name for name, count in lines.items() if count > LINES_MAX} == GENERATED
