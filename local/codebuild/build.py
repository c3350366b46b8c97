"""One build's host: `python -m local.codebuild.build BUILD_DIRECTORY`.

Reads `build.json`, gets the source, runs the buildspec's phases as CodeBuild does, and keeps `status.json` up to date.
Commands run as processes of this machine, with stand-ins for the two tools of CodeBuild's images that need AWS or an
engine (`local/codebuild/tools`). A file `stop` asks it to stop.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local.account.principals import RoleCredentials
from local.codebuild.buildspec import PHASES, Buildspec, BuildspecError, parse
from local.paths import ROOT, LocalPaths
from local.processes import kill_session
from local.sagemaker.storage import Logs, Storage, client
from local.state_file import write_whole

Record = dict[str, Any]
POLL_SECONDS = 0.1
TOOLS = ("aws", "docker")
# Every command sees what the ones before it exported, and where they went.
COMMAND = """
. "$CODEBUILD_LOCAL_STATE/environment"
cd "$(cat "$CODEBUILD_LOCAL_STATE/directory")" || exit 1
CODEBUILD_BUILD_SUCCEEDING=$(cat "$CODEBUILD_LOCAL_STATE/succeeding"); export CODEBUILD_BUILD_SUCCEEDING
. "$CODEBUILD_LOCAL_STATE/command"
code=$?
export -p > "$CODEBUILD_LOCAL_STATE/environment"
pwd > "$CODEBUILD_LOCAL_STATE/directory"
exit $code
"""


class BuildEndedError(Exception):
    """The build was stopped, or its time is up; the text is its final status."""


class PhaseFailedError(Exception):
    """A phase that failed, with what CodeBuild says of it."""


class Build:
    """Runs one build from its directory."""

    def __init__(self, directory: Path) -> None:
        spec = json.loads((directory / "build.json").read_text())
        self.directory = directory
        self.build: Record = spec["build"]
        self.artifacts: Record = spec["artifacts"]
        self.paths = LocalPaths(Path(spec["root"]), port=spec["port"])
        self.role = RoleCredentials(self.build["serviceRole"], directory.name)
        self.storage = Storage(self.paths, self.role)
        self.source = directory / "src"
        self.state = directory / "state"
        self.succeeding = True
        self._log_file = directory / "build.log"
        logs = self.build["logs"]
        self.logs = Logs(
            self.paths,
            self.role,
            group=logs["groupName"],
            stream=logs["streamName"],
            file=self._log_file,
        )
        self._ships = logs["cloudWatchLogs"]["status"] == "ENABLED"
        self._deadline = time.time() + self.build["timeoutInMinutes"] * 60
        self.status: Record = {"phases": list(self.build["phases"]), "buildStatus": "IN_PROGRESS"}

    def run(self) -> None:
        """The whole build; whatever happens ends in a final status."""
        status = "FAULT"
        try:
            status = self._run()
        except BuildEndedError as end:
            status = str(end)
        except Exception:
            with self._log_file.open("a") as log:
                traceback.print_exc(file=log)
        if self._ships:
            self.logs.finish()
        self._begin("COMPLETED")
        now = time.time()
        self.status |= {
            "buildStatus": status,
            "buildComplete": True,
            "currentPhase": "COMPLETED",
            "endTime": now,
        }
        self._write()

    def _run(self) -> str:
        self._phase("QUEUED", lambda: None)
        self._phase("PROVISIONING", self._prepare)
        if not self._phase("DOWNLOAD_SOURCE", self._download):
            return "FAILED"
        for name in PHASES:
            if not self._run_phase(name):
                break
        if self.succeeding and self.artifacts.get("type") == "S3":
            self.succeeding = self._phase("UPLOAD_ARTIFACTS", self._upload_artifacts)
        self._phase("FINALIZING", self._export_variables)
        return "SUCCEEDED" if self.succeeding else "FAILED"

    def _run_phase(self, name: str) -> bool:
        """Whether the next phase follows: after a failure only `build` has one, unless the buildspec says otherwise.

        https://docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html
        """
        phase = self.buildspec.phases.get(name)
        if phase is None:
            return True

        def work() -> None:
            try:
                self._commands(phase.commands)
            finally:
                self._commands(phase.finally_)

        if self._phase(name.upper(), work):
            return True
        if phase.on_failure == "CONTINUE":
            return True
        self.succeeding = False
        return name == "build" and phase.on_failure != "ABORT"

    def _phase(self, kind: str, work: Callable[[], None]) -> bool:
        """Do a phase's work and record it; False when it failed."""
        self._begin(kind)
        contexts, status = [], "SUCCEEDED"
        try:
            work()
        except (PhaseFailedError, BuildspecError, ValueError, OSError) as error:
            code, _, message = str(error).partition(": ")
            contexts, status = [{"statusCode": code, "message": message or code}], "FAILED"
            self._say(f"Phase context status code: {code} Message: {message}")
        except BuildEndedError as end:
            self._finish(str(end), [{"statusCode": str(end), "message": f"the build was ended: {end}"}])
            raise
        self._say(f"Phase complete: {kind} State: {status}")
        self._finish(status, contexts)
        return status == "SUCCEEDED"

    def _begin(self, kind: str) -> None:
        self.status["phases"].append({"phaseType": kind, "startTime": time.time()})
        self.status["currentPhase"] = kind
        self._write()

    def _finish(self, status: str, contexts: list[Record]) -> None:
        phase = self.status["phases"][-1]
        now = time.time()
        phase |= {
            "phaseStatus": status,
            "endTime": now,
            "durationInSeconds": round(now - phase["startTime"]),
            "contexts": contexts,
        }
        self._write()

    # Work

    def _prepare(self) -> None:
        for folder in (self.source, self.state, self.directory / "home", self.directory / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        binaries = self.directory / "bin"
        binaries.mkdir(exist_ok=True)
        for tool in TOOLS:
            file = binaries / tool
            file.write_text(
                "#!/bin/sh\n"
                f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -P "
                f'-m local.codebuild.tools.{tool} {shlex.quote(str(self.directory))} "$@"\n'
            )
            file.chmod(0o755)

    def _download(self) -> None:
        location = self.build["source"]["location"]
        archive = self.directory / "source.zip"
        try:
            self.storage.download_file(f"s3://{location}", archive)
        except Exception as error:
            raise PhaseFailedError(f"CLIENT_ERROR: {location}: {error}") from error
        with zipfile.ZipFile(archive) as files:
            files.extractall(self.source)
        self.buildspec = self._read_buildspec()
        environment = self._environment(self.buildspec)
        exports = (f"export {name}={shlex.quote(value)}" for name, value in environment.items())
        (self.state / "environment").write_text("\n".join(exports) + "\n")
        (self.state / "directory").write_text(str(self.source))

    def _read_buildspec(self) -> Buildspec:
        given = self.build["source"].get("buildspec", "")
        if "\n" in given:
            return parse(given)
        file = self.source / (given or "buildspec.yml")
        if not file.is_file():
            raise BuildspecError(f"YAML_FILE_ERROR: stat {file.name}: no such file or directory")
        return parse(file.read_text())

    def _environment(self, buildspec: Buildspec) -> dict[str, str]:
        """The build's variables: the buildspec's, then the project's and the build's, then CodeBuild's own."""
        values = dict(buildspec.variables)
        values |= {name: self._parameter(value) for name, value in buildspec.parameters.items()}
        values |= {name: self._secret(value) for name, value in buildspec.secrets.items()}
        readers = {"PARAMETER_STORE": self._parameter, "SECRETS_MANAGER": self._secret}
        for item in self.build["environment"]["environmentVariables"]:
            read = readers.get(item.get("type", "PLAINTEXT"), str)
            values[item["name"]] = read(item["value"])
        region = self.paths.region
        return values | {
            "PATH": os.pathsep.join([str(self.directory / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(self.directory / "home"),
            "TMPDIR": str(self.directory / "tmp"),
            "LANG": "C.UTF-8",
            "CI": "true",
            "CODEBUILD_CI": "true",
            "CODEBUILD_BUILD_ID": self.build["id"],
            "CODEBUILD_BUILD_ARN": self.build["arn"],
            "CODEBUILD_BUILD_NUMBER": str(self.build["buildNumber"]),
            "CODEBUILD_BUILD_IMAGE": self.build["environment"]["image"],
            "CODEBUILD_INITIATOR": self.build["initiator"],
            "CODEBUILD_SRC_DIR": str(self.source),
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self.paths.endpoint_url,
            **self.role.environment(),
        }

    def _parameter(self, name: str) -> str:
        found = client(self.paths, "ssm", self.role).get_parameter(Name=name, WithDecryption=True)
        return str(found["Parameter"]["Value"])

    def _secret(self, reference: str) -> str:
        secret_id, _, key = (
            reference.partition(":") if not reference.startswith("arn:") else (reference, "", "")
        )
        text = str(
            client(self.paths, "secretsmanager", self.role).get_secret_value(SecretId=secret_id)[
                "SecretString"
            ]
        )
        return str(json.loads(text)[key]) if key else text

    def _commands(self, commands: list[str]) -> None:
        for command in commands:
            self._say(f"Running command {command}")
            code = self._command(command)
            if code != 0:
                raise PhaseFailedError(
                    f"COMMAND_EXECUTION_ERROR: Error while executing command: {command}. "
                    f"Reason: exit status {code}"
                )

    def _command(self, command: str) -> int:
        (self.state / "command").write_text(command + "\n")
        (self.state / "succeeding").write_text(str(int(self.succeeding)))
        with self._log_file.open("ab") as output:
            process = subprocess.Popen(
                [self.buildspec.shell, "-c", COMMAND],
                cwd=self.source,
                env={"CODEBUILD_LOCAL_STATE": str(self.state), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                if (self.directory / "stop").exists():
                    raise BuildEndedError("STOPPED")
                if time.time() > self._deadline:
                    raise BuildEndedError("TIMED_OUT")
                if self._ships:
                    self.logs.ship()
                time.sleep(POLL_SECONDS)
        finally:
            kill_session(process.pid)
            process.wait()
        return process.returncode

    def _upload_artifacts(self) -> None:
        section = self.buildspec.artifacts
        if section is None:
            raise PhaseFailedError("CLIENT_ERROR: the project has artifacts, and the buildspec names none")
        base = self.source / section.get("base-directory", "")
        found = sorted(
            {
                path
                for pattern in section["files"]
                for path in base.glob(pattern.removeprefix("./"))
                if path.is_file()
            }
        )
        if not found:
            raise PhaseFailedError("CLIENT_ERROR: no matching artifact paths found")
        flat = str(section.get("discard-paths", "no")).lower() in ("yes", "true")
        names = {path: path.name if flat else str(path.relative_to(base)) for path in found}
        place = [self.artifacts["location"], self.artifacts.get("path", "").strip("/")]
        if self.artifacts.get("namespaceType") == "BUILD_ID":
            place.append(self.build["id"].rpartition(":")[2])
        place.append(self.artifacts.get("name") or section.get("name") or self.build["projectName"])
        uri = "s3://" + "/".join(filter(None, place))
        if self.artifacts.get("packaging") == "ZIP":
            archive = self.directory / "artifacts.zip"
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
                for path, name in names.items():
                    files.write(path, name)
            self.storage.put(uri, archive.read_bytes())
        else:
            for path, name in names.items():
                self.storage.put(f"{uri}/{name}", path.read_bytes())
        self.status["artifacts"] = {"location": f"arn:aws:s3:::{uri.removeprefix('s3://')}"}

    def _export_variables(self) -> None:
        if not self.buildspec.exported:
            return
        script = '. "$CODEBUILD_LOCAL_STATE/environment"; env -0'
        ran = subprocess.run(
            [self.buildspec.shell, "-c", script],
            env={"CODEBUILD_LOCAL_STATE": str(self.state), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
        pairs = (entry.partition("=") for entry in ran.stdout.decode().split("\0"))
        values: Mapping[str, str] = {name: value for name, _, value in pairs}
        self.status["exportedEnvironmentVariables"] = [
            {"name": name, "value": values.get(name, "")} for name in self.buildspec.exported
        ]

    def _say(self, text: str) -> None:
        with self._log_file.open("a") as log:
            log.write(f"[Container] {text}\n")

    def _write(self) -> None:
        write_whole(self.directory / "status.json", self.status)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(sys.argv[1])
    Build(directory).run()
    # What a build leaves on its host goes with the host.
    shutil.rmtree(directory / "src", ignore_errors=True)
