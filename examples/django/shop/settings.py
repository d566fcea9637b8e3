"""Settings. The platform's tables and the books are in one database, so that one commit covers both."""

import os

from sqlalchemy import make_url

_URL = make_url(os.environ["SHOP_DATABASE_URL"])

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _URL.database,
        "USER": _URL.username,
        "PASSWORD": _URL.password or "",
        "HOST": _URL.host or _URL.query.get("host", ""),
        "PORT": _URL.port or _URL.query.get("port", ""),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "shop"]
LOGIN_REDIRECT_URL = "/"
LOGIN_URL = "/login"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "shop.refusals.RefusalMiddleware",
]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = os.environ["SHOP_SECRET_KEY"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.contrib.auth.context_processors.auth"]},
    }
]
TIME_ZONE = "UTC"
USE_TZ = True
