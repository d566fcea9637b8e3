"""Who pays a batch: the marketplace's own account, from the settings."""

from dataclasses import dataclass

from buffer_pipeline.errors import SettingError
from buffer_pipeline.extras import need
from buffer_pipeline.settings import Settings


@dataclass(frozen=True, kw_only=True)
class KnownDebtor:
    """A debtor of whom everything is set and checked."""

    name: str
    iban: str
    bic: str


@dataclass(frozen=True, kw_only=True)
class Debtor:
    """The settings of the debtor. Some formats need none of them."""

    name: str | None = None
    iban: str | None = None
    bic: str | None = None

    def known(self) -> KnownDebtor:
        """Return the debtor, for a format that names who pays.

        Raises:
            SettingError: a setting is missing, or is not an IBAN or a BIC. The message names the setting and
                not its value.
        """
        name, iban, bic = _given("NAME", self.name), _given("IBAN", self.iban), _given("BIC", self.bic)
        need("payouts", "schwifty")
        from schwifty import BIC, IBAN  # noqa: PLC0415 - reads its list of banks
        from schwifty.exceptions import SchwiftyException  # noqa: PLC0415

        try:
            iban = IBAN(iban).compact
        except SchwiftyException:
            raise SettingError("BUFFER_PAYOUT_DEBTOR_IBAN: not an IBAN") from None
        try:
            bic = BIC(bic).compact
        except SchwiftyException:
            raise SettingError("BUFFER_PAYOUT_DEBTOR_BIC: not a BIC") from None
        return KnownDebtor(name=name, iban=iban, bic=bic)


def debtor_of(settings: Settings) -> Debtor:
    """Return the debtor that the settings name."""
    return Debtor(
        name=settings.payout_debtor_name, iban=settings.payout_debtor_iban, bic=settings.payout_debtor_bic
    )


def _given(variable: str, value: str | None) -> str:
    if not value:
        raise SettingError(f"BUFFER_PAYOUT_DEBTOR_{variable}: not set; the file says who pays")
    return value
