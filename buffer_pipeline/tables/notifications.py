"""Notifications, their deliveries, and the owners' contacts and inboxes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from buffer_pipeline.tables.schema import metadata, time_column

# The outbox. It has no foreign keys, so that it can be pruned or moved.
notification = Table(
    "notification",
    metadata,
    Column("notification_id", BigInteger, Identity(always=True), primary_key=True),
    Column("type", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    Column("currency", Text, nullable=True),
    Column("amount_minor", BigInteger, nullable=True),
    time_column("release_date", nullable=True),
    time_column("created_at"),
    time_column("dispatched_at", nullable=True),
    # Of a part that was released early: what the hold still holds, until `release_date`. Of a claw-back and a
    # recovery: what its owner still owes; NULL is nothing.
    Column("left_minor", BigInteger, nullable=True),
    # The claw-back that the owner is told of, or whose debt was paid. Its batch says why.
    Column("clawback_id", BigInteger, nullable=True),
    Column("payout_id", BigInteger, nullable=True),
    CheckConstraint(
        "type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED',"
        " 'PAYMENT_RESCHEDULED', 'PAYMENT_REFUNDED', 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED',"
        " 'BACKJOB_APPROVED', 'EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN', 'PAYOUT_SENT',"
        " 'PAYOUT_PAID', 'PAYOUT_RETURNED')",
        name="notification_type_is_known",
    ),
    CheckConstraint(
        "(type LIKE 'PAYMENT\\_%' OR type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN'))"
        " = (hold_id IS NOT NULL)"
        " AND (hold_id IS NULL AND payout_id IS NULL) = (amount_minor IS NULL)"
        " AND (amount_minor IS NULL) = (currency IS NULL)",
        name="notification_of_a_payment_names_its_hold",
    ),
    CheckConstraint(
        "type NOT LIKE 'BACKJOB\\_%' OR backjob_id IS NOT NULL",
        name="notification_of_a_backjob_names_it",
    ),
    CheckConstraint(
        "left_minor IS NULL OR (left_minor > 0"
        " AND (clawback_id IS NOT NULL OR (type = 'PAYMENT_RELEASED' AND release_date IS NOT NULL)))",
        name="notification_left_only_of_a_part_or_a_debt",
    ),
    # Most are of a payment, which is told apart first.
    CheckConstraint(
        "CASE WHEN type LIKE 'PAYMENT\\_%' THEN clawback_id IS NULL AND payout_id IS NULL"
        " ELSE (clawback_id IS NOT NULL)"
        " = (type IN ('EARNING_CLAWED_BACK', 'DEBT_RECOVERED', 'DEBT_FORGIVEN'))"
        " AND (type LIKE 'PAYOUT\\_%') = (payout_id IS NOT NULL) END",
        name="notification_later_columns_fit_its_type",
    ),
    # Dispatching leaves a dead entry in the index below. The index should be as large as what waits, so the
    # vacuum threshold is a number of rows and not a share of the whole history. `vacuum_index_cleanup`:
    # vacuum skips the indexes of a table with less than 2 % dead rows unless this is on.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 50000,
        "vacuum_index_cleanup": "on",
    },
)
Index(
    "notification_undispatched_idx",
    notification.c.notification_id,
    postgresql_where=text("dispatched_at IS NULL"),
)

# A notification on its way to one endpoint. Like the outbox it has no foreign keys. Only one statement writes
# deliveries, from the notifications that it reads. Pruning must delete both.
delivery = Table(
    "delivery",
    metadata,
    Column("delivery_id", BigInteger, Identity(always=True), primary_key=True),
    Column("notification_id", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'WAITING'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time_column("created_at"),
    time_column("next_attempt_at"),
    time_column("first_attempt_at", nullable=True),
    Column("lease", Uuid, nullable=True),
    time_column("leased_until", nullable=True),
    time_column("settled_at", nullable=True),
    Column("reason", Text, nullable=True),
    UniqueConstraint("notification_id", "endpoint", name="delivery_notification_endpoint_key"),
    CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="delivery_endpoint_length"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="delivery_owner_length"),
    CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="delivery_reason_length"),
    CheckConstraint("state IN ('WAITING', 'DELIVERED', 'DEAD')", name="delivery_state_is_known"),
    CheckConstraint("attempts >= 0", name="delivery_attempts_not_negative"),
    CheckConstraint(
        "(attempts = 0) = (first_attempt_at IS NULL)", name="delivery_first_attempt_iff_attempted"
    ),
    CheckConstraint("state = 'WAITING' OR attempts > 0", name="delivery_settled_only_after_an_attempt"),
    CheckConstraint("(state = 'WAITING') = (settled_at IS NULL)", name="delivery_settled_at_iff_not_waiting"),
    # The reason is that of the last failure; dead letters always have one.
    CheckConstraint(
        "(attempts > 0 AND state <> 'DELIVERED') = (reason IS NOT NULL)", name="delivery_reason_iff_failed"
    ),
    CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="delivery_lease_has_an_end"),
    CheckConstraint("state = 'WAITING' OR lease IS NULL", name="delivery_leased_only_while_waiting"),
    # Free space on each page: setting and clearing a lease changes no indexed column, so it is a HOT update.
    postgresql_with={"fillfactor": 70},
)
# A lane: the deliveries that wait for one owner at one endpoint, in the order in which they are sent.
Index(
    "delivery_waiting_idx",
    delivery.c.endpoint,
    delivery.c.owner,
    delivery.c.delivery_id,
    postgresql_where=text("state = 'WAITING'"),
)
Index(
    "delivery_dead_idx",
    delivery.c.settled_at,
    delivery.c.delivery_id,
    postgresql_where=text("state = 'DEAD'"),
)
Index("delivery_owner_idx", delivery.c.owner, delivery.c.delivery_id)

# An endpoint whose receiver does not answer, and until when nothing is sent to it. After that, one probe
# decides.
endpoint_pause = Table(
    "endpoint_pause",
    metadata,
    Column("endpoint", Text, primary_key=True),
    time_column("open_until"),
    Column("reason", Text, nullable=False),
    CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="endpoint_pause_endpoint_length"),
    CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="endpoint_pause_reason_length"),
)

# An owner's language, time zone and email address. An empty column means the default of the settings.
contact = Table(
    "contact",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("locale", Text, nullable=True),
    Column("time_zone", Text, nullable=True),
    Column("email", Text, nullable=True),
    time_column("updated_at"),
    Column("notify_of_shares", Boolean, nullable=False, server_default=text("FALSE")),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="contact_owner_length"),
    CheckConstraint("length(locale) BETWEEN 1 AND 35", name="contact_locale_length"),
    CheckConstraint("length(time_zone) BETWEEN 1 AND 64", name="contact_time_zone_length"),
    CheckConstraint(
        "length(email) BETWEEN 3 AND 254 AND position('@' IN email) > 0", name="contact_email_is_an_address"
    ),
)

# The messages that the platform's app shows. A notification is in it at most once.
inbox_message = Table(
    "inbox_message",
    metadata,
    Column("notification_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    time_column("created_at"),
    time_column("read_at", nullable=True),
    Column("payout_id", BigInteger, nullable=True),
)
Index("inbox_message_owner_idx", inbox_message.c.owner, inbox_message.c.notification_id.desc())
Index(
    "inbox_message_unread_idx",
    inbox_message.c.owner,
    inbox_message.c.notification_id.desc(),
    postgresql_where=text("read_at IS NULL"),
)
