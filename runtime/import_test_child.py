"""The process that import tests are forked from: it has Airflow imported and nothing of any DAG.

Reads requests (JSON, one a line) from standard input and writes events to standard output: `started`, `file` before
each file, then `report`, or `died` when the test's process ended without one. Started by runtime/import_test.py.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

BUNDLE = "updraft"
NETWORK_EVENTS = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})


def main() -> None:
    """Serve requests until standard input ends."""
    # Whatever prints, Airflow or a DAG file, must not get between the events.
    out = os.dup(1)
    os.dup2(2, 1)
    import_airflow()
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(request, out)
        status = os.waitpid(pid, 0)[1]
        if status != 0:
            code = os.waitstatus_to_exitcode(status)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            _tell(out, {"event": "died", "how": how})


def import_airflow() -> None:
    """Import what nearly every DAG file imports."""
    import airflow.dag_processing.dagbag
    import airflow.providers.standard.operators.python
    import airflow.sdk
    import airflow.serialization.serialized_objects  # noqa: F401


def _run(request: dict[str, Any], out: int) -> NoReturn:
    code = 1
    try:
        _tell(out, {"event": "started"})
        # Airflow would render the local variables of each traceback, however large, for a log that nobody reads.
        logging.disable()
        refuse_network()
        limit_memory(request["memory_mib"])
        _tell(out, {"event": "report", **describe(Path(request["folder"]), out)})
        code = 0
    finally:
        # Nothing that a DAG file registered for the end of the process runs.
        os._exit(code)


def _tell(out: int, event: dict[str, Any]) -> None:
    os.write(out, json.dumps(event).encode() + b"\n")


def limit_memory(mib: int) -> None:
    """Bound what this process may take beyond what it has; a crash writes no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return  # macOS has no such limit
    has_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    limit = (has_kib + mib * 1024) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def refuse_network() -> None:
    """From here on a connection raises where it is made, so that the error names the line."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in NETWORK_EVENTS and not _is_local(event, arguments):
            raise PermissionError(
                "a DAG file reached for the network while it was imported; do that in a task, not at import"
            )

    sys.addaudithook(hook)


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    # A Unix socket's address is a path.
    return event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], str | bytes)


def describe(folder: Path, out: int) -> dict[str, Any]:
    """Import every DAG file below `folder`; `dag_ids` and `errors` of what was found."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.dag_processing.importers import get_importer_registry
    from airflow.serialization.serialized_objects import DagSerialization

    bag = BundleDagBag(
        dag_folder=str(folder),
        bundle_path=folder,
        bundle_name=BUNDLE,
        collect_dags=False,
        load_op_links=False,
    )
    errors: list[str] = []
    for path in sorted(map(str, get_importer_registry().list_dag_files(str(folder), safe_mode=True))):
        file = Path(path).relative_to(folder).as_posix()
        _tell(out, {"event": "file", "file": file})
        try:
            bag.process_file(path, only_if_updated=False, safe_mode=True)
        except MemoryError:
            errors.append(f"{file}: the import took more memory than it may")
        except BaseException as error:
            errors.append(f"{file}: {type(error).__name__}: {error}")
    errors += [f"{file}: {text.strip()[-2000:]}" for file, text in bag.import_errors.items()]
    for dag_id, dag in sorted(bag.dags.items()):
        file = dag.relative_fileloc or dag.fileloc
        if dag.disable_bundle_versioning:
            errors.append(
                f"{file}: DAG {dag_id} sets disable_bundle_versioning, so its runs would mix versions; remove it"
            )
        try:
            DagSerialization.to_dict(dag)
        except Exception as error:
            errors.append(f"{file}: DAG {dag_id} can't be serialized: {error}")
    if not bag.dags and not errors:
        errors.append("no file of the release defines a DAG")
    return {"dag_ids": list(bag.dags), "errors": errors}


if __name__ == "__main__":
    main()
