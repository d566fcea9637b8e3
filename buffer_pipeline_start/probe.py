"""`python -m buffer_pipeline_start.probe code|daemon`: a cheap health check of a part of Dagster.

Dagster's own health checks import all of Dagster, which takes seconds of processor time for each check.
This imports only gRPC or psycopg2.
"""

import argparse
import os
import sys
from urllib.parse import parse_qsl, urlencode, urlsplit

CODE_ADDRESS = "127.0.0.1:4000"

OLDEST_BEAT_SECONDS_MAX = 1830
"""As in `dagster-daemon liveness-check`: 30 seconds between heartbeats, and the delay of a busy daemon."""

# Only the newest daemon counts; all its parts have the same id. The time is read from the body, because it is
# UTC there whatever the session's time zone is, and the column's is not.
_AGE_OF_OLDEST_BEAT = """
WITH beat AS (
  SELECT daemon_id, CAST(CAST(body AS json) ->> 'timestamp' AS float8) AS epoch FROM daemon_heartbeats)
SELECT extract(epoch FROM clock_timestamp()) - min(epoch) FROM beat
WHERE daemon_id = (SELECT daemon_id FROM beat ORDER BY epoch DESC LIMIT 1)
"""


def main() -> None:
    """Exit with 0 if the part works; otherwise with 1 and a line that says what does not."""
    parser = argparse.ArgumentParser(prog="python -m buffer_pipeline_start.probe", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="how long to wait for an answer")
    parts = parser.add_subparsers(dest="part", required=True)
    code = parts.add_parser("code", help="the code server answers gRPC's health check")
    code.add_argument("--address", default=CODE_ADDRESS, help="HOST:PORT; or unix:PATH")
    parts.add_parser("daemon", help="each part of the daemon has noted its heartbeat")
    given = parser.parse_args()
    if given.part == "code":
        wrong = _of_code_server(given.address, seconds=given.seconds)
    else:
        wrong = _of_daemon(os.environ["BUFFER_DAGSTER_DATABASE_URL"], seconds=given.seconds)
    if wrong:
        sys.exit(wrong)


def _of_code_server(address: str, *, seconds: int) -> str | None:
    import grpc  # noqa: PLC0415 - only what this part needs

    # The encoded messages of grpc.health.v1: Check of the service DagsterApi, and the answer SERVING.
    request, serving = b"\n\x0aDagsterApi", b"\x08\x01"
    with grpc.insecure_channel(address) as channel:
        try:
            status = channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=seconds)
        except grpc.RpcError as error:
            return f"code server at {address}: {error.details()}"
    return None if status == serving else f"code server at {address}: it is not serving"


def _of_daemon(url: str, *, seconds: int) -> str | None:
    import psycopg2  # noqa: PLC0415 - only what this part needs

    try:
        connection = psycopg2.connect(_libpq_url(url), connect_timeout=seconds)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{seconds}s'")
            cursor.execute(_AGE_OF_OLDEST_BEAT)
            age = next(iter(cursor))[0]
    except psycopg2.Error as error:
        return f"daemon: its storage: {str(error).splitlines()[0]}"
    if age is None:
        return "daemon: no heartbeat yet"
    if age > OLDEST_BEAT_SECONDS_MAX:
        return f"daemon: the oldest heartbeat of its parts is {age:.0f} seconds old"
    return None


def _libpq_url(url: str) -> str:
    """Return SQLAlchemy's URL as libpq reads it: without a driver, hosts in one list and ports in another."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    hosts = [value.partition(":") for name, value in query if name == "host"]
    if any(port for _, _, port in hosts):
        query = [pair for pair in query if pair[0] not in {"host", "port"}]
        query.append(("host", ",".join(host for host, _, _ in hosts)))
        query.append(("port", ",".join(port for _, _, port in hosts)))
    return parts._replace(scheme="postgresql", query=urlencode(query)).geturl()


if __name__ == "__main__":
    main()
