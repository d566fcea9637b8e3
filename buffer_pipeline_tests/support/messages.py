"""Messages of samples, and folders of templates."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from buffer_pipeline.notifications.contact import Contact
from buffer_pipeline.notifications.messages import Messages, samples
from buffer_pipeline.notifications.notification import Notification

BUILT_IN: Final = Messages()
MANILA: Final = Contact(owner="worker-17", locale="en_PH", time_zone="Asia/Manila", email="w17@example.com")


def sample(type_: str = "PAYMENT_RELEASED", *, to_payer: bool = False, **changes: Any) -> Notification:
    """Return the type's sample for one of its readers, with some values changed."""
    found = next(sample for sample in samples(type_) if sample.to_payer is to_payer)
    return replace(found, **changes)


def written(folder: Path, **templates: str) -> Path:
    """Write templates into a folder. Two underscores in a name are a dot."""
    folder.mkdir(exist_ok=True)
    for name, source in templates.items():
        (folder / f"{name.replace('__', '.')}.j2").write_text(source, encoding="utf-8")
    return folder
