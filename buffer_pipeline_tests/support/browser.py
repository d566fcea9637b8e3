"""The browser that the tests drive."""

import os
import shutil
from typing import Final

import pytest

CHROMIUM_ARGUMENTS: Final = (
    "--no-sandbox",  # Root must do without it.
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Return the path of the browser. Without one, skip, or fail if REQUIRE_BROWSER is set."""
    found = shutil.which("chromium")
    if found is None:
        reason = "no browser: `chromium` is not on the PATH (apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
