"""Prints what the DAG files of a folder say, as JSON; run by tests in Airflow's own environment.

The files are imported as the dag-processor would import them, in a fresh interpreter and without a database. While
they are, everything that belongs in a task raises where it is done: DagBag tells it as the file's import error.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CALLS = {
    "socket.connect": "a connection is opened",
    "socket.getaddrinfo": "a host name is looked up",
    "subprocess.Popen": "a process is started",
    "os.system": "a process is started",
    "os.mkdir": "a folder is made",
    "os.remove": "a file is removed",
    "os.rename": "a file is renamed",
}
WRITING = set("wax+")
CODE = {".py", ".pyc", ".so"}
_guarded = threading.local()


class TopLevelIoError(RuntimeError):
    """A DAG file does something while it is imported that belongs in a task."""

    def __init__(self, what: str) -> None:
        super().__init__(f"top-level I/O: {what} while the file is imported; do it in a task")


def main() -> None:
    """Describe the DAGs below the folders of the command line, as one document."""
    # What Airflow and the runtime do when they are imported is theirs.
    import boto3
    from airflow.dag_processing.dagbag import DagBag

    import runtime.assets
    import runtime.notify
    import runtime.sagemaker.operator  # noqa: F401

    guard(boto3)
    described: dict[str, Any] = {}
    for folder in sys.argv[1:]:
        sys.path.insert(0, folder)
        _guarded.active = True
        bag = DagBag(folder)
        _guarded.active = False
        described[folder] = {
            "dags": [describe(dag) for dag in bag.dags.values()],
            "errors": dict(bag.import_errors),
        }
    print(json.dumps(described))


def guard(boto3: Any) -> None:
    """From here on, whoever is guarded can't reach beyond the interpreter."""
    from airflow.sdk import BaseHook, Variable

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not getattr(_guarded, "active", False):
            return
        if event == "open":
            _check_open(*arguments)
        elif event in CALLS:
            raise TopLevelIoError(CALLS[event])

    sys.addaudithook(hook)
    # Python before 3.13 has no event for it.
    forbid(time, "sleep", "the import sleeps")
    forbid(boto3.session.Session, "client", "a client of AWS is made")
    forbid(boto3.session.Session, "resource", "a client of AWS is made")
    forbid(Variable, "get", "a variable is read")
    forbid(BaseHook, "get_connection", "a connection is read")


def forbid(owner: Any, name: str, what: str) -> None:
    """Replace a method by one that raises while a file is imported."""
    original = getattr(owner, name)

    def refuse(*arguments: Any, **options: Any) -> Any:
        if getattr(_guarded, "active", False):
            raise TopLevelIoError(what)
        return original(*arguments, **options)

    setattr(
        owner, name, staticmethod(refuse) if isinstance(owner.__dict__.get(name), staticmethod) else refuse
    )


def _check_open(path: Any, mode: Any, _flags: Any) -> None:
    if not isinstance(path, str | bytes):
        return
    file = Path(path.decode() if isinstance(path, bytes) else path)
    if isinstance(mode, str) and WRITING & set(mode):
        raise TopLevelIoError(f"{file.name} is written")
    folders = [Path(folder).resolve() for folder in sys.argv[1:]] + [REPOSITORY / "ml"]
    inside = any(file.resolve().is_relative_to(folder) for folder in folders)
    if inside and file.suffix not in CODE and file.name != ".airflowignore":
        raise TopLevelIoError(f"{file.name} is read")


def describe(dag: Any) -> dict[str, Any]:
    """What the policy looks at."""
    return {
        "dag_id": dag.dag_id,
        "owner": dag.owner,
        "tags": sorted(dag.tags),
        "doc": dag.doc_md or "",
        "catchup": dag.catchup,
        "timeout_seconds": _seconds(dag.dagrun_timeout),
        "notifies": bool(dag.on_failure_callback),
        "params": {name: _param(dag.params.get_param(name)) for name in dag.params},
        "tasks": {
            task.task_id: {
                "retries": task.retries,
                "retry_delay_seconds": _seconds(task.retry_delay),
                "timeout_seconds": _seconds(task.execution_timeout),
                "downstream": sorted(task.downstream_task_ids),
                "teardown": task.is_teardown,
                "inlets": [asset.uri for asset in task.inlets],
                "outlets": [asset.uri for asset in task.outlets],
            }
            for task in dag.tasks
        },
    }


def _param(param: Any) -> dict[str, Any]:
    return {"type": param.schema.get("type"), "description": param.description}


def _seconds(duration: Any) -> float | None:
    return None if duration is None else float(duration.total_seconds())


if __name__ == "__main__":
    main()
