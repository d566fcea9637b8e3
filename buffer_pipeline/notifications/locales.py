"""Amounts, times and durations as text, for an owner's locale and time zone. By Babel."""

import math
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, format_timedelta, get_timezone_gmt
from babel.numbers import NumberPattern, parse_pattern

from buffer_pipeline.money import format_amount

LOCALE_LENGTH_MAX: Final = 35
TIME_ZONE_LENGTH_MAX: Final = 64

_IN_DAYS_FROM_SECONDS: Final = 2 * 86_400


@lru_cache(maxsize=1_000)
def find_locale(name: str) -> Locale | None:
    """Return the locale of a name such as fil_PH or pt-BR, None if Babel does not know it.

    If Babel knows only a part of the name, as in en_XX, it uses that part.
    """
    if not 0 < len(name) <= LOCALE_LENGTH_MAX or not name.isascii():
        return None
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1_000)
def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of an IANA name such as Asia/Manila, None if there is none."""
    if not 0 < len(name) <= TIME_ZONE_LENGTH_MAX:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


class Localization:
    """Formats amounts, times and durations for one locale and one time zone."""

    def __init__(self, locale: Locale, zone: ZoneInfo) -> None:
        self.locale = locale
        self.zone = zone
        self.name = str(locale)
        self.names = _names(locale)
        """The locale's name, then more general ones: zh_Hant_TW, zh_TW, zh_Hant, zh."""
        self.right_to_left = locale.text_direction == "rtl"

    def amount(self, amount_minor: int, currency: str, places: int) -> str:
        """Return an amount with its currency and `places` decimal places, such as ₱1,036.34."""
        return _amount(amount_minor, currency, places, self.name)

    def moment(self, moment: datetime) -> str:
        """Return date, time and offset, such as October 27, 2026, 4:57 PM (GMT+08:00)."""
        return _moment(moment.replace(second=0, microsecond=0), self.name, self.zone)

    def duration(self, duration: timedelta) -> str:
        """Return a duration in days, such as 11 days, or in hours if it is shorter than two days."""
        return _duration(round(duration.total_seconds()), self.name)


@lru_cache(maxsize=10_000)
def _amount(amount_minor: int, currency: str, places: int, locale: str) -> str:
    # In a decimal context of its own, because the caller's may round.
    with localcontext(Context(prec=50)):
        return _currency_pattern(locale, places).apply(
            Decimal(format_amount(amount_minor, places)),
            Locale.parse(locale),
            currency=currency,
            currency_digits=False,
        )


@lru_cache(maxsize=1_000)
def _currency_pattern(locale: str, places: int) -> NumberPattern:
    # Not Babel's own number of places, which is that of everyday use: 0 for IQD, which has 3 in the books.
    pattern = parse_pattern(Locale.parse(locale).currency_formats["standard"].pattern)
    pattern.frac_prec = (places, places)
    return pattern


@lru_cache(maxsize=10_000)  # Many messages share a minute.
def _moment(moment: datetime, locale_name: str, zone: ZoneInfo) -> str:
    locale = Locale.parse(locale_name)
    local = moment.astimezone(zone)
    day = format_date(local.date(), "long", locale=locale)
    clock = format_time(local, "short", tzinfo=zone, locale=locale)
    # CLDR's pattern that joins date and time, such as {1}, {0}. Its quotes enclose literal text.
    pattern = str(locale.datetime_formats["long"]).replace("'", "")
    offset = get_timezone_gmt(local, locale=locale) if local.utcoffset() else "UTC"
    return f"{pattern.replace('{1}', day).replace('{0}', clock)} ({offset})"


@lru_cache(maxsize=10_000)
def _duration(seconds: int, locale: str) -> str:
    granularity: Literal["day", "hour"] = "day" if seconds >= _IN_DAYS_FROM_SECONDS else "hour"
    # The infinite threshold keeps Babel from using a larger unit.
    return format_timedelta(seconds, granularity=granularity, threshold=math.inf, locale=locale)


def _names(locale: Locale) -> tuple[str, ...]:
    names = [str(locale)]
    if locale.territory and find_locale(f"{locale.language}_{locale.territory}") == locale:
        names.append(f"{locale.language}_{locale.territory}")
    if locale.script:
        names.append(f"{locale.language}_{locale.script}")
    return tuple(dict.fromkeys([*names, locale.language]))
