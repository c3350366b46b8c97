"""One emulator for all tests here, and a host for each."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from local import processes
from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.storage import client
from tests.local.sagemaker.hosting import Emulator, Host


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalPaths, Emulator]]:
    paths = LocalPaths(tmp_path_factory.mktemp("account"), port=free_port())
    started = Emulator(paths)
    started.start()
    client(paths, "s3").create_bucket(Bucket="data")
    yield paths, started
    started.kill()


@pytest.fixture
def host(emulator: tuple[LocalPaths, Emulator]) -> Iterator[Host]:
    paths, started = emulator
    made = Host(paths, started)
    yield made
    made.plane.stop()
    left = processes.all_pids(paths)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(paths.sagemaker, ignore_errors=True)
    assert not left, "a job's process outlived its host"
