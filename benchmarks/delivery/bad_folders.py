"""Folders of DAGs that must not go live; each function spoils a good folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

HEAD = "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator as Task\n"
GOOD = HEAD + "with DAG({name!r}):\n    Task(task_id='a')\n"


def _text(text: str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / "bad.py", HEAD + text)


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _sparse(folder: Path) -> None:
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(2 * 2**30)


def _many(folder: Path) -> None:
    for number in range(100_000):
        (folder / f"file_{number}.txt").touch()


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _without_dags(folder: Path) -> None:
    _emptied(folder)
    _write(folder / "helper.py", "x = 1\n")


def _duplicated(folder: Path) -> None:
    for name in ("a.py", "b.py"):
        _write(folder / name, GOOD.format(name="same"))


CASES: dict[str, Callable[[Path], None]] = {
    "syntax error": _text("def (\n"),
    "import error": _text("import nothing_of_this_name\n"),
    "import that hangs": _text("import time\ntime.sleep(600)\n"),
    "import that eats memory": _text("x = []\nwhile True:\n    x.append(bytearray(2**24))\n"),
    "import that ends the process": _text("import os\nos._exit(3)\n"),
    "import that reaches for the network": _text(
        "import socket\nsocket.create_connection(('127.0.0.1', 9))\n"
    ),
    "import that reads a variable": _text("from airflow.sdk import Variable\nVariable.get('nothing')\n"),
    "duplicate DAG id": _duplicated,
    "cycle": _text("with DAG('c'):\n    a, b = Task(task_id='a'), Task(task_id='b')\n    a >> b >> a\n"),
    "runs that would mix versions": _text("d = DAG('a', disable_bundle_versioning=True)\n"),
    "no DAG": _without_dags,
    "empty folder": _emptied,
    "no folder": shutil.rmtree,
    "link out of the tree": lambda folder: (folder / "link.py").symlink_to("/etc/hostname"),
    "linked folder": lambda folder: (folder / "link").symlink_to("/etc"),
    "name that is not UTF-8": lambda folder: _write(folder / os.fsdecode(b"caf\xe9.py"), ""),
    "name with a line break": lambda folder: _write(folder / "new\nline.py", ""),
    "manifest in the folder": lambda folder: _write(folder / ".release.json", "{}"),
    "100,000 files": _many,
    "2 GiB file": _sparse,
    "named pipe": lambda folder: os.mkfifo(folder / "pipe"),
}
