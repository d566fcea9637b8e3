"""Settings of the replaced application. Its tables are in the platform's database."""

import os

from sqlalchemy import make_url

_URL = make_url(os.environ["PLATFORM_DATABASE_URL"])

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _URL.database,
        "USER": _URL.username,
        "HOST": _URL.query["host"],
        "PORT": _URL.query["port"],
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = ["accounts"]
SECRET_KEY = "not a secret: nothing is signed"
USE_TZ = True
