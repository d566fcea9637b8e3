"""Files that a command writes: whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from tempfile import NamedTemporaryFile
from typing import IO

from buffer_pipeline.errors import Refused


def require_writable(path: Path, *, option: str, such_as: str) -> None:
    """Check a path before its content is computed, which takes a while.

    Raises:
        Refused: the folder does not exist, or the path is not a file.
    """
    try:
        if not path.parent.is_dir():
            raise Refused(f"{option} {path}: the folder {path.parent} does not exist; create it first")
        # A device or a folder must not be replaced by a file.
        if path.exists() and not path.is_file():
            raise Refused(f"{option} {path}: exists and is not a file; name one, such as {such_as}")
    except OSError as error:
        raise Refused(f"{option} {path}: {error.strerror}") from None


@contextmanager
def whole_file(path: Path, *, option: str, private: bool = False) -> Iterator[IO[bytes]]:
    """Yield a temporary file, and rename it at the end, so that nobody reads half of it.

    A `private` file can be read by this user only.

    Raises:
        Refused: the folder cannot be written to.
    """
    # Replace the target of a link, not the link.
    target = path.resolve()
    try:
        # Its name cannot be guessed, and only this user can read it until it is renamed.
        with NamedTemporaryFile(dir=target.parent, delete=False) as file:
            beside = Path(file.name)
            try:
                yield file.file
                file.close()
                beside.chmod(0o600 if private else _mode(target))
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{option} {path}: {error.strerror}; nothing was written") from None


def _mode(path: Path) -> int:
    """Return the permissions of the file, or those of a new file."""
    if path.exists():
        return S_IMODE(path.stat().st_mode)
    # The umask can only be read by setting it, for a moment to the strictest value.
    umask = os.umask(0o777)
    os.umask(umask)
    return 0o666 & ~umask
