"""What an image must be before it meets AWS: small, without privileges, able to run read-only, and to stop."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.engine import Image, docker

pytestmark = pytest.mark.image
ROOT = Path(__file__).resolve().parent.parent.parent
# 700 MB with the 125 MB of the public base image; another base of the same name may be larger.
MOST_BYTES_ON_BASE = {"airflow": 575_000_000, "mlflow": 800_000_000, "training": 500_000_000}
BASE = "python:3.12-slim-bookworm"
ENTRYPOINT_VARIABLES = (
    "DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD", "BROKER",
    "BROKER_HOST", "BROKER_PORT", "BROKER_PASSWORD", "FERNET_SECRET",
)  # fmt: skip
# Says that it is ready, leaves an orphan that has ended, and ends well on SIGTERM; its child must not get the signal.
PROGRAM = """
import os, signal, sys, time
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda *_: (print("child was signalled", flush=True), os._exit(1)))
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
    time.sleep(60)
    os._exit(0)
orphanage = os.fork()
if orphanage == 0:
    if os.fork() == 0:
        time.sleep(0.2)
        os._exit(0)
    os._exit(0)
os.waitpid(orphanage, 0)
def end(*_):
    print("ended well", flush=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
ZOMBIES = """
import pathlib
states = [f.read_text().rsplit(")", 1)[1].split()[:2] for f in pathlib.Path("/proc").glob("[0-9]*/stat")]
print(sum(state == "Z" and parent == "1" for state, parent in states))
"""
# What only an owner of the account may know, by name or by look.
SECRETS = re.compile(r"PASSWORD=|SECRET=|_KEY=|AKIA[0-9A-Z]{16}|PRIVATE KEY", re.IGNORECASE)


@pytest.mark.parametrize("name", sorted(MOST_BYTES_ON_BASE))
def test_image_is_small(build: Callable[[str], Image], name: str) -> None:
    base = int(docker("image", "inspect", "--format", "{{.Size}}", BASE).stdout)
    assert int(build(name).inspect("{{.Size}}")) - base <= MOST_BYTES_ON_BASE[name]


def test_every_stripped_library_loads(airflow: Image) -> None:
    program = (
        "import ctypes, pathlib, sysconfig\n"
        "packages = pathlib.Path(sysconfig.get_paths()['purelib'])\n"
        "libraries = [path for path in packages.rglob('*.so') if not path.parent.name.endswith('.libs')]\n"
        "for path in libraries:\n"
        "    ctypes.CDLL(str(path))\n"
        "print(len(libraries))"
    )
    assert int(airflow.python(program)) > 100


@pytest.mark.parametrize("name", ["airflow", "mlflow"])
def test_service_runs_without_privileges_on_a_read_only_root(
    build: Callable[[str], Image], name: str
) -> None:
    image = build(name)
    assert image.inspect("{{.Config.User}}") == "50000"
    program = (
        "import os, pathlib, json\n"
        "def writable(folder):\n"
        "    try:\n"
        "        pathlib.Path(folder, 'probe').write_text('x')\n"
        "    except OSError as error:\n"
        "        return error.strerror\n"
        "    return True\n"
        f"print(json.dumps([os.getuid()] + [writable(f) for f in ('/tmp', '/opt/{name}', '/opt/updraft', '/etc')]))"
    )
    assert json.loads(image.python(program)) == [
        50000, True, True, "Read-only file system", "Read-only file system",
    ]  # fmt: skip


def test_airflow_is_the_locked_one_with_all_its_doors(airflow: Image) -> None:
    locked = re.search(
        r"^apache-airflow==(\S+)", (ROOT / "docker/airflow/requirements.txt").read_text(), re.MULTILINE
    )
    assert locked is not None
    program = (
        "import asyncpg, pg8000, psycopg2, pycurl, redis, statsd, airflow\n"
        "import airflow.providers.amazon.aws.operators.sagemaker, airflow.providers.databricks.operators.databricks\n"
        "assert 'OpenSSL' in pycurl.version, pycurl.version\n"
        "print(airflow.__version__)"
    )
    assert airflow.python(program).splitlines()[-1] == locked[1]
    assert airflow.run("version", options=("--entrypoint", "airflow")).stdout.strip().endswith(locked[1])


@pytest.mark.parametrize("name", ["airflow", "mlflow"])
def test_authorities_of_the_database_are_there(build: Callable[[str], Image], name: str) -> None:
    program = (
        "import os, ssl\n"
        "context = ssl.create_default_context(cafile=os.environ['UPDRAFT_DATABASE_CA_BUNDLE'])\n"
        "print(len(context.get_ca_certs()))"
    )
    assert int(build(name).python(program)) > 50


def test_entry_point_names_what_is_missing(airflow: Image) -> None:
    ran = airflow.run("true")
    assert ran.returncode == 2
    assert "UPDRAFT_DATABASE_PASSWORD" in ran.stderr
    assert "UPDRAFT_FERNET_SECRET" in ran.stderr


def test_sigterm_reaches_the_parent_alone_and_orphans_are_reaped(airflow: Image, container: str) -> None:
    options = ["--name", container, "--detach", "--read-only", "--init"]
    for name in ENTRYPOINT_VARIABLES:
        options += ["--env", f"UPDRAFT_{name}={'redis' if name == 'BROKER' else '1'}"]
    started = docker("run", *options, airflow.tag, "python", "-c", PROGRAM)
    assert started.returncode == 0, started.stderr
    _wait_for("ready", lambda: docker("logs", container).stdout)
    _wait_for("0\n", lambda: docker("exec", container, "python", "-c", ZOMBIES).stdout)
    docker("stop", "--time", "120", container)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "0"
    told = docker("logs", container).stdout
    assert "ended well" in told
    assert "child was signalled" not in told


def _wait_for(text: str, output: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while text not in (seen := output()):
        assert time.monotonic() < deadline, f"waited for {text!r}, saw {seen!r}"
        time.sleep(0.2)


@pytest.mark.parametrize("name", sorted(MOST_BYTES_ON_BASE))
def test_no_layer_holds_a_secret(build: Callable[[str], Image], name: str) -> None:
    image = build(name)
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag).stdout
    assert not SECRETS.findall(history)
    program = (
        "import pathlib\n"
        "files = [f for f in pathlib.Path('/opt/updraft').rglob('*') if f.is_file()]\n"
        "print([str(f) for f in files if b'PRIVATE KEY' in f.read_bytes() or f.suffix in ('.toml', '.env', '.key')])"
    )
    assert image.python(program) == "[]"


def test_health_checks_answer_in_the_image(airflow: Image, mlflow: Image) -> None:
    check = ("--entrypoint", "python")
    idle = airflow.run("-m", "runtime.health", "worker", options=check)
    assert idle.returncode == 1
    assert "has not started to consume" in idle.stderr
    program = (
        "import http.server, subprocess, sys, threading\n"
        "from runtime.health import WORKER_FILE\n"
        "WORKER_FILE.touch()\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "url = f'http://localhost:{server.server_port}/'\n"
        "checks = [['worker'], ['http', url], ['http', url + 'nowhere']]\n"
        "print([subprocess.run([sys.executable, '-m', 'runtime.health', *c]).returncode for c in checks])"
    )
    assert airflow.python(program).splitlines()[-1] == "[0, 0, 1]"
    dead = mlflow.run("/opt/updraft/server.py", "--check", options=(*check, "--env", "MLFLOW_PORT=5000"))
    assert dead.returncode == 1


def test_training_without_data_leaves_its_reason_where_sagemaker_looks(
    training: Image, tmp_path: Path
) -> None:
    ran = docker("run", "--rm", "--volume", f"{tmp_path}:/opt/ml", training.tag, "train")
    assert ran.returncode == 1
    assert (tmp_path / "output" / "failure").read_text()
