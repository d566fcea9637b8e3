"""Tests of the HTTP API, over real sockets and on a real PostgreSQL."""
