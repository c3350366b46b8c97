"""A real PostgreSQL behind its TLS front, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.database import standalone
from local.database.server import Master
from local.database.standalone import Endpoint

MASTER = Master(user="updraft", password='it\'s "odd" but 1 password', database="airflow")


@contextmanager
def serving(folder: Path) -> Iterator[Endpoint]:
    """A server with the master user `updraft`, the database `airflow` and the role `load_metric`."""

    def check_token(user: str, token: str) -> bool:
        return (user, token) == ("load_metric", "good")

    with standalone.serving(folder, MASTER, check_token=check_token) as endpoint:
        connection = endpoint.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE load_metric LOGIN; GRANT rds_iam TO load_metric")
        connection.close()
        yield endpoint
