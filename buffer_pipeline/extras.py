"""Optional dependencies (extras), and the one-line error if one is missing."""

from importlib.util import find_spec

from buffer_pipeline.errors import SettingError


class MissingExtra(SettingError, ImportError):
    """The extra that a part of the package needs is not installed."""


def need(extra: str, module: str, *, why: str = "") -> None:
    """Require that a module of an extra is installed.

    Raises:
        MissingExtra: it is not installed; the message begins with `why` and names the extra.
    """
    if find_spec(module) is None:
        raise MissingExtra(f"{why or module + ': not installed'} (pip install 'buffer-pipeline[{extra}]')")
