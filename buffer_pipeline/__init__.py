"""The payment buffer of a marketplace."""
