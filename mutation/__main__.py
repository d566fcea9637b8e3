"""Mutation testing of the modules that move money. A mutant that no test kills is a survivor.

    uv run python -m mutation                  # from the start
    uv run python -m mutation --resume         # what is not tested yet, or was changed since
    uv run python -m mutation --survivors      # also what survived, with the tests as they are now

Exits with 1 if the survivors differ from those of survivors.toml.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

from buffer_pipeline.embedded import embedded_server
from buffer_pipeline_tests.support.memory import use_memory
from mutation.survivors import Change, accepted_survivors

MUTANTS: Final = Path("mutants")
"""The folder with mutmut's copies and results."""

CHILDREN: Final = 6 * (os.cpu_count() or 1)
"""Number of mutants tested at once. It is larger than the number of processors, because many mutants only
make database sessions wait for each other until the time limit."""


def main() -> int:
    """Test the mutants, and compare the survivors with the list."""
    parser = argparse.ArgumentParser(
        prog="python -m mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resume", action="store_true", help="go on where the last run ended")
    parser.add_argument("--survivors", action="store_true", help="and test again what has survived")
    arguments = parser.parse_args()
    if arguments.survivors:
        _forget_survivors()
    elif not arguments.resume:
        shutil.rmtree(MUTANTS, ignore_errors=True)

    use_memory()
    with tempfile.TemporaryDirectory() as folder, embedded_server(home := Path(folder) / "home"):
        ended = subprocess.run(  # noqa: S603 - its own words
            [sys.executable, "-m", "mutmut", "run", "--max-children", str(CHILDREN)],
            env={**os.environ, "TESTS_HOME": str(home)},
            check=False,
        )
    return ended.returncode or compare()


def compare() -> int:
    """Print the results, and return 1 if the survivors differ from the list."""
    survived: Counter[Change] = Counter()
    mutants = killed = 0
    for data in _results():
        statuses = {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}
        left = [name for name, status in statuses.items() if status != "killed"]
        survived.update(_change(data, name) for name in left)
        print(f"{_module(data)}: {len(statuses) - len(left)} of {len(statuses)} killed")
        mutants, killed = mutants + len(statuses), killed + len(statuses) - len(left)
    print(f"all: {killed} of {mutants} killed, {100 * killed / mutants:.1f} %")

    accepted = Counter(change for reason in accepted_survivors() for change in reason.mutants)
    for change in sorted((survived - accepted).elements()):
        print(f"\nsurvives, and is not on the list: {change}")
    for change in sorted((accepted - survived).elements()):
        print(f"\nis on the list, and does not survive: {change}")
    return int(survived != accepted)


def _results() -> Iterator[SourceFileMutationData]:
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        yield data


def _forget_survivors() -> None:
    # Tests may have changed. By itself, mutmut tests a mutant again only if the code has changed.
    for data in _results():
        for name, code in data.exit_code_by_key.items():
            if status_by_exit_code[code] != "killed":
                data.exit_code_by_key[name] = None
        data.save()


def _module(data: SourceFileMutationData) -> str:
    """Return the dotted name of a module within the package."""
    return ".".join(Path(data.path).with_suffix("").parts[1:])


def _change(data: SourceFileMutationData, name: str) -> Change:
    lines = get_diff_for_mutant(name, path=data.path).splitlines()[2:]
    function, class_name = orig_function_and_class_names_from_key(name)
    return Change(
        module=_module(data),
        function=f"{class_name}.{function}" if class_name else function,
        was="\n".join(line[1:].strip() for line in lines if line.startswith("-")),
        became="\n".join(line[1:].strip() for line in lines if line.startswith("+")),
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; --resume continues")
