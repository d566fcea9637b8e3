"""How an owner writes amounts, dates and durations: Babel, by locale and time zone."""

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
    """Return the locale of a name such as fil_PH or pt-BR, None when Babel knows none.

    Of a name that it knows in part, such as en_XX, Babel takes the part.
    """
    if not 0 < len(name) <= LOCALE_LENGTH_MAX or not name.isascii():
        return None
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1_000)
def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of a name of the IANA database, such as Asia/Manila, None when there is none."""
    if not 0 < len(name) <= TIME_ZONE_LENGTH_MAX:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


class Voice:
    """A locale and a time zone, and what they make of a figure."""

    def __init__(self, locale: Locale, zone: ZoneInfo) -> None:
        self.locale = locale
        self.zone = zone
        self.name = str(locale)
        self.names = _names(locale)
        """Its own and those of which it is a part, the closest first: zh_Hant_TW, zh_TW, zh_Hant, zh."""
        self.right_to_left = locale.text_direction == "rtl"

    def amount(self, amount_minor: int, currency: str, places: int) -> str:
        """Return an amount with its currency, such as ₱1,036.34, with the places that the books have."""
        return _amount(amount_minor, currency, places, self.name)

    def moment(self, moment: datetime) -> str:
        """Return date, time and offset, such as October 27, 2026, 4:57 PM (GMT+08:00)."""
        return _moment(moment.replace(second=0, microsecond=0), self.name, self.zone)

    def duration(self, duration: timedelta) -> str:
        """Return a duration in days from two days on, in hours below: 11 days, 36 hours."""
        return _duration(round(duration.total_seconds()), self.name)


@lru_cache(maxsize=10_000)
def _amount(amount_minor: int, currency: str, places: int, locale: str) -> str:
    # From the digits, in a context of our own: the caller's may round.
    with localcontext(Context(prec=50)):
        return _currency_pattern(locale, places).apply(
            Decimal(format_amount(amount_minor, places)),
            Locale.parse(locale),
            currency=currency,
            currency_digits=False,
        )


@lru_cache(maxsize=1_000)
def _currency_pattern(locale: str, places: int) -> NumberPattern:
    # Babel's own number of places is the everyday one, none for IQD, of which the books have three.
    pattern = parse_pattern(Locale.parse(locale).currency_formats["standard"].pattern)
    pattern.frac_prec = (places, places)
    return pattern


@lru_cache(maxsize=10_000)  # The holds of an hour share few minutes.
def _moment(moment: datetime, locale_name: str, zone: ZoneInfo) -> str:
    locale = Locale.parse(locale_name)
    local = moment.astimezone(zone)
    day = format_date(local.date(), "long", locale=locale)
    clock = format_time(local, "short", tzinfo=zone, locale=locale)
    # CLDR's pattern for the two together, such as {1}, {0}: quotes are around what is literal.
    together = str(locale.datetime_formats["long"]).replace("'", "")
    offset = get_timezone_gmt(local, locale=locale) if local.utcoffset() else "UTC"
    return f"{together.replace('{1}', day).replace('{0}', clock)} ({offset})"


@lru_cache(maxsize=10_000)
def _duration(seconds: int, locale: str) -> str:
    granularity: Literal["day", "hour"] = "day" if seconds >= _IN_DAYS_FROM_SECONDS else "hour"
    # No larger unit comes up to that threshold.
    return format_timedelta(seconds, granularity=granularity, threshold=math.inf, locale=locale)


def _names(locale: Locale) -> tuple[str, ...]:
    names = [str(locale)]
    if locale.territory and find_locale(f"{locale.language}_{locale.territory}") == locale:
        names.append(f"{locale.language}_{locale.territory}")
    if locale.script:
        names.append(f"{locale.language}_{locale.script}")
    return tuple(dict.fromkeys([*names, locale.language]))
