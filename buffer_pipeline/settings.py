"""The settings, read from `BUFFER_…` variables of the environment."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from buffer_pipeline.errors import InvalidInput, SettingError
from buffer_pipeline.extras import need
from buffer_pipeline.money import parse_amount
from buffer_pipeline.policy import (
    BACKJOBS_PER_JOB_MAX,
    BUFFER_DAYS_MAX,
    COOLDOWN_HOURS_MAX,
    DESTINATION_WAIT_HOURS_MAX,
    PAYOUT_ANSWER_DAYS_MAX,
    PAYOUT_APPROVAL_HOURS_MAX,
    PAYOUT_BATCH_DAYS_MAX,
    STUCK_AFTER_HOURS_MAX,
    PayoutPolicy,
    Policy,
)

DAGSTER_URL: Final = "http://127.0.0.1:3000"
"""The address of Dagster's own webserver by default."""

# A URL may contain a comma, as in mailto://…?to=a,b. So a comma separates two URLs only before a scheme.
_BETWEEN_URLS: Final = re.compile(r"[\s,]*\s[\s,]*|,+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


_PLACES_MAX: Final = 4
"""The most decimal places that a currency of ISO 4217 has."""


class EndpointSetting(BaseModel):
    """One entry of BUFFER_ENDPOINTS: a receiver of notifications and the channel that sends to it.

    `types` are the notification types that it takes, None for all. Other keys are options of the channel.
    They may be secret, so they are never shown.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    channel: str = Field(min_length=1)
    types: tuple[str, ...] | None = Field(default=None, min_length=1)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the channel."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from {"name": self.name, "channel": self.channel, "types": self.types}.items()


class Settings(BaseSettings):
    """One field per variable: `days` is BUFFER_DAYS. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="BUFFER_", env_ignore_empty=True, frozen=True)

    home: Path = Path(".buffer")
    database_url: str | None = Field(default=None, repr=False)
    dagster_database_url: str | None = Field(default=None, repr=False)
    days: int = Field(default=7, ge=0, le=BUFFER_DAYS_MAX)
    cooldown_hours: int = Field(default=24, ge=0, le=COOLDOWN_HOURS_MAX)
    max_backjobs_per_job: int = Field(default=3, ge=0, le=BACKJOBS_PER_JOB_MAX)
    stuck_after_hours: int = Field(default=72, ge=0, le=STUCK_AFTER_HOURS_MAX)
    reports_start: date | None = Field(default=None, ge=date(1970, 1, 1), le=date(2999, 1, 1))
    keep_runs_days: int = Field(default=90, ge=1, le=3650)
    # These contain tokens and passwords, so they are never shown.
    alert_urls: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    heartbeat_url: str | None = Field(default=None, repr=False)
    dagster_url: str = DAGSTER_URL
    log: Literal["text", "json"] = "text"
    endpoints: Annotated[tuple[EndpointSetting, ...], NoDecode] = Field(
        default=(EndpointSetting(name="log", channel="log"),), repr=False
    )

    payout_debtor_name: str | None = None
    payout_debtor_iban: str | None = Field(default=None, repr=False)
    payout_debtor_bic: str | None = None
    """Who pays, in files for a bank."""
    payout_minimums: Annotated[dict[str, str], NoDecode] = Field(default={})
    payout_destination_wait_hours: int = Field(default=72, ge=0, le=DESTINATION_WAIT_HOURS_MAX)
    payout_four_eyes_above: Annotated[dict[str, str], NoDecode] = Field(default={})
    payout_answer_days: int = Field(default=5, ge=0, le=PAYOUT_ANSWER_DAYS_MAX)
    payout_approval_hours: int = Field(default=24, ge=0, le=PAYOUT_APPROVAL_HOURS_MAX)
    payout_batch_days: int = Field(default=7, ge=0, le=PAYOUT_BATCH_DAYS_MAX)

    locale: str = "en_US"
    time_zone: str = "UTC"
    """The language and time zone for owners who have none in their contact."""
    templates: Path | None = None
    """A folder with message templates that replace the built-in ones."""

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            # SQLAlchemy's message would repeat the port, and a wrong one may be part of a password.
            raise ValueError("not a URL such as postgresql://user:password@host/database") from None
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            raise ValueError("needs postgresql://")
        # Otherwise the rest of the password would be the host, which every connection error shows.
        if "@" in f"{url.host}{url.database}":
            raise ValueError("an @ in a user, password or database must be written as %40")
        if not value.isprintable():
            raise ValueError("has a control character or is not UTF-8")
        return value

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _apart(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(_BETWEEN_URLS.split(value.strip(" \t\r\n,"))) if isinstance(value, str) else value
        return urls if any(urls) else ()

    @field_validator("endpoints", mode="before")
    @classmethod
    def _are_endpoints(cls, value: str | Sequence[Any]) -> tuple[EndpointSetting, ...]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
        except (RecursionError, ValueError):
            raise ValueError("not JSON that can be read: nested too deeply, or a number too long") from None
        if not isinstance(given, list | tuple):
            raise ValueError('not a list such as [{"name": "log", "channel": "log"}]')  # noqa: TRY004
        endpoints = tuple(_endpoint(number, each) for number, each in enumerate(given, 1))
        names = [endpoint.name for endpoint in endpoints]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two endpoints have the name {name}")
        return endpoints

    @field_validator("payout_minimums", "payout_four_eyes_above", mode="before")
    @classmethod
    def _are_amounts(cls, value: str | dict[str, str]) -> dict[str, str]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
        except (RecursionError, ValueError):
            raise ValueError('not JSON such as {"PHP": "100.00"}') from None
        if not isinstance(given, dict):
            raise ValueError('not an object such as {"PHP": "100.00"}')  # noqa: TRY004
        for currency, amount in given.items():
            if not re.fullmatch("[A-Z]{3}", currency) or not isinstance(amount, str):
                raise ValueError('not amounts as text by currency, such as {"PHP": "100.00"}')
            try:
                # How many places a currency has, the books know.
                parse_amount(amount, currency, _PLACES_MAX)
            except InvalidInput as error:
                raise ValueError(str(error)) from None
        return given

    @field_validator("heartbeat_url")
    @classmethod
    def _is_an_address_of_the_web(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "http://unset")
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or not (value or "x").isprintable():
            raise ValueError("not a URL such as https://hc-ping.com/5f2c…")
        return value

    @field_validator("dagster_url")
    @classmethod
    def _is_a_base_for_links(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            # `parts.port` raises ValueError if the port is wrong.
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        shown = value.isprintable() and " " not in value
        if not good or not shown or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "not a base for links such as https://dagster.example.com; without a user, as it is shown"
            )
        return value.rstrip("/")

    @property
    def payout_policy(self) -> PayoutPolicy:
        """What the settings say about payouts."""
        return PayoutPolicy(
            minimums=self.payout_minimums,
            destination_wait_hours=self.payout_destination_wait_hours,
            four_eyes_above=self.payout_four_eyes_above,
            answer_days=self.payout_answer_days,
            approval_hours=self.payout_approval_hours,
            batch_days=self.payout_batch_days,
        )

    def known_alert_urls(self) -> tuple[str, ...]:
        """Return `alert_urls` after checking that Apprise can use each of them.

        Only what sends alerts calls this, so that a wrong URL does not stop a release or another command.

        Raises:
            SettingError: Apprise cannot use one of them. The message names its position and not the URL,
                which is secret.
        """
        if not self.alert_urls:
            return ()
        need("alerts", "apprise", why="BUFFER_ALERT_URLS: set, and Apprise is not installed")
        from apprise import Apprise  # noqa: PLC0415 - 0.4 s, for those who set it

        for number, url in enumerate(self.alert_urls, 1):
            with _apprise_says_nothing():
                service = Apprise.instantiate(url)
            if service is None:
                raise SettingError(
                    f"BUFFER_ALERT_URLS: URL {number} of {len(self.alert_urls)} is not one that Apprise"
                    " can use; https://appriseit.com/services/ lists them"
                )
        return self.alert_urls

    @property
    def policy(self) -> Policy:
        """The numbers for the rules."""
        return Policy(
            buffer_days=self.days,
            cooldown_hours=self.cooldown_hours,
            max_backjobs_per_job=self.max_backjobs_per_job,
            stuck_after_hours=self.stuck_after_hours,
        )


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingError: one line that names the variable and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"BUFFER_{str(first['loc'][0]).upper()}"
        fact = first["msg"].removeprefix("Value error, ")
        given = "" if name.endswith(("URL", "URLS", "ENDPOINTS")) else f", got {str(first['input'])[:60]!r}"
        raise SettingError(f"{name}: {fact}{given}") from None


def _endpoint(number: int, given: object) -> EndpointSetting:
    if isinstance(given, EndpointSetting):
        return given
    if not isinstance(given, dict):
        raise ValueError(f'endpoint {number} is not an object such as {{"name": "log", "channel": "log"}}')  # noqa: TRY004
    try:
        return EndpointSetting(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"endpoint {number}: {field}: {first['msg']}") from None


@contextmanager
def _apprise_says_nothing() -> Iterator[None]:
    """Keep Apprise from logging a URL that it cannot use. It would hide only the password."""

    def drop(_record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("apprise")
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
