"""The tests. `unit` mirrors the package; `books` tests across verbs. Each test runs on a real PostgreSQL."""
