"""The HTTP API: every verb and every read, one request one database transaction."""
