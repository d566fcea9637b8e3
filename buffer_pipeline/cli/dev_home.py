"""The files of `dev`: workspace.yaml and dagster.yaml, and Dagster's home in BUFFER_HOME."""

import shutil
from pathlib import Path

import yaml

from buffer_pipeline.errors import SettingError


def settings_folder() -> Path:
    """Return the folder of workspace.yaml and dagster.yaml: the checkout, or the folder inside the wheel."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "workspace.yaml").is_file() else checkout / "buffer_pipeline" / "instance"


def module_of(root: Path) -> dict[str, str]:
    """Return the one Python module that workspace.yaml loads."""
    workspace = yaml.safe_load((root / "workspace.yaml").read_text(encoding="utf-8"))
    module: dict[str, str] = workspace["load_from"][0]["python_module"]
    return module


def prepare_dagster_home(home: Path, *, root: Path) -> Path:
    """Create `<home>/dagster` with the dagster.yaml of `root`, and return it.

    Raises:
        SettingError: the folder cannot be created or written.
    """
    dagster_home = home / "dagster"
    try:
        dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "dagster.yaml", dagster_home / "dagster.yaml")
    except OSError as error:
        raise SettingError(f"BUFFER_HOME: cannot use {dagster_home}: {error.strerror}") from None
    return dagster_home
