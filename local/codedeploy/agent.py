"""The CodeDeploy agent: carries out one deployment on one instance.

Follows the agent that AWS publishes (https://github.com/aws/aws-codedeploy-agent): folders below the
deployment root, clean-up of the previous deployment's files at Install, ApplicationStop from the revision
that last succeeded, scripts with a time limit and a log tail.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from local.codedeploy.appspec import AppSpec, AppSpecError, Script, read_appspec
from local.codedeploy.instance import Instance

EVENTS = (
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
)
DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
LOG_TAIL_CHARACTERS = 2048
KEPT_REVISIONS = 5
POLL_SECONDS = 0.05
# How far a script gets when its agent is to be killed.
LAST_BREATH_SECONDS = 0.2


@dataclass(frozen=True)
class Order:
    """One deployment as the service hands it to an agent."""

    deployment_id: str
    application: str
    group: str
    group_id: str
    ignore_application_stop_failures: bool
    file_exists_behavior: str


@dataclass(frozen=True)
class Diagnostics:
    """Why a lifecycle event failed; `error_code` is one of the API's LifecycleErrorCode."""

    error_code: str
    message: str
    script: str = ""
    log_tail: str = ""


class EventFailed(Exception):
    """A lifecycle event failed."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        super().__init__(diagnostics.message)
        self.diagnostics = diagnostics


class Stopped(Exception):
    """StopDeployment ended the deployment."""


class AgentDied(Exception):
    """The agent was killed, and its scripts with it."""


Report = Callable[[str, str, Diagnostics | None], None]


class Agent:
    """The agent of one instance; `environment` is what its scripts inherit from the machine.

    In a lifecycle event of which `dies_in` is true it is killed soon after the event has begun.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        environment: Mapping[str, str],
        dies_in: Callable[[str], bool] = lambda _event: False,
    ) -> None:
        self._instance = instance
        self._environment = environment
        self._dies_in = dies_in

    def deploy(
        self, order: Order, *, download: Callable[[Path], None], report: Report, stop: threading.Event
    ) -> bool:
        """Run all lifecycle events and return whether they succeeded.

        `download` writes the revision's zip to a path; `report(event, status, diagnostics)` is called when
        an event starts and ends. Raises Stopped when `stop` is set meanwhile, AgentDied when it was killed.
        """
        run = _Run(self._instance, order, self._environment, stop, self._dies_in)
        for event in EVENTS:
            if stop.is_set():
                raise Stopped
            report(event, "InProgress", None)
            try:
                said = run.event(event, download)
                if self._dies_in(event):
                    raise AgentDied
            except EventFailed as failed:
                report(event, "Failed", failed.diagnostics)
                if event == "ApplicationStop" and order.ignore_application_stop_failures:
                    continue
                return False
            report(event, "Succeeded", Diagnostics("Success", "Succeeded", log_tail=said))
        run.remember_success()
        return True


class _Run:
    def __init__(
        self,
        instance: Instance,
        order: Order,
        environment: Mapping[str, str],
        stop: threading.Event,
        dies_in: Callable[[str], bool],
    ) -> None:
        self._instance = instance
        self._order = order
        self._environment = environment
        self._stop = stop
        self._dies_in = dies_in
        self._group_folder = instance.deployment_root / order.group_id
        self._folder = self._group_folder / order.deployment_id
        self._archive = self._folder / "deployment-archive"
        self._instructions = instance.deployment_root / "deployment-instructions"
        self._last_success = self._instructions / f"{order.group_id}_last_successful_install"

    def event(self, event: str, download: Callable[[Path], None]) -> str:
        """Carry out one event and return the end of what its scripts said."""
        try:
            if event == "DownloadBundle":
                self._download(download)
            elif event == "Install":
                self._install()
            elif event == "ApplicationStop":
                if self._last_success.exists():
                    return self._scripts(event, Path(self._last_success.read_text(encoding="utf-8")))
            else:
                return self._scripts(event, self._archive)
        except (AppSpecError, OSError, *DAMAGED_ARCHIVE) as error:
            raise EventFailed(Diagnostics("UnknownError", str(error))) from error
        return ""

    def remember_success(self) -> None:
        self._instructions.mkdir(parents=True, exist_ok=True)
        self._last_success.write_text(str(self._archive), encoding="utf-8")
        revisions = sorted(self._group_folder.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for old in revisions[:-KEPT_REVISIONS]:
            shutil.rmtree(old, ignore_errors=True)

    def _download(self, download: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        bundle = self._folder / "bundle.tar"
        download(bundle)
        shutil.rmtree(self._archive, ignore_errors=True)
        unpack(bundle, self._archive)
        read_appspec(self._archive)

    def _install(self) -> None:
        cleanup_file = self._instructions / f"{self._order.group_id}-cleanup"
        _clean_up(cleanup_file)
        copies = self._planned_copies(read_appspec(self._archive))
        self._instructions.mkdir(parents=True, exist_ok=True)
        created: list[str] = []
        try:
            for source, target in copies:
                created += [str(folder) for folder in _make_parents(target)]
                shutil.copy2(source, target)
                created.append(str(target))
        finally:
            cleanup_file.write_text(json.dumps(created), encoding="utf-8")

    def _planned_copies(self, appspec: AppSpec) -> list[tuple[Path, Path]]:
        copies: dict[Path, Path] = {}
        for rule in appspec.files:
            source = self._archive / rule.source.lstrip("/")
            destination = self._instance.host_path(rule.destination)
            if source.is_dir():
                inside = sorted(path for path in source.rglob("*") if path.is_file())
                pairs = [(path, destination / path.relative_to(source)) for path in inside]
            elif source.is_file():
                pairs = [(source, destination / source.name)]
            else:
                raise AppSpecError(f"files: source {rule.source!r} is not in the revision")
            for path, target in pairs:
                if target in copies:
                    raise AppSpecError(f"The deployment would copy two files to {target}")
                copies[target] = path
        return [(source, target) for target, source in copies.items() if self._may_write(target)]

    def _may_write(self, target: Path) -> bool:
        if not target.exists() or self._order.file_exists_behavior == "OVERWRITE":
            return True
        if self._order.file_exists_behavior == "RETAIN":
            return False
        raise AppSpecError(
            f"The deployment failed because a specified file already exists at this location: {target}"
        )

    def _scripts(self, event: str, revision: Path) -> str:
        log: list[str] = [f"LifecycleEvent - {event}"]
        for script in read_appspec(revision).hooks.get(event, ()):
            log.append(f"Script - {script.location}")
            self._script(event, script, revision, log)
        return _tail(log) if len(log) > 1 else ""

    def _script(self, event: str, script: Script, revision: Path, log: list[str]) -> None:
        path = revision / script.location
        if not path.is_file():
            message = f"Script does not exist at specified location: {path}"
            raise EventFailed(Diagnostics("ScriptMissing", message, script.location))
        # The real agent makes a script executable too.
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        code = self._execute(event, script, path, log)
        if code is None:
            message = (
                f"Script at specified location: {script.location} failed to complete in "
                f"{script.timeout_seconds} seconds"
            )
            raise EventFailed(Diagnostics("ScriptTimedOut", message, script.location, _tail(log)))
        if code != 0:
            message = f"Script at specified location: {script.location} failed with exit code {code}"
            raise EventFailed(Diagnostics("ScriptFailed", message, script.location, _tail(log)))

    def _execute(self, event: str, script: Script, path: Path, log: list[str]) -> int | None:
        """Run the script in a process group of its own; None when it took too long."""
        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        files = {name: logs / f"{event}-{path.name}.{name}" for name in ("stdout", "stderr")}
        with files["stdout"].open("wb") as stdout, files["stderr"].open("wb") as stderr:
            process = subprocess.Popen(
                [str(path)],
                cwd=self._instance.folder,
                env=self._script_environment(event),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                code = self._wait(process, event, script.timeout_seconds)
            finally:
                # Also ends what the script left behind in its group.
                _kill_group(process)
        for name, file in files.items():
            log += [f"[{name}]{line}" for line in file.read_text(errors="replace").splitlines()]
        return code

    def _wait(self, process: subprocess.Popen[bytes], event: str, timeout_seconds: int) -> int | None:
        started = time.monotonic()
        while (now := time.monotonic()) < started + timeout_seconds:
            if self._stop.is_set():
                raise Stopped
            if self._dies_in(event) and now > started + LAST_BREATH_SECONDS:
                raise AgentDied
            try:
                return process.wait(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return None

    def _script_environment(self, event: str) -> dict[str, str]:
        return {
            **self._environment,
            **self._instance.hook_environment(),
            "APPLICATION_NAME": self._order.application,
            "DEPLOYMENT_ID": self._order.deployment_id,
            "DEPLOYMENT_GROUP_NAME": self._order.group,
            "DEPLOYMENT_GROUP_ID": self._order.group_id,
            "LIFECYCLE_EVENT": event,
        }


def unpack(bundle: Path, folder: Path) -> None:
    """Unpack a zip with its file modes. Raises AppSpecError for entries that leave the folder or are links."""
    with zipfile.ZipFile(bundle) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(entry.filename)
            mode = entry.external_attr >> 16
            if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
                raise AppSpecError(f"The bundle has an entry outside of itself: {entry.filename!r}")
            if stat.S_ISLNK(mode):
                raise AppSpecError(f"The bundle has a symbolic link: {entry.filename!r}")
            target = Path(archive.extract(entry, folder))
            if mode & 0o777 and target.is_file():
                target.chmod(mode & 0o777)


def _clean_up(cleanup_file: Path) -> None:
    if not cleanup_file.exists():
        return
    for name in reversed(json.loads(cleanup_file.read_text(encoding="utf-8"))):
        path = Path(name)
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    cleanup_file.unlink()


def _make_parents(target: Path) -> list[Path]:
    missing = []
    folder = target.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    target.parent.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: list[str]) -> str:
    return "\n".join(log)[-LOG_TAIL_CHARACTERS:]
