"""Owners' contacts."""

from typing import Annotated, Final

from fastapi import Query
from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Body, Filters
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import NOT_FOR_OPERATORS, read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.notifications.contact import Contact, change_contact, find_contacts

router: Final = new_router("owners")


class OwnerFilter(Filters):
    """Whose contact."""

    owner: str


class ContactBody(Body):
    """What to change; null removes a value, and what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"owner": "worker-17", "locale": "fil_PH", "time_zone": "Asia/Manila"}]
        }
    )

    owner: str
    locale: str | None = None
    time_zone: str | None = None
    email: str | None = None
    notify_of_shares: bool = False


@read(router, "/contact", answer=Contact)
def get_contact(call: Call, filters: Annotated[OwnerFilter, Query()]) -> Contact:
    """Show an owner's locale, time zone and mail address."""
    found = find_contacts(call.connection, [filters.owner]).get(filters.owner)
    if found is None:
        raise NotFound(f"contact {filters.owner!r}: does not exist", owner=filters.owner)
    return found


@write(router, "/contact", method="PUT", answer=Contact, not_for=NOT_FOR_OPERATORS)
def set_contact(call: Call, body: ContactBody) -> Contact:
    """Set the given values of an owner's contact."""
    changes = body.facts()
    owner = changes.pop("owner")
    if not changes:
        raise InvalidInput("contact: give locale, time_zone, email or notify_of_shares", owner=owner)
    return change_contact(call.connection, owner=owner, changes=changes, now=call.now)
