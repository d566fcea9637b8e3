"""`release-now --amount`, and how other commands show a released part."""

from typing import Final

import pytest

from buffer_pipeline_tests.support.commands import Run, hold_add

PART: Final = (
    "release-now",
    "--hold",
    "1",
    "--amount",
    "250.50",
    "--reference",
    "half-41",
    "--by",
    "client-3",
    "--reason",
    "half is done",
)


def test_release_now_of_a_part(run: Run) -> None:
    """The output is that of a release, with the remaining amount."""
    hold_add(run)

    released = run(*PART, "--json")
    again = run(*PART, "--json")

    assert released.code == 0
    assert released.json["amounts"] == {"PHP": "250.50"}
    assert released.json["left"] == {"PHP": "1000.00"}
    assert (released.json["holds_released"], released.json["parts_released"]) == (0, 1)
    assert (released.json["replayed"], again.json["replayed"]) == (False, True)
    assert {**again.json, "as_of": None} == {**released.json, "replayed": True, "as_of": None}


def test_release_now_prints_the_remaining_amount(run: Run) -> None:
    """In one line, also on a replay."""
    hold_add(run)

    first, again = run(*PART), run(*PART)

    assert first.out == "Released a part of hold 1, 250.50 PHP. 1000.00 PHP is still held.\n"
    assert again.out == (
        "Released a part of hold 1, 250.50 PHP before, by the same reference. 1000.00 PHP is still held.\n"
    )


def test_a_part_without_a_reference_is_released_once(run: Run) -> None:
    """The command makes the reference and prints it. The same amount in another notation is a replay."""
    hold_add(run)
    arguments = [*PART[:5], *PART[7:]]

    first, again = run(*arguments, "--json").json, run(*arguments[:4], "250.5", *arguments[5:])

    assert (first["amounts"], first["left"], first["replayed"]) == (
        {"PHP": "250.50"},
        {"PHP": "1000.00"},
        False,
    )
    assert again.out == (
        "Released a part of hold 1, 250.50 PHP before, by the same reference. 1000.00 PHP is still held."
        f" Reference: {first['reference']}. To release the same amount once more, give --reference.\n"
    )
    assert run(*arguments, "--reference", "once-more", "--json").json["left"] == {"PHP": "749.50"}


@pytest.mark.parametrize(
    "changes", [("--amount", "250.51"), ("--by", "admin-1", "--admin"), ("--reason", "more is done")]
)
def test_other_part_without_a_reference_is_another_release(run: Run, changes: tuple[str, ...]) -> None:
    """With another amount, person or reason."""
    hold_add(run)
    arguments = [*PART[:5], *PART[7:]]
    first = run(*arguments, "--json").json

    other = run(*arguments, *changes, "--json").json

    assert other["replayed"] is False
    assert other["reference"] != first["reference"]


def test_release_of_the_rest_leaves_nothing(run: Run) -> None:
    """The output says so."""
    hold_add(run)
    run(*PART)

    rest = run("release-now", "--hold", "1", "--by", "client-3", "--reason", "well done")

    assert rest.out == "Released 1 payment, 1000.00 PHP.\n"


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ("--hold 1 --amount x", "amount 'x'"),
        ("--job job-8 --amount 1", "release early: an amount of job 'job-8'"),
        ("--job job-8 --amount 1 --reference x", "release early: an amount of job 'job-8'"),
        ("--hold 1 --amount 1250.51 --reference x", "hold 1: 1250.51 PHP is above the 1250.50 that it holds"),
        ("--hold 1 --amount 0.001 --reference x", "amount 0.001: PHP has 2 places, this has 3"),
        (
            "--hold 1 --amount 7 --reference half-41",
            "reference 'half-41': already used for the early release",
        ),
    ],
)
def test_invalid_part_is_refused(run: Run, options: str, output: str) -> None:
    """One line, exit code 1, and nothing is released."""
    hold_add(run)
    if "half-41" in options:
        run(*PART)
    before = run("wallet", "show", "worker-17", "--json").json

    refused = run("release-now", *options.split(), "--by", "client-3", "--reason", "x")

    assert refused.code == 1
    assert refused.err.startswith(output)
    assert run("wallet", "show", "worker-17", "--json").json == before


def test_hold_show_lists_the_parts(run: Run) -> None:
    """Original, released and remaining amounts, and each part among the transactions."""
    hold_add(run)
    run(*PART)

    shown, document = run("hold", "show", "1"), run("hold", "show", "1", "--json").json

    assert "held: 1250.50\nrefunded: 0.00\nreleased: 250.50\nleft: 1000.00\n" in shown.out
    assert (document["released"], document["left"]) == ("250.50", "1000.00")
    assert [(line["type"], line["amount"]) for line in document["transactions"]] == [
        ("PENDING_EARNING", "1250.50"),
        ("EARNING_PART", "250.50"),
    ]


def test_statement_and_audit_trail_show_the_part(run: Run) -> None:
    """The statement has its amounts, the audit trail who released it."""
    hold_add(run)
    run(*PART)

    statement = run("wallet", "statement", "worker-17", "--json").json
    (line,) = run("audit", "list", "--json").json

    last = statement[-1] if isinstance(statement, list) else statement["transactions"][-1]
    assert (last["type"], last["change"], last["pending_change"]) == ("EARNING_PART", "250.50", "-250.50")
    assert (line["verb"], line["by"], line["hold_id"]) == ("RELEASE_PART", "client-3", 1)
    assert line["detail"]["amount"] == "250.50"
