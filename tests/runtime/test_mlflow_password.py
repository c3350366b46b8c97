"""The log-in in the secret opens the tracking server, also after another one had been there."""

import os
import subprocess
from pathlib import Path

from local.paths import ROOT
from tests.image_environment import image_python

# In the image's own environment: MLflow's store makes the table and checks the log-ins.
CHANGE = """
import sys
import server
url = sys.argv[1]
server.keep_password(url, "admin", "the-first-of-two")  # before there is a table
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore()
store.init_db(url)
store.create_user("admin", "the-first-of-two", is_admin=True)
store.create_user("somebody", "somebody-s-own-one")
for password in ("the-first-of-two", "the-second-of-two"):
    server.keep_password(url, "admin", password)
    assert store.authenticate_user("admin", password)
assert not store.authenticate_user("admin", "the-first-of-two")
assert store.authenticate_user("somebody", "somebody-s-own-one")
assert store.get_user("admin").is_admin
"""


# What MLflow itself reads from the file that is written for it.
CONFIGURATION = """
import os, sys
import server
login = {"MLFLOW_USERNAME": "admin", "MLFLOW_PASSWORD": "a-long-word-with-%"}
os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(server.write_auth_config(login, sys.argv[1] + "?a=%2F"))
from mlflow.server.auth.config import read_auth_config
found = read_auth_config()
assert found.auth_cache_ttl_seconds > 0, found
assert (found.admin_username, found.database_uri) == ("admin", sys.argv[1] + "?a=%2F"), found
assert found.admin_password == login["MLFLOW_PASSWORD"], found
"""


def run(program: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image_python("mlflow"), "-c", program, f"sqlite:///{tmp_path}/auth.db"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "docker" / "mlflow"),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_secret_that_changed_is_the_password_after_the_next_start(tmp_path: Path) -> None:
    ran = run(CHANGE, tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    ran = run(CONFIGURATION, tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
