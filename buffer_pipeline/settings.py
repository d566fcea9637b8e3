"""The settings, read from `BUFFER_…` variables of the environment."""

from datetime import date
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from buffer_pipeline.errors import SettingError
from buffer_pipeline.policy import Policy


class Settings(BaseSettings):
    """One field a variable: `days` is BUFFER_DAYS. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="BUFFER_", env_ignore_empty=True, frozen=True)

    home: Path = Path(".buffer")
    database_url: str | None = None
    dagster_database_url: str | None = None
    days: int = Field(default=7, ge=0, le=3650)
    cooldown_hours: int = Field(default=24, ge=0, le=87600)
    max_backjobs_per_job: int = Field(default=3, ge=0, le=1000)
    stuck_after_hours: int = Field(default=72, ge=0, le=87600)
    reports_start: date = Field(default=date(2026, 1, 1), ge=date(1970, 1, 1), le=date(2999, 1, 1))
    keep_runs_days: int = Field(default=90, ge=1, le=3650)

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("not a URL such as postgresql://user:password@host/database") from None
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            raise ValueError(f"needs postgresql://, got {url.get_backend_name()}://")
        return value

    @property
    def policy(self) -> Policy:
        """The figures for the rules."""
        return Policy(
            buffer_days=self.days,
            cooldown_hours=self.cooldown_hours,
            max_backjobs_per_job=self.max_backjobs_per_job,
            stuck_after_hours=self.stuck_after_hours,
        )


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingError: one line that names the variable and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"BUFFER_{str(first['loc'][0]).upper()}"
        fact = first["msg"].removeprefix("Value error, ")
        given = "" if name.endswith("URL") else f", got {first['input']!r}"
        raise SettingError(f"{name}: {fact}{given}") from None
