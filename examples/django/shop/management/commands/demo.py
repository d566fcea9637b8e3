"""Two users and three jobs to click through."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandParser

from shop.models import Job

JOBS = (("Fix kitchen faucet", "1250.50"), ("Deep clean condo", "900.00"), ("Hang curtains", "0.00"))
"""The last one's price is none: its approval is refused, and rolled back."""


class Command(BaseCommand):
    """Make client-3, who gives three jobs, and worker-17, who takes them."""

    help = "Make client-3 and worker-17 with this password, and three jobs between them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("password")

    def handle(self, *, password: str, **_options: Any) -> None:
        client, worker = (
            User.objects.create_user(name, password=password) for name in ("client-3", "worker-17")
        )
        for title, price in JOBS:
            Job.objects.create(title=title, price=price, client=client, worker=worker)
