"""Messages to payees and payers: the outbox, the texts, and the channels that send them."""
