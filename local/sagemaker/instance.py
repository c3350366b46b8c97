"""One job's instance: `python -m local.sagemaker.instance JOB_DIRECTORY`.

Reads `job.json`, downloads the inputs, runs the container, uploads what it made, and keeps `status.json` up to date.
It is a process of its own, so that a job outlives a restart of the account. A file `stop` asks it to stop.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import traceback
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from local import docker
from local.account.principals import RoleCredentials
from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.container import JobContainer
from local.sagemaker.outcome import JobEndedError, JobFailedError, SpotInterruptionError, ended
from local.sagemaker.serving import (
    batches,
    fetch_model,
    invoke,
    is_healthy,
    serving_environment,
)
from local.sagemaker.storage import Logs, Storage
from local.state_file import write_whole

Record = dict[str, Any]
POLL_SECONDS = 0.1
# SageMaker sends SIGTERM and, two minutes later, SIGKILL.
STOP_SECONDS = 120
PING_SECONDS = 60
CHECKPOINT_SECONDS = 5
# What spot saves differs by type, place and hour; this is a usual figure.
SPOT_DISCOUNT = 0.7
LOG_GROUPS = {
    "TrainingJob": "/aws/sagemaker/TrainingJobs",
    "ProcessingJob": "/aws/sagemaker/ProcessingJobs",
    "TransformJob": "/aws/sagemaker/TransformJobs",
}


class Instance:
    """Runs one job from its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        spec = json.loads((directory / "job.json").read_text())
        self.kind: str = spec["kind"]
        self.job: Record = spec["job"]
        self.model: Record = spec.get("model", {})
        self.name: str = spec["name"]
        self.paths = LocalPaths(Path(spec["root"]), port=spec["port"])
        self.ml = directory / "ml"
        self.role = RoleCredentials(spec["role"], self.name)
        self.storage = Storage(self.paths, self.role)
        self.started_at = time.time()
        self.status: Record = {"status": "InProgress", "started_at": self.started_at, "transitions": []}
        self._log_file = directory / "container.log"
        host = "algo-1" if self.kind != "TransformJob" else "transform-1"
        self.logs = Logs(
            self.paths,
            self.role,
            group=LOG_GROUPS[self.kind],
            stream=f"{self.name}/{host}-{int(self.started_at)}",
            file=self._log_file,
        )

    def run(self) -> None:
        """The whole job; whatever happens ends in a final status."""
        self._write_status()
        try:
            self._run_until_not_interrupted()
            self._finish("Completed", "Completed")
        except JobEndedError as end:
            self._finish(end.status, end.secondary)
        except JobFailedError as error:
            self._finish("Failed", "Failed", str(error))
        except Exception as error:
            traceback.print_exc()
            self._finish("Failed", "Failed", f"ClientError: {error}")

    def _run_until_not_interrupted(self) -> None:
        while True:
            try:
                getattr(self, f"_run_{self.kind}")()
                return
            except SpotInterruptionError:
                self._enter("Interrupted", "Managed spot training was interrupted: no capacity")
                (self.directory / "interrupt").unlink()
                # The next instance starts with nothing but what S3 has.
                shutil.rmtree(self.ml)
                self._enter("Starting", "Preparing the instances for training")

    def _run_TrainingJob(self) -> None:
        self._enter("Downloading", "Downloading the training image and input data")
        for channel in self.job.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self.storage.download(source, self.ml / "input" / "data" / channel["ChannelName"])
        checkpoints = self.job.get("CheckpointConfig")
        if checkpoints:
            (self.ml / "checkpoints").mkdir(parents=True, exist_ok=True)
            self.storage.download(checkpoints["S3Uri"], self.ml / "checkpoints", may_be_empty=True)
        self._write_training_input()
        image = self.job["AlgorithmSpecification"]["TrainingImage"]
        extra = {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.job["TrainingJobArn"]}
        self._enter("Training", "Training image download completed. Training in progress.")
        end: JobEndedError | None = None
        try:
            self._run_container(image, ["train"], extra | self.job.get("Environment", {}))
        except JobEndedError as ended:
            end = ended  # what was learned until then is kept
        finally:
            # A script that failed is resumed from its last checkpoint too.
            if checkpoints:
                self.storage.upload(self.ml / "checkpoints", checkpoints["S3Uri"])
        self._enter("Uploading", "Uploading generated training model")
        if any((self.ml / "model").iterdir()):
            self._upload_model()
        if end:
            raise end

    def _run_ProcessingJob(self) -> None:
        for item in self.job.get("ProcessingInputs", []):
            self.storage.download(item["S3Input"]["S3Uri"], self._local(item["S3Input"]["LocalPath"]))
        outputs = self.job.get("ProcessingOutputConfig", {}).get("Outputs", [])
        for item in outputs:
            self._local(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        app = self.job["AppSpecification"]
        self._run_container(
            app["ImageUri"],
            app.get("ContainerArguments", []),
            self.job.get("Environment", {}),
            entrypoint=app.get("ContainerEntrypoint"),
        )
        for item in outputs:
            self.storage.upload(self._local(item["S3Output"]["LocalPath"]), item["S3Output"]["S3Uri"])

    def _run_TransformJob(self) -> None:
        container = self.model["PrimaryContainer"]
        fetch_model(self.storage, container, self.directory, self.ml)
        port = free_port()
        variables = (each.get("Environment", {}) for each in (container, self.job))
        process = self._start(container["Image"], ["serve"], serving_environment(port, *variables))
        try:
            self._wait_for_ping(process, port)
            self._transform(process, port)
        finally:
            self._end(process)

    def _transform(self, process: subprocess.Popen[bytes], port: int) -> None:
        source = self.job["TransformInput"]
        target = self.job["TransformOutput"]["S3OutputPath"].rstrip("/")
        inputs = self.directory / "inputs"
        self.storage.download(source["DataSource"]["S3DataSource"]["S3Uri"], inputs)
        # 0 means no limit.
        most_bytes = self.job.get("MaxPayloadInMB", 6) * 2**20 or sys.maxsize
        headers = {"Content-Type": source.get("ContentType", "application/octet-stream")}
        if accept := self.job["TransformOutput"].get("Accept"):
            headers["Accept"] = accept
        for file in sorted(path for path in inputs.rglob("*") if path.is_file()):
            answers = []
            for body in batches(
                file.read_bytes(), source.get("SplitType", "None"), self.job.get("BatchStrategy"), most_bytes
            ):
                self._check(process)
                answers.append(invoke(port, body, headers))
                self.logs.ship()
            joined = (
                b"\n".join(answer.rstrip(b"\n") for answer in answers) + b"\n"
                if self.job["TransformOutput"].get("AssembleWith") == "Line"
                else b"".join(answers)
            )
            self.storage.put(f"{target}/{file.relative_to(inputs)}.out", joined)

    def _wait_for_ping(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + PING_SECONDS
        while True:
            self._check(process)
            if is_healthy(port):
                return
            if time.monotonic() > deadline:
                raise JobFailedError("AlgorithmError: the model's container does not answer /ping")
            time.sleep(POLL_SECONDS)

    # The container

    def _run_container(
        self,
        image: str,
        arguments: list[str],
        environment: dict[str, str],
        *,
        entrypoint: list[str] | None = None,
    ) -> None:
        """Run to the end; raises JobFailedError for a non-zero exit, JobEndedError for a stop or a time-out."""
        process = self._start(image, arguments, environment, entrypoint=entrypoint)
        next_upload = time.monotonic() + CHECKPOINT_SECONDS
        try:
            while process.poll() is None:
                self._check(process)
                if (
                    self.kind == "TrainingJob"
                    and "CheckpointConfig" in self.job
                    and time.monotonic() > next_upload
                ):
                    self._try_upload_checkpoints()
                    next_upload = time.monotonic() + CHECKPOINT_SECONDS
                self.logs.ship()
                time.sleep(POLL_SECONDS)
        finally:
            self._end(process)
        if process.returncode != 0:
            failure = self.ml / "output" / "failure"
            reason = failure.read_text()[:1024] if failure.is_file() else self._tail()
            code = process.returncode if process.returncode > 0 else 128 - process.returncode
            raise JobFailedError(f"AlgorithmError: {reason}, exit code: {code}")

    def _try_upload_checkpoints(self) -> None:
        try:
            self.storage.upload(self.ml / "checkpoints", self.job["CheckpointConfig"]["S3Uri"])
        except (BotoCoreError, ClientError, S3UploadFailedError, OSError) as error:
            # Uploaded again in a moment, and in the end; the script may also be replacing a file right now.
            print(f"checkpoints are not uploaded for now: {error}", flush=True)

    def _start(
        self,
        uri: str,
        arguments: list[str],
        environment: dict[str, str],
        *,
        entrypoint: list[str] | None = None,
    ) -> subprocess.Popen[bytes]:
        for name in ("model", "output"):
            (self.ml / name).mkdir(parents=True, exist_ok=True)
        job = JobContainer(
            self.paths, self.role, docker.job_container(self.kind, self.name), self.directory, self.ml
        )
        with self._log_file.open("ab") as output:
            return job.start(uri, arguments, environment, entrypoint, output)

    def _check(self, process: subprocess.Popen[bytes]) -> None:
        """Raise when the job is to stop, its time is up, or a server ended that should not have."""
        limit = self.job.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400)
        if (self.directory / "stop").exists():
            raise JobEndedError("Stopped", "Stopped")
        if self.job.get("EnableManagedSpotTraining") and (self.directory / "interrupt").exists():
            raise SpotInterruptionError
        if time.time() - self.started_at > limit:
            raise JobEndedError("Stopped", "MaxRuntimeExceeded")
        if self.kind == "TransformJob" and process.poll() is not None:
            raise JobFailedError(f"AlgorithmError: the model's container ended: {self._tail()}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # What SageMaker writes

    def _write_training_input(self) -> None:
        config = self.ml / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "hyperparameters.json").write_text(json.dumps(self.job.get("HyperParameters", {})))
        channels = {
            channel["ChannelName"]: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
            for channel in self.job.get("InputDataConfig", [])
        }
        (config / "inputdataconfig.json").write_text(json.dumps(channels))
        resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
        (config / "resourceconfig.json").write_text(json.dumps(resources))

    def _upload_model(self) -> None:
        archive = self.directory / "model.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as files:
            for path in sorted((self.ml / "model").iterdir()):
                files.add(path, arcname=path.name)
        uri = f"{self.job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output/model.tar.gz"
        self.storage.put(uri, archive.read_bytes())
        self.status["model_uri"] = uri

    def _local(self, container_path: str) -> Path:
        """Where a path of the container lies; only `/opt/ml` has a place here."""
        if not container_path.startswith("/opt/ml/"):
            raise JobFailedError(f"ClientError: LocalPath {container_path} is not below /opt/ml/processing")
        return self.ml / container_path.removeprefix("/opt/ml/")

    def _tail(self) -> str:
        text = self._log_file.read_text(errors="replace") if self._log_file.exists() else ""
        return text.strip()[-500:]

    def _metrics(self) -> list[Record]:
        definitions = self.job.get("AlgorithmSpecification", {}).get("MetricDefinitions", [])
        if not definitions or not self._log_file.exists():
            return []
        text = self._log_file.read_text(errors="replace")
        found = []
        for definition in definitions:
            value = last_value(definition["Regex"], text)
            if value is not None:
                found.append({"MetricName": definition["Name"], "Value": value, "Timestamp": time.time()})
        return found

    def _enter(self, secondary: str, message: str) -> None:
        now = time.time()
        for transition in self.status["transitions"]:
            transition.setdefault("EndTime", now)
        self.status["transitions"].append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        self.status["secondary"] = secondary
        self._write_status()

    def _finish(self, status: str, secondary: str, reason: str | None = None) -> None:
        self.logs.finish()
        ended_at = time.time()
        self.status |= {
            "transitions": ended(self.status["transitions"], secondary, ended_at),
            "status": status,
            "secondary": secondary,
            "failure_reason": reason[:1024] if reason else None,
            "ended_at": ended_at,
            "billable_seconds": self._billable_seconds(ended_at),
            "seconds": self._seconds(ended_at),
            "metrics": self._metrics(),
        }
        self._write_status()

    def _seconds(self, ended_at: float) -> int:
        return max(1, math.ceil(ended_at - self.started_at))

    def _billable_seconds(self, ended_at: float) -> int:
        """On spot the billable time is less than the training's, by the discount."""
        share = 1 - SPOT_DISCOUNT if self.job.get("EnableManagedSpotTraining") else 1
        return max(1, math.ceil(self._seconds(ended_at) * share))

    def _write_status(self) -> None:
        write_whole(self.directory / "status.json", self.status)


def last_value(regex: str, text: str) -> float | None:
    """What the regex's first group captured last, as a number; None when it captured none."""
    try:
        captured = [match[1] for match in re.finditer(regex, text)]
        numbers = [float(value) for value in captured if value is not None]
    except (re.error, IndexError, ValueError):
        # The definition doesn't fit the log: a metric is missing, and the model is as good as without it.
        return None
    return numbers[-1] if numbers and math.isfinite(numbers[-1]) else None


if __name__ == "__main__":
    # The account's own stop reaches this process too; what it started must not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Instance(Path(sys.argv[1])).run()
