"""`payout export` and `payout import-status`: a batch as a file, and the bank's answer."""

import hashlib
from pathlib import Path
from stat import S_IMODE
from typing import Final

import pytest

from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.payouts import IBAN, IDS
from buffer_pipeline_tests.support.status_files import element, pain_002, reason

ONE, TWO, NINE = (IDS.of_payout(number) for number in (1, 2, 9))
WHY: Final = ("--by", "finance-1", "--reason", "new")


@pytest.fixture
def sent(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command line with the sent batch 1 of two payouts in euros: 800.00 and 300.00."""
    monkeypatch.setenv("BUFFER_PAYOUT_DESTINATION_WAIT_HOURS", "0")
    for owner, amount in (("worker-17", "800"), ("worker-18", "300")):
        run("wallet", "deposit", owner, "--amount", amount, "--currency=EUR", f"--reference=in-{owner}")
        account = ("--method", "iban", "--account", IBAN, "--holder-name", owner)
        run("payout", "destination", "set", owner, *account, *WHY)
        run("payout", "request", owner, "--all", "--currency", "EUR", "--key", f"payday-{owner}")
    run("payout", "batch", "make", "--currency", "EUR", "--by", "finance-1")
    run("payout", "batch", "approve", "1", "--by", "finance-2")
    run("payout", "batch", "send", "1", "--by", "finance-1")
    return run


def status_file(folder: Path, *lines: str, name: str = "status.csv") -> str:
    """Write a status file of these lines; return its path."""
    path = folder / name
    path.write_text("\n".join(("end_to_end_id,outcome,reason", *lines)) + "\n")
    return str(path)


def test_export_writes_the_same_private_file_each_time(sent: Run, tmp_path: Path) -> None:
    """One line for each payout, with its account."""
    files = [tmp_path / "first.csv", tmp_path / "second.csv"]

    first, _ = (
        sent("payout", "export", "1", "--out", str(file), "--by", "finance-1", "--json") for file in files
    )

    assert first.json == {
        "batch_id": 1,
        "format": "csv",
        "payouts": 2,
        "amount": "1100.00",
        "file": str(files[0]),
        "sha256": hashlib.sha256(files[0].read_bytes()).hexdigest(),
        "exports": 1,
    }
    assert files[0].read_text().splitlines()[1:] == [
        f"1,{IDS.of_payout(1)},worker-17,IBAN,{IBAN},worker-17,800.00,EUR",
        f"2,{IDS.of_payout(2)},worker-18,IBAN,{IBAN},worker-18,300.00,EUR",
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]


def test_a_second_export_says_so(sent: Run, tmp_path: Path) -> None:
    """A bank that gets both files may pay twice. The batch shows who has exported it, as what and when."""
    sent("payout", "export", "1", "--out", str(tmp_path / "first.csv"), "--by", "finance-1")

    again = sent("payout", "export", "1", "--out", str(tmp_path / "second.csv"))
    shown = sent("payout", "batch", "show", "1", "--json").json

    assert "This is export 2 of batch 1. A bank that gets two files may pay twice" in again.out
    assert "export 1: csv by finance-1 at 20" in again.out
    assert "the same bytes" in again.out
    assert [(each["format"], each["by"]) for each in shown["exports"]] == [
        ("csv", "finance-1"),
        ("csv", "buffer"),
    ]
    assert shown["exports"][0]["sha256"] == shown["exports"][1]["sha256"]
    assert "exported as csv by finance-1 at 20" in sent("payout", "batch", "show", "1").out


def test_an_export_that_fails_is_not_noted(sent: Run, tmp_path: Path) -> None:
    """There is no file either."""
    refused = sent("payout", "export", "1", "--format", "pain.001", "--out", str(tmp_path / "batch.xml"))

    assert refused.code == 2
    assert sent("payout", "batch", "show", "1", "--json").json["exports"] == []


def test_export_as_pain_001_names_who_pays(
    sent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the settings of the debtor nothing is written."""
    out = tmp_path / "batch.xml"
    export = ("payout", "export", "1", "--format", "pain.001", "--out", str(out))

    refused = sent(*export)
    assert (refused.code, out.exists()) == (2, False)
    assert "BUFFER_PAYOUT_DEBTOR_NAME: not set" in refused.err
    monkeypatch.setenv("BUFFER_PAYOUT_DEBTOR_NAME", "shop")
    monkeypatch.setenv("BUFFER_PAYOUT_DEBTOR_IBAN", "FR1420041010050500013M02606")
    monkeypatch.setenv("BUFFER_PAYOUT_DEBTOR_BIC", "COBADEFFXXX")
    done = sent(*export)

    assert done.code == 0
    assert out.read_text().count(f"<EndToEndId>{IDS.of_payout(1)[:-1]}") == 2
    assert "<Cdtr><Nm>worker-17</Nm></Cdtr>" in out.read_text()
    assert f"<MsgId>{IDS.of_batch(1)}</MsgId>" in out.read_text()
    assert "<CtrlSum>1100.00</CtrlSum>" in out.read_text()


def test_a_batch_that_is_not_sent_has_no_file(sent: Run, tmp_path: Path) -> None:
    """Neither has an unknown one, and a folder that does not exist is named before."""
    out = tmp_path / "batch.csv"
    sent("wallet", "deposit", "worker-17", "--amount", "5", "--currency=EUR", "--reference=in-2")
    sent("payout", "request", "worker-17", "--all", "--currency", "EUR", "--key", "payday-5")
    sent("payout", "batch", "make", "--currency", "EUR", "--by", "finance-1")

    not_sent, unknown, nowhere = (
        sent("payout", "export", batch, "--out", path)
        for batch, path in (("2", str(out)), ("9", str(out)), ("1", str(tmp_path / "no" / "batch.csv")))
    )

    assert "payout batch 2: is MADE; only a SENT one has lines for a file" in not_sent.err
    assert "payout batch 9: does not exist" in unknown.err
    assert "does not exist; create it first" in nowhere.err
    assert not out.exists()


def test_import_marks_what_the_bank_says_once(sent: Run, tmp_path: Path) -> None:
    """Money that came back is in its balance, unknown lines are named, and the same file is refused."""
    file = status_file(tmp_path, f"{ONE},PAID,", f"{TWO},RETURNED,AC04", f"{NINE},PAID,", "order-7,PAID,")
    command = ("payout", "import-status", "1", file)

    done = sent(*command, "--json")
    again = sent(*command)

    assert done.json == {
        "paid": 1,
        "returned": 1,
        "unknown": ["order-7", NINE],
        "differing": [],
        "conflicting": [],
    }
    assert f"unknown: '{NINE}': no payout of the batch" in done.err
    assert again.code == 1
    assert "this file was imported by 'buffer' at" in again.err
    assert ": 1 paid, 1 returned, 2 unknown, 0 differing, 0 conflicting" in again.err
    rows = sent("payout", "list", "--json").json
    assert [(row["payout_id"], row["state"]) for row in rows] == [(2, "RETURNED"), (1, "PAID")]
    balances = [
        sent("wallet", "show", f"worker-{number}", "--json").json[0]["balance"] for number in (17, 18)
    ]
    assert balances == ["0.00", "300.00"]


def test_the_format_is_what_the_file_is(sent: Run, tmp_path: Path) -> None:
    """A bank's answer to the whole batch needs no option. `--format` forces one."""
    file = tmp_path / "answer"
    rejected = element("GrpSts", "RJCT") + element("StsRsnInf", reason("FF01"))
    file.write_bytes(pain_002("pain.002.001.10", group=rejected, message=IDS.of_batch(1)))

    forced = sent("payout", "import-status", "1", str(file), "--format", "csv")
    done = sent("payout", "import-status", "1", str(file), "--json")

    assert "status file, line 1" in forced.err
    assert (done.json["paid"], done.json["returned"]) == (0, 2)
    assert {row["return_reason"] for row in sent("payout", "list", "--json").json} == {
        "FF01: file format is wrong"
    }


def test_another_amount_is_named(sent: Run, tmp_path: Path) -> None:
    """Nothing is marked for that payout."""
    file = tmp_path / "status.csv"
    file.write_text(f"end_to_end_id,outcome,amount,currency\n{ONE},PAID,799.99,EUR\n{TWO},PAID,300,EUR\n")

    done = sent("payout", "import-status", "1", str(file))

    assert "Batch 1: 1 paid, 0 returned, 0 unknown, 1 differing." in done.out
    assert f"differing: '{ONE}': its amount or currency is not that of the payout" in done.out
    assert [row["state"] for row in sent("payout", "list", "--json").json] == ["PAID", "SENT"]


def test_lines_that_mark_nothing_are_read_later(sent: Run, tmp_path: Path) -> None:
    """The batch shows each file with its unknown, differing and conflicting lines, in its words."""
    file = tmp_path / "status.csv"
    file.write_text(f"end_to_end_id,outcome,amount\n{ONE},RETURNED,\n{TWO},PAID,299.99\norder-7,PAID,\n")
    sent("payout", "import-status", "1", str(file), "--by", "finance-1")
    sent("payout", "import-status", "1", status_file(tmp_path, f"{ONE},PAID,"), "--by", "finance-2")

    shown = sent("payout", "batch", "show", "1", "--json").json["status_files"]
    text = sent("payout", "batch", "show", "1").out

    named = ("by", "paid", "returned", "unknown", "differing", "conflicting")
    assert [[each[name] for name in named] for each in shown] == [
        ["finance-1", 0, 1, ["order-7"], [TWO], []],
        ["finance-2", 0, 0, [], [], [ONE]],
    ]
    assert "by finance-2: 0 paid, 0 returned, 0 unknown, 1 conflicting" in text
    assert f"conflicting: '{ONE}': came back and is paid" in text


def test_a_rejection_as_a_duplicate_marks_nothing(sent: Run, tmp_path: Path) -> None:
    """The file was uploaded twice, and the bank pays the first one."""
    file = tmp_path / "answer.xml"
    rejected = element("GrpSts", "RJCT") + element("StsRsnInf", reason("DU01"))
    file.write_bytes(pain_002("pain.002.001.10", group=rejected, message=IDS.of_batch(1)))

    done = sent("payout", "import-status", "1", str(file))

    assert "1 line with status rejected as a duplicate: nothing was marked" in done.out
    assert {row["state"] for row in sent("payout", "list", "--json").json} == {"SENT"}


def test_a_broken_file_marks_nothing(sent: Run, tmp_path: Path) -> None:
    """Not even the lines before the fault."""
    file = status_file(tmp_path, f"{ONE},PAID,", f"{TWO},LOST,")

    refused = sent("payout", "import-status", "1", file, "--by", "finance-1")
    absent = sent("payout", "import-status", "1", str(tmp_path / "absent.csv"), "--by", "finance-1")

    assert refused.code == 1
    assert "status file, line 3" in refused.err
    assert absent.code == 2
    assert {row["state"] for row in sent("payout", "list", "--json").json} == {"SENT"}
