"""The insurance pipeline's data and warehouse, in Airflow's own environment, and its jobs' programs in theirs."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from local.database.standalone import Endpoint
from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.storage import client
from runtime import migrate
from tests.image_environment import run_case
from tests.local.database.endpoint import serving
from tests.local.sagemaker.hosting import Emulator

CASES = Path(__file__).parent / "with_airflow"
WAREHOUSE_PASSWORD = "generated-for-the-warehouse"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A database server with what the migration makes for the warehouse."""
    with serving(tmp_path_factory.mktemp("database")) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HOST": "127.0.0.1",
            "PORT": str(made.port),
            "NAME": made.master.database,
            "USER": made.master.user,
            "PASSWORD": made.master.password,
            "CA_BUNDLE": str(made.authority),
        }.items():
            patch.setenv(f"UPDRAFT_DATABASE_{name}", value)
        # Every deployment runs it again, and an older password may be there.
        for password in ("of an older deployment", WAREHOUSE_PASSWORD):
            migrate.ensure_warehouse("warehouse", username="warehouse", password=password)
        yield made


@pytest.mark.parametrize("case", ["data", "registry", "runs"])
def test_case_passes(case: str, tmp_path: Path) -> None:
    assert run_case(CASES / f"case_insurance_{case}.py", tmp_path, "airflow") > 0


def connection_to(endpoint: Endpoint) -> dict[str, str]:
    """What the stack's secret and the image's environment say."""
    connection = {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": endpoint.port,
        "schema": "warehouse",
        "login": "warehouse",
        "password": WAREHOUSE_PASSWORD,
        "extra": {"sslmode": "verify-full", "sqlalchemy_query": {"sslmode": "verify-full"}},
    }
    return {"AIRFLOW_CONN_WAREHOUSE": json.dumps(connection), "PGSSLROOTCERT": str(endpoint.authority)}


def test_tables_are_exchanged_whole(endpoint: Endpoint, tmp_path: Path) -> None:
    passed = run_case(CASES / "case_insurance_warehouse.py", tmp_path, "airflow", **connection_to(endpoint))
    assert passed > 0


def test_steps_follow_one_another_on_s3_and_postgresql(endpoint: Endpoint, tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path / "account", port=free_port())
    emulator = Emulator(paths)
    emulator.start()
    try:
        client(paths, "s3").create_bucket(Bucket="data")
        passed = run_case(
            CASES / "case_insurance_pipeline.py",
            tmp_path,
            "airflow",
            AWS_ENDPOINT_URL=paths.endpoint_url,
            AWS_ACCESS_KEY_ID=paths.access_key_id,
            AWS_SECRET_ACCESS_KEY=paths.secret_access_key,
            **connection_to(endpoint),
        )
    finally:
        emulator.kill()
    assert passed > 0


def test_warehouse_role_reads_nothing_of_airflow_and_others_are_kept_out(endpoint: Endpoint) -> None:
    with endpoint.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS task_instance (id int)")
    connection.close()
    login = {"user": "warehouse", "password": WAREHOUSE_PASSWORD}
    inside = endpoint.connect(**login)
    with inside.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("SELECT * FROM task_instance")
    inside.close()
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        endpoint.connect(user="load_metric", password="good", dbname="warehouse")


def test_model_learns_and_is_held_against_the_tariff(tmp_path: Path) -> None:
    case = Path(__file__).parent / "with_training" / "case_insurance_model.py"
    assert run_case(case, tmp_path, "training") > 0
