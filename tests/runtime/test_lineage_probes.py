"""Assets are measured where they lie: a real PostgreSQL, and S3 with objects of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.storage import client
from tests.local.sagemaker.hosting import Emulator
from tests.runtime.embedded_postgres import postgres

pytestmark = pytest.mark.account

ROOT = Path(__file__).resolve().parents[2]
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
# In Airflow's own environment, which has DuckDB: write what is asked for, then measure.
MEASURE = """
import json, sys
from runtime.lineage.probes import Probes
answers = []
for uri in sys.argv[1:]:
    try:
        answers.append(Probes().measure(uri))
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""
PARQUET = """
import duckdb, sys
columns = ", ".join(f"i AS column_{number}_{'x' * 40}" for number in range(int(sys.argv[3])))
duckdb.execute(f"COPY (SELECT {columns} FROM range({sys.argv[2]}) t(i)) TO '{sys.argv[1]}' (FORMAT parquet)")
"""
Measure = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPaths]:
    paths = LocalPaths(tmp_path_factory.mktemp("account"), port=free_port())
    emulator = Emulator(paths)
    emulator.start()
    client(paths, "s3").create_bucket(Bucket="data")
    yield paths
    emulator.kill()


@pytest.fixture(scope="module")
def measure(account: LocalPaths) -> Measure:
    def run(*uris: str) -> list[Any]:
        ran = subprocess.run(
            [PYTHON, "-c", MEASURE, *uris],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "UPDRAFT_SSM_PREFIX": "/updraft/test",
                "AWS_ENDPOINT_URL": account.endpoint_url,
                "AWS_DEFAULT_REGION": account.region,
                "AWS_ACCESS_KEY_ID": account.access_key_id,
                "AWS_SECRET_ACCESS_KEY": account.secret_access_key,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        answers: list[Any] = json.loads(ran.stdout)
        return answers

    return run


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1234, 3), (50, 900)])
def test_parquet_has_the_rows_that_its_footer_says(
    account: LocalPaths, measure: Measure, tmp_path: Path, rows: int, columns: int
) -> None:
    file = tmp_path / "some.parquet"
    subprocess.run([PYTHON, "-c", PARQUET, file, str(rows), str(columns)], check=True)
    before = int(time.time())
    key = f"parquet/{rows}.parquet"
    client(account, "s3").upload_file(str(file), "data", key)
    [found] = measure(f"s3://data/{key}")
    assert found["rows"] == rows
    assert found["size_bytes"] == file.stat().st_size
    assert before <= found["created_at"] <= found["modified_at"] <= time.time()


@pytest.mark.parametrize(
    ("body", "rows"),
    [('a,b\n1,"two\nlines"\n2,x\n', 2), ("0.5,1\n0.25,2\n", 2), ("a,b\n", 0), ("", 0)],
    ids=["quoted line break", "no header", "only a header", "empty"],
)
def test_csv_has_its_records_as_rows(account: LocalPaths, measure: Measure, body: str, rows: int) -> None:
    client(account, "s3").put_object(Bucket="data", Key="csv/some.csv", Body=body.encode())
    [found] = measure("s3://data/csv/some.csv")
    assert found["rows"] == rows
    assert found["size_bytes"] == len(body)


def test_folder_is_the_sum_of_what_lies_in_it_and_not_of_its_namesakes(
    account: LocalPaths, measure: Measure
) -> None:
    s3 = client(account, "s3")
    for key, body in {
        "sales/a.csv": "a\n1\n2\n", "sales/b.csv": "a\n3\n", "sales/_SUCCESS": "", "salesman/c.csv": "a\n1\n",
    }.items():  # fmt: skip
        s3.put_object(Bucket="data", Key=key, Body=body.encode())
    for uri in ("s3://data/sales", "s3://data/sales/"):
        [found] = measure(uri)
        assert (found["rows"], found["objects"], found["size_bytes"]) == (3, 3, 10)


def test_object_of_another_kind_has_a_size_alone_and_a_missing_one_says_so(
    account: LocalPaths, measure: Measure
) -> None:
    client(account, "s3").put_object(Bucket="data", Key="model.tar.gz", Body=b"12345")
    model, missing, other = measure("s3://data/model.tar.gz", "s3://data/nothing", "https://example.com/x")
    assert model["size_bytes"] == 5
    assert "rows" not in model
    assert missing.startswith("FileNotFoundError: s3://data/nothing")
    assert other == {}


def test_table_has_rows_size_and_the_times_of_its_making_and_its_last_change(
    account: LocalPaths, measure: Measure, tmp_path: Path
) -> None:
    uri = "postgres://db:5432/warehouse/sales/orders"
    with postgres(tmp_path) as server:
        login = {"host": str(server.sockets), "port": server.socket.suffix[1:], "login": "owner"}
        secret = {"conn_type": "postgres", "schema": "warehouse", "password": "secret", "extra": {}, **login}
        client(account, "secretsmanager").create_secret(
            Name="updraft/test/connections/warehouse", SecretString=json.dumps(secret)
        )
        connection = psycopg2.connect(
            host=login["host"], port=login["port"], user="owner", password="secret", dbname="warehouse"
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA sales; CREATE TABLE sales.orders (id int)")
            [empty] = measure(uri)
            written = time.time()
            cursor.execute("INSERT INTO sales.orders SELECT generate_series(1, 500)")
            # Neither a change of the table's form nor its statistics make it younger.
            cursor.execute("ALTER TABLE sales.orders ADD COLUMN name text; ANALYZE sales.orders")
        connection.close()
        full, missing = measure(uri, "postgres://db:5432/warehouse/sales/nothing")
    assert (empty["rows"], full["rows"]) == (0, 500)
    assert "modified_at" not in empty
    assert full["size_bytes"] >= 8192
    assert full["created_at"] == empty["created_at"] < written
    assert written <= full["modified_at"] <= time.time()
    assert missing == "LookupError: no table sales.nothing in database warehouse"
