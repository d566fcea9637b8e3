"""Status files for as many payouts as a test or a benchmark needs, written without keeping them."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:"
_RETURNED_EVERY: Final = 10
"""One payout of this many is returned."""


def write_status_file(format_name: str, payouts: int, file: BinaryIO) -> None:
    """Write the end of payouts 1 to `payouts` of batch 7: a tenth of them came back."""
    for piece in _PIECES[format_name](payouts):
        file.write(piece.encode())


def _csv(payouts: int) -> Iterator[str]:
    yield "end_to_end_id,outcome,reason\n"
    for number in range(1, payouts + 1):
        yield (
            f"payout-{number},RETURNED,AC04\n"
            if number % _RETURNED_EVERY == 0
            else f"payout-{number},PAID,\n"
        )


def _pain_002(payouts: int) -> Iterator[str]:
    yield f'<Document xmlns="{_NAMESPACE}pain.002.001.10"><CstmrPmtStsRpt>'
    yield "<GrpHdr><MsgId>status-1</MsgId></GrpHdr>"
    yield "<OrgnlGrpInfAndSts><OrgnlMsgId>batch-7</OrgnlMsgId></OrgnlGrpInfAndSts>"
    yield "<OrgnlPmtInfAndSts><OrgnlPmtInfId>batch-7</OrgnlPmtInfId>"
    reason = "<StsRsnInf><Rsn><Cd>AC04</Cd></Rsn><AddtlInf>closed</AddtlInf></StsRsnInf>"
    for number in range(1, payouts + 1):
        status = f"<TxSts>RJCT</TxSts>{reason}" if number % _RETURNED_EVERY == 0 else "<TxSts>ACSC</TxSts>"
        yield f"<TxInfAndSts><OrgnlEndToEndId>payout-{number}</OrgnlEndToEndId>{status}</TxInfAndSts>\n"
    yield "</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"


def _camt_054(payouts: int) -> Iterator[str]:
    yield f'<Document xmlns="{_NAMESPACE}camt.054.001.08"><BkToCstmrDbtCdtNtfctn>'
    yield "<GrpHdr><MsgId>notice-1</MsgId></GrpHdr><Ntfctn><Id>notice-1</Id>"
    reason = "<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"
    for number in range(1, payouts + 1):
        returned = number % _RETURNED_EVERY == 0
        # An entry that is none of the payouts stands between them.
        yield '<Ntry><Amt Ccy="EUR">1</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts></Ntry>\n'
        yield f'<Ntry><Amt Ccy="EUR">10.50</Amt><CdtDbtInd>{"CRDT" if returned else "DBIT"}</CdtDbtInd>'
        yield "<Sts><Cd>BOOK</Cd></Sts><NtryDtls><TxDtls>"
        yield f"<Refs><EndToEndId>payout-{number}</EndToEndId></Refs>"
        yield f"{reason if returned else ''}</TxDtls></NtryDtls></Ntry>\n"
    yield "</Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"


_PIECES: Final[dict[str, Callable[[int], Iterator[str]]]] = {
    "csv": _csv,
    "pain.002": _pain_002,
    "camt.054": _camt_054,
}
