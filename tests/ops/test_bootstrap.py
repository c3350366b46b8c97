"""The launcher: wrong interpreters, full disks, changed locks and interrupted installations."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from ops import bootstrap

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docker" / "tiny").mkdir(parents=True)
    (tmp_path / "docker" / "tiny" / "requirements.txt").write_text("")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "HOME", tmp_path / ".updraft")
    return tmp_path


def record_runs(monkeypatch: pytest.MonkeyPatch, *, fail_once: bool = False) -> list[list[str]]:
    """Stands in for uv: makes an interpreter's file, and fails the first synchronization when asked."""
    ran: list[list[str]] = []

    def run(command: list[str | Path], **_: object) -> None:
        ran.append([str(part) for part in command])
        if "venv" in ran[-1]:
            python = Path(str(command[-1])) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        elif fail_once and sum("sync" in line for line in ran) == 1:
            raise bootstrap.BootstrapError("the connection broke")

    monkeypatch.setattr(bootstrap, "_run", run)
    monkeypatch.setattr(bootstrap, "_ensure_uv", lambda: Path("uv"))
    return ran


def test_second_call_installs_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_runs(monkeypatch)
    python = bootstrap.ensure_environment("tiny")
    count = len(ran)
    assert bootstrap.ensure_environment("tiny") == python == home / ".updraft/envs/tiny/bin/python"
    assert count == len(ran) == 2


def test_changed_lock_refreshes_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_runs(monkeypatch)
    bootstrap.ensure_environment("tiny")
    (home / "docker/tiny/requirements.txt").write_text("# another\n")
    bootstrap.ensure_environment("tiny")
    assert [line[2] for line in ran] == ["--quiet", "sync", "sync"]


def test_interrupted_installation_is_taken_up_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_runs(monkeypatch, fail_once=True)
    with pytest.raises(bootstrap.BootstrapError, match="connection broke"):
        bootstrap.ensure_environment("tiny")
    assert not (home / ".updraft/envs/tiny.made").exists()
    bootstrap.ensure_environment("tiny")
    assert sum("venv" in line for line in ran) == 1
    assert sum("sync" in line for line in ran) == 2


def test_full_disk_is_told_before_anything_is_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_runs(monkeypatch)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 5 * 2**20))
    with pytest.raises(bootstrap.BootstrapError, match="5 MiB free"):
        bootstrap.ensure_environment("tiny")
    assert ran == []
    assert not (home / ".updraft/envs/tiny").exists()


@pytest.mark.usefixtures("home")
def test_environment_without_a_lock_is_refused() -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"docker/nothing/requirements\.txt does not exist"):
        bootstrap.ensure_environment("nothing")


def test_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    ran = subprocess.run(
        [ROOT / "updraft", "status"],
        env={"PATH": os.environ["PATH"], "UPDRAFT_PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1
    assert "needs Python 3.11, 3.12 or 3.13, found Python 3.9.1" in ran.stderr


def test_python_whose_path_has_spaces_is_taken(tmp_path: Path) -> None:
    python = tmp_path / "My Programs" / "python 3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || printf "%s\\n" "$@"\n')
    python.chmod(0o755)
    ran = subprocess.run(
        [ROOT / "updraft", "run", "a b"],
        env={"PATH": os.environ["PATH"], "UPDRAFT_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines() == [str(ROOT / "ops" / "bootstrap.py"), "run", "a b"], ran.stderr


@pytest.mark.usefixtures("home")
def test_python_without_pip_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_digest", lambda _: "wanted")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(bootstrap.BootstrapError, match=r"python3-venv.*sudo apt install python3\.\d+-venv"):
        bootstrap.ensure_environment("tiny")


@pytest.mark.parametrize("home_is_there", [True, False])
def test_caches_lie_beside_the_environments_without_a_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, home_is_there: bool
) -> None:
    monkeypatch.setenv("HOME", str(home if home_is_there else home / "nobody"))
    places = {"UV_CACHE_DIR": f"{home}/.updraft/cache/uv", "npm_config_cache": f"{home}/.updraft/cache/npm"}
    assert bootstrap._caches() == ({} if home_is_there else places)
