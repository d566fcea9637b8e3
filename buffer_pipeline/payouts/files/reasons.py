"""Why a bank returned a payment, in plain words.

The codes are those of ISO 20022's External Code Sets, ExternalStatusReason1Code and
ExternalReturnReason1Code, which https://www.iso20022.org publishes each quarter. A bank may send a code that
is not here; it is then shown without words.
"""

from collections.abc import Iterable
from typing import Final

REASON_TEXT_LENGTH_MAX: Final = 500
NO_REASON: Final = "no reason given"

WORDS: Final = {
    "AC01": "account number is wrong",
    "AC02": "debtor's account number is wrong",
    "AC03": "account number is wrong",
    "AC04": "account closed",
    "AC06": "account blocked",
    "AC07": "account closed",
    "AC13": "debtor's account is of a type that cannot pay this",
    "AC14": "account is of a type that cannot take this payment",
    "AG01": "account may not take such payments",
    "AG02": "bank does not offer this kind of payment",
    "AGNT": "a bank on the way is wrong",
    "AM01": "amount is zero",
    "AM02": "amount is larger than allowed",
    "AM03": "currency is not possible",
    "AM04": "not enough money on the debtor's account",
    "AM05": "duplicate",
    "AM06": "amount is below the minimum",
    "AM07": "amount is blocked by an authority",
    "AM09": "amount is not the agreed one",
    "AM10": "sum of the file is wrong",
    "AM18": "number of payments in the file is wrong",
    "ARDT": "returned already",
    "BE01": "name does not fit the account",
    "BE04": "creditor's address is missing or wrong",
    "BE05": "who sent the file is not known to the bank",
    "BE06": "creditor is not known to the bank",
    "BE07": "debtor's address is missing or wrong",
    "CNOR": "creditor's bank is not registered for such payments",
    "CURR": "currency is wrong",
    "CUST": "requested by the customer",
    "DNOR": "debtor's bank is not registered for such payments",
    "DT01": "date is wrong",
    "DUPL": "duplicate",
    "ED01": "correspondent bank not possible",
    "ED05": "settlement between the banks failed",
    "FF01": "file format is wrong",
    "FOCR": "cancelled on request",
    "FR01": "fraud",
    "FRAD": "said to be fraudulent",
    "MD07": "creditor has died",
    "MS02": "refused by the creditor, who gave no reason",
    "MS03": "refused by the bank, which gave no reason",
    "NARR": "see the bank's text",
    "NOAS": "no answer from the customer",
    "NOOR": "original payment was not received",
    "RC01": "bank identifier is wrong",
    "RC03": "debtor's bank identifier is wrong",
    "RC04": "creditor's bank identifier is wrong",
    "RF01": "reference is not unique",
    "RR01": "debtor's account or identification is missing (regulation)",
    "RR02": "debtor's name or address is missing (regulation)",
    "RR03": "creditor's name or address is missing (regulation)",
    "RR04": "regulation",
    "TD03": "file structure is wrong",
    "TECH": "technical problem",
    "TM01": "received after the cut-off time",
    "UPAY": "not owed",
}


def reason_text(code: str | None, texts: Iterable[str] = ()) -> str:
    """Return a reason on one line: `AC04: account closed (closed on 1 March)`.

    The code may be a bank's own. `texts` are what the bank wrote beside it.
    """
    code, said = _clean(code or ""), _clean(" ".join(texts))
    parts = [f"{code}: {WORDS[code]}" if code in WORDS else code, f"({said})" if code and said else said]
    return " ".join(part for part in parts if part)[:REASON_TEXT_LENGTH_MAX] or NO_REASON


def _clean(text: str) -> str:
    """Return text of a bank on one line."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
