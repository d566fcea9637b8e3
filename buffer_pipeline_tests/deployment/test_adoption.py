"""From the Django application to the books and back: docs/adoption.md on real Django tables."""

import os
import sys
from pathlib import Path
from typing import Final

from sqlalchemy import make_url, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import DAGSTER
from buffer_pipeline.legacy.export import read_export
from buffer_pipeline_tests.support.django_platform import DEPLOY, Platform, export, programs
from buffer_pipeline_tests.support.legacy import LEGACY_APP
from buffer_pipeline_tests.support.pages import run_blocks, sections
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.platforms import superuser

EXAMPLE: Final = ROOT / "examples" / "django"


def test_page_from_shadow_to_rollback(platform: Platform, tmp_path: Path) -> None:
    """Each command of docs/adoption.md, in order, exits and prints as the page shows. The platform's login
    has only the rights to the books that the page grants.
    """
    login_name = make_url(platform.libpq_url).username
    with superuser(platform.url.replace(f"//{login_name}@", "//buffer@")).begin() as connection:
        connection.execute(text(f"REVOKE buffer FROM {login_name}"))
    (tmp_path / "manage.py").symlink_to(LEGACY_APP / "manage.py")
    for part in ("settings.py", "accounts"):
        (tmp_path / part).symlink_to(LEGACY_APP / part)
    shadow, shop = (f"{name}_{os.urandom(6).hex()}" for name in ("shadow", "shop"))
    url = make_url(platform.libpq_url)
    owner = url.set(username="buffer")
    admin = make_engine(platform.server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), str(programs(platform)), os.environ["PATH"]]
        ),
        "BUFFER_HOME": str(tmp_path / "home"),
        "BUFFER_DATABASE_URL": url.set(username=DAGSTER).render_as_string(),
        "PLATFORM_DATABASE_URL": platform.libpq_url,
        "DJANGO_URL": platform.libpq_url,
        "OWNER_URL": owner.render_as_string(),
        "SHADOW_URL": owner.set(database=shadow).render_as_string(),
        "ADMIN_URL": url.set(username="postgres", database="postgres").render_as_string(),
        "SHOP": shop,
        "SHOP_URL": url.set(database=shop).render_as_string(),
        "SHOP_OWNER_URL": owner.set(database=shop).render_as_string(),
        "DJANGO_LOGIN": login_name or "",
        "DEPLOY": str(DEPLOY),
        "EXAMPLE": str(EXAMPLE),
    }
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {shadow} OWNER buffer"))
    try:
        for blocks in sections("adoption.md").values():
            run_blocks(blocks, cwd=tmp_path, environment=environment)
    finally:
        with admin.connect() as connection:
            for name in (shadow, shop):
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        admin.dispose()

    export_behind = read_export(export(platform, tmp_path / "behind"), currency="PHP", places=2)
    assert export_behind.quarantined == ()
    with platform.engine.connect() as connection:
        assert not reconcile(connection)
