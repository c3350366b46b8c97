"""Airflow's dag-processor, for releases that never change: `python -m runtime.dag_processor`.

It differs from Airflow's own in three things. A switch of the pointer is followed by a parse of every file at once,
not when each file's turn comes. A parse is stored under the version of the folder that it read, or not at all: Airflow
would store it under the version that is current when the result arrives. And once every file of a release has been
parsed, DAGs that the release no longer has are stale at once.
"""

from __future__ import annotations

import signal
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

from airflow.cli.commands import dag_processor_command
from airflow.dag_processing.manager import DagFileInfo, DagFileProcessorManager
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.errors import ParseImportError
from airflow.utils.session import create_session
from sqlalchemy import select, update

LOOP_SECONDS = 0.5
KnownFiles = dict[str, set[DagFileInfo]]


class ReleaseProcessorManager(DagFileProcessorManager):
    """Parses each release whole, as soon as the bundle has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By bundle: the files of the served version whose parse has not been stored yet.
        self._unparsed: dict[str, set[Path]] = {}

    def _service_processor_sockets(self, timeout: float | None = 1.0) -> None:
        # Airflow's loop turns once a second when nothing happens, and a switch would be seen as late.
        super()._service_processor_sockets(timeout=min(timeout or 0.0, LOOP_SECONDS))

    def _refresh_dag_bundles(self, known_files: KnownFiles) -> None:
        before = dict(self._bundle_versions)
        super()._refresh_dag_bundles(known_files=known_files)
        for name, version in self._bundle_versions.items():
            if name not in before or before[name] != version:
                self._start_over(name, known_files[name])

    def _start_over(self, bundle_name: str, files: set[DagFileInfo]) -> None:
        """Forget what was parsed, is being parsed or is queued from another version, and queue every file."""
        for file in [file for file in self._processors if self._is_parse_of(file, bundle_name)]:
            processor = self._processors.pop(file)
            processor.kill(signal.SIGKILL)
            processor.close()
        for file in [file for file in self._file_stats if file.bundle_name == bundle_name]:
            del self._file_stats[file]
        kept = [file for file in list(self._file_queue) if not self._is_parse_of(file, bundle_name)]
        self._file_queue: OrderedDict[DagFileInfo, None] = OrderedDict.fromkeys(kept)
        self._unparsed[bundle_name] = {file.rel_path for file in files}
        self._add_files_to_queue(list(files), mode="front")
        if not files:
            self._retire_missing(bundle_name)

    def _is_parse_of(self, file: DagFileInfo, bundle_name: str) -> bool:
        """Whether this is a parse, and not a callback, which has a version of its own or waits to be run."""
        running = self._processors.get(file)
        has_callbacks = running.had_callbacks if running else file in self._callback_to_execute
        return file.bundle_name == bundle_name and file.bundle_version is None and not has_callbacks

    def handle_parsing_result(self, file: DagFileInfo, proc: Any, **_: Any) -> None:
        """Store a result when its version is the served one, here and for every other dag-processor."""
        with create_session() as session:
            if proc.parsing_result is not None:
                parsed = file.bundle_path.name
                # Shared lock: no dag-processor announces another version between this look and the commit.
                served = session.scalar(
                    select(DagBundleModel.version)
                    .where(DagBundleModel.name == file.bundle_name)
                    .with_for_update(read=True)
                )
                if not parsed == served == self._bundle_versions.get(file.bundle_name):
                    self.log.info(
                        "Parse of %s from %s is dropped: %s is served", file.rel_path, parsed, served
                    )
                    self.request_bundle_refresh(file.bundle_name)
                    return
            super().handle_parsing_result(file, proc, session=session)
        if self._unparsed.get(file.bundle_name) == set():
            del self._unparsed[file.bundle_name]
            self._retire_missing(file.bundle_name)

    def persist_parsing_result(
        self, *, bundle_name: str, relative_fileloc: str | None, **result: Any
    ) -> None:
        """Store a result and remember that the file is done; a failure here leaves it to be parsed again."""
        super().persist_parsing_result(bundle_name=bundle_name, relative_fileloc=relative_fileloc, **result)
        self._unparsed.get(bundle_name, set()).discard(Path(relative_fileloc or ""))

    def _retire_missing(self, bundle_name: str) -> None:
        """Mark DAGs stale that no parse of the served version has found; one whose file failed is left as it was."""
        failed = select(ParseImportError.filename).where(ParseImportError.bundle_name == bundle_name)
        with create_session() as session:
            session.execute(
                update(DagModel)
                .where(
                    DagModel.bundle_name == bundle_name,
                    DagModel.is_stale.is_(False),
                    DagModel.bundle_version.is_distinct_from(self._bundle_versions[bundle_name]),
                    DagModel.relative_fileloc.not_in(failed),
                )
                .values(is_stale=True)
                .execution_options(synchronize_session=False)
            )


def main() -> None:
    """Run Airflow's own command with this manager."""
    from airflow.__main__ import main as airflow

    dag_processor_command.DagFileProcessorManager = ReleaseProcessorManager
    sys.argv = ["airflow", "dag-processor"]
    airflow()


if __name__ == "__main__":
    main()
