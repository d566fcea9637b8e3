"""Support for the tests: builders, processes, servers and models."""

from pkgutil import iter_modules

import pytest

# Pytest shows the values of a failed assert in these modules, as in test files.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))
