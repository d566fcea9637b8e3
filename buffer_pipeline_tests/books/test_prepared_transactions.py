"""A platform may prepare its transaction (two-phase commit): it keeps its locks until it is committed."""

from sqlalchemy import text

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.database import make_engine
from buffer_pipeline_tests.support.builders import bring_in, place_hold
from buffer_pipeline_tests.support.cluster import Cluster
from buffer_pipeline_tests.support.seals import verified


def test_sealing_waits_for_a_prepared_transaction(cluster: Cluster) -> None:
    """It belongs to no session. Its transactions are sealed after its commit."""
    engine = make_engine(cluster.server.books_url)
    with engine.begin() as connection:
        bring_in(connection, PHP=2)
    with engine.connect() as older:
        place_hold(older)
        older.execute(text("PREPARE TRANSACTION 'one'"))
    with engine.begin() as connection:
        place_hold(connection, job="job-2", payee="worker-2", payer="client-2")

    before = seal(engine, wait_seconds=0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("COMMIT PREPARED 'one'"))
    after = seal(engine)
    found = verified(engine)
    engine.dispose()

    assert (before.lines, before.waits) == (0, True)
    assert (after.lines, after.waits) == (2, False)
    assert found.offence is None
