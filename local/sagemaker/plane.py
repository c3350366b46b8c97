"""The host: gives every job an instance, follows it, and runs the trainings of tuning jobs."""

from __future__ import annotations

import copy
import json
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from local import docker, processes
from local.account.context import AccountContext
from local.sagemaker.endpoint_host import EndpointHost
from local.sagemaker.launch import launch
from local.sagemaker.outcome import ended
from local.sagemaker.service import JOBS, RUNNING, SageMakerService, new_suffix
from local.sagemaker.store import Record, Store
from local.sagemaker.tuning import best_trial, draw, objective
from local.state_file import write_whole

POLL_SECONDS = 0.2
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. "
    "Please retry using a different ML instance type."
)
INSTANCE_JOBS = ("TrainingJob", "ProcessingJob", "TransformJob")


class SageMakerPlane:
    """Starts instances and copies what they report into the store."""

    name = "sagemaker"

    def __init__(self, context: AccountContext, store: Store, service: SageMakerService) -> None:
        self._context = context
        self._paths = context.paths
        self._store = store
        self._service = service
        self._endpoints = EndpointHost(context, store)
        self._stopping = threading.Event()
        self._ended: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._run, name="sagemaker", daemon=True)

    def start(self) -> None:
        """Follow every job that has not ended; clear away what others left."""
        self._tidy()
        with self._store.lock:
            for kind in INSTANCE_JOBS:
                for name, job in self._store.of(kind).items():
                    if job[JOBS[kind][3]] in RUNNING and (role := self._role_of(kind, job)):
                        # An instance that outlived the account goes on with the credentials that it has.
                        self._context.permissions.credentials(role, name)
            self._endpoints.register_roles()
        self._thread.start()

    def stop(self) -> None:
        """End the instances; their jobs fail with the reason."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        with self._store.lock:
            for kind in JOBS:
                for name, job in self._store.of(kind).items():
                    if job[JOBS[kind][3]] in RUNNING:
                        self._abandon(kind, name, job, "the host was stopped")
            self._endpoints.stop()
        self._store.save()
        self._tidy()

    def state(self) -> str:
        """`running` while the host's thread does its work."""
        return "running" if self._thread.is_alive() else "stopped"

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            try:
                self._step()
            except Exception:
                self._context.logger.exception("the SageMaker host failed in one step and goes on")

    def _step(self) -> None:
        with self._store.lock:
            self._service.notebooks.step()
            self._service.warm_pools.step()
            self._endpoints.step()
            for kind in JOBS:
                for name, job in list(self._store.of(kind).items()):
                    if job[JOBS[kind][3]] in RUNNING:
                        self._step_one(kind, name, job)
        self._store.save()
        # Only once the end of a job is on disk: a job without its directory would be launched a second time.
        while self._ended:
            kind, name = self._ended.pop()
            self._end_instance(kind, name)
            shutil.rmtree(self._directory(kind, name), ignore_errors=True)

    def _step_one(self, kind: str, name: str, job: Record) -> None:
        """One job's trouble is its own: it fails, and all others go on."""
        try:
            if kind in INSTANCE_JOBS:
                self._follow(kind, name, job)
            else:
                self._tune(name, job)
        except Exception as error:
            self._context.logger.exception("%s %s can't go on", kind, name)
            self._abandon(kind, name, job, str(error))

    def _abandon(self, kind: str, name: str, job: Record, reason: str) -> None:
        if kind in INSTANCE_JOBS:
            self._end_instance(kind, name)
            self._ended.append((kind, name))
        for trial in job.get("_trials", []):
            if self._store.of("TrainingJob")[trial]["TrainingJobStatus"] in RUNNING:
                self._service.stop_job("TrainingJob", trial)
        self._fail(kind, job, f"InternalServerError: {reason}")

    def _tidy(self) -> None:
        """Remove directories and end instances of what has ended, or was never recorded."""
        self._endpoints.tidy()
        for kind in INSTANCE_JOBS:
            for directory in (self._paths.sagemaker / kind).glob("*"):
                job = self._store.of(kind).get(directory.name)
                if job is None or job[JOBS[kind][3]] not in RUNNING:
                    self._end_instance(kind, directory.name)
                    shutil.rmtree(directory, ignore_errors=True)

    def _end_instance(self, kind: str, name: str) -> None:
        """End a job's process where it still runs, and remove its container where it has one."""
        processes.stop(self._paths, _process_name(kind, name), timeout_seconds=0)
        engine = docker.chosen(self._paths)
        if engine is not None:
            engine.remove_container(engine.name(docker.job_container(kind, name)))

    def interrupt(self, name: str) -> None:
        """Take the instance of a running spot training away, as AWS does when it needs the capacity."""
        with self._store.lock:
            job = self._store.of("TrainingJob")[name]
            if not job.get("EnableManagedSpotTraining") or job["TrainingJobStatus"] != "InProgress":
                raise ValueError(f"{name} is no running spot training")
            (self._directory("TrainingJob", name) / "interrupt").touch()

    # Jobs with an instance

    def _follow(self, kind: str, name: str, job: Record) -> None:
        directory = self._directory(kind, name)
        if not (directory / "job.json").exists():
            self._launch(kind, name, job, directory)
            return
        if job[JOBS[kind][3]] == "Stopping":
            (directory / "stop").touch()
        # Read after looking at the process: a status written just before its end is not missed.
        alive = processes.is_running(self._paths, _process_name(kind, name))
        report = _read(directory / "status.json")
        if report:
            self._take_report(kind, job, report)
        if job[JOBS[kind][3]] in RUNNING and not alive:
            report = _read(directory / "status.json")
            if report and report["status"] != "InProgress":
                self._take_report(kind, job, report)
            else:
                self._fail(kind, job, "InternalServerError: the instance was lost")
        if job[JOBS[kind][3]] not in RUNNING:
            self._ended.append((kind, name))
        self._store.changed()

    def _launch(self, kind: str, name: str, job: Record, directory: Path) -> None:
        if not self._place(kind, job):
            self._fail(kind, job, NO_CAPACITY)
            return
        if kind == "TrainingJob":
            self._service.warm_pools.take(job)
        directory.mkdir(parents=True, exist_ok=True)
        spec: Record = {
            "kind": kind,
            "name": name,
            "job": {key: value for key, value in job.items() if not key.startswith("_")},
            "root": str(self._paths.root),
            "port": self._paths.port,
        }
        if kind == "TransformJob":
            spec["model"] = self._store.of("Model").get(job["ModelName"])
            if spec["model"] is None:
                raise ValueError(f"model {job['ModelName']} was deleted")
        spec["role"] = self._role_of(kind, job)
        self._record_what_aws_does(kind, name, spec)
        write_whole(directory / "job.json", spec)
        process_name = _process_name(kind, name)
        launch(self._paths, process_name, "local.sagemaker.instance", directory, log_name=name)

    def _place(self, kind: str, job: Record) -> bool:
        """Take the first instance type that has capacity; False when none has."""
        cluster = cluster_of(kind, job)
        preferences = cluster.get("InstancePreferences")
        wanted = preferences or [cluster]
        for each in wanted:
            if each["InstanceType"] in self._context.faults.now.without_capacity:
                continue
            if preferences:
                count = each.get("InstanceCount", cluster.get("InstanceCount"))
                cluster |= {"SelectedInstanceType": each["InstanceType"], "SelectedInstanceCount": count}
            return True
        return False

    def _role_of(self, kind: str, job: Record) -> str:
        """A transform job has its model's role; any other its own."""
        if kind == "TransformJob":
            return str(self._store.of("Model").get(job["ModelName"], {}).get("ExecutionRoleArn", ""))
        return str(job["RoleArn"])

    def _record_what_aws_does(self, kind: str, name: str, spec: Record) -> None:
        job: Record = spec.get("model") or spec["job"]
        image: str = {
            "TrainingJob": lambda: job["AlgorithmSpecification"]["TrainingImage"],
            "ProcessingJob": lambda: job["AppSpecification"]["ImageUri"],
            "TransformJob": lambda: job["PrimaryContainer"]["Image"],
        }[kind]()
        permissions = self._context.permissions
        credentials = permissions.credentials(spec["role"], name)
        permissions.needed(credentials, permissions.reader.of_a_job(job, image))

    def _take_report(self, kind: str, job: Record, report: Record) -> None:
        status_key = JOBS[kind][3]
        prefix = {"TrainingJob": "Training", "ProcessingJob": "Processing", "TransformJob": "Transform"}[kind]
        job[f"{prefix}StartTime"] = report["started_at"]
        if kind == "TrainingJob":
            job["SecondaryStatusTransitions"] = report["transitions"]
            if job[status_key] == "InProgress":
                job["SecondaryStatus"] = report.get("secondary", "Starting")
        if report["status"] == "InProgress":
            return
        job |= {
            status_key: report["status"],
            f"{prefix}EndTime": report["ended_at"],
            "LastModifiedTime": report["ended_at"],
        }
        if report["failure_reason"]:
            job["FailureReason"] = report["failure_reason"]
        if kind == "TrainingJob":
            job |= {
                "SecondaryStatus": report["secondary"],
                "TrainingTimeInSeconds": report["seconds"],
                "BillableTimeInSeconds": report["billable_seconds"],
                "FinalMetricDataList": report["metrics"],
            }
            if "model_uri" in report:
                job["ModelArtifacts"] = {"S3ModelArtifacts": report["model_uri"]}
            self._service.warm_pools.fill(job)

    def _fail(self, kind: str, job: Record, reason: str) -> None:
        now = time.time()
        job |= {JOBS[kind][3]: "Failed", "FailureReason": reason, "LastModifiedTime": now}
        if kind == "TrainingJob":
            transitions = ended(job["SecondaryStatusTransitions"], "Failed", now)
            job |= {
                "SecondaryStatus": "Failed",
                "SecondaryStatusTransitions": transitions,
                "TrainingEndTime": now,
            }
        if kind == "HyperParameterTuningJob":
            job["HyperParameterTuningEndTime"] = now
        self._store.changed()

    # Tuning

    def _tune(self, name: str, job: Record) -> None:
        trials = [self._store.of("TrainingJob")[trial] for trial in job["_trials"]]
        running = [trial for trial in trials if trial["TrainingJobStatus"] in RUNNING]
        if job["HyperParameterTuningJobStatus"] == "Stopping":
            for trial in running:
                self._service.stop_job("TrainingJob", trial["TrainingJobName"])
        config = job["HyperParameterTuningJobConfig"]
        limits = config["ResourceLimits"]
        wanted = limits["MaxNumberOfTrainingJobs"]
        while (
            job["HyperParameterTuningJobStatus"] == "InProgress"
            and len(job["_trials"]) < wanted
            and len(running) < limits["MaxParallelTrainingJobs"]
        ):
            running.append(self._start_trial(name, job))
        self._count(job, [self._store.of("TrainingJob")[trial] for trial in job["_trials"]])
        if running:
            return
        stopped = job["HyperParameterTuningJobStatus"] == "Stopping"
        if stopped or len(job["_trials"]) >= wanted:
            self._end_tuning(job, stopped=stopped)

    def _start_trial(self, name: str, job: Record) -> Record:
        number = len(job["_trials"]) + 1
        definition = copy.deepcopy(job["TrainingJobDefinition"])
        config = job["HyperParameterTuningJobConfig"]
        chance = random.Random(f"{config.get('RandomSeed', name)}/{number}")
        tuned = draw(config["ParameterRanges"], chance)
        trial_name = f"{name}-{number:03d}-{new_suffix()}"
        static = definition.pop("StaticHyperParameters", {})
        definition.pop("DefinitionName", None)
        request = definition | {"TrainingJobName": trial_name, "HyperParameters": {**static, **tuned}}
        request["Tags"] = list(self._store.tags.get(job["HyperParameterTuningJobArn"], []))
        self._service.create_job(
            "TrainingJob", request, more={"TuningJobArn": job["HyperParameterTuningJobArn"], "_tuned": tuned}
        )
        job["_trials"].append(trial_name)
        self._store.changed()
        return self._store.of("TrainingJob")[trial_name]

    def _count(self, job: Record, trials: list[Record]) -> None:
        states = [trial["TrainingJobStatus"] for trial in trials]
        job["TrainingJobStatusCounters"] = {
            "Completed": states.count("Completed"),
            "InProgress": sum(state in RUNNING for state in states),
            "RetryableError": 0,
            "NonRetryableError": states.count("Failed"),
            "Stopped": states.count("Stopped"),
        }
        wanted = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        succeeded = sum(objective(trial, wanted["MetricName"]) is not None for trial in trials)
        ended = sum(state not in RUNNING for state in states)
        job["ObjectiveStatusCounters"] = {
            "Succeeded": succeeded,
            "Pending": len(states) - ended,
            "Failed": ended - succeeded,
        }
        best = best_trial(trials, wanted)
        if best:
            job["BestTrainingJob"] = best

    def _end_tuning(self, job: Record, *, stopped: bool) -> None:
        now = time.time()
        failed = "BestTrainingJob" not in job and not stopped
        job |= {
            "HyperParameterTuningJobStatus": "Stopped" if stopped else "Failed" if failed else "Completed",
            "HyperParameterTuningEndTime": now,
            "LastModifiedTime": now,
        }
        if failed:
            job["FailureReason"] = "No training job reported the objective metric"
        self._store.changed()

    def _directory(self, kind: str, name: str) -> Path:
        return self._paths.sagemaker / kind / name


def cluster_of(kind: str, job: Record) -> Record:
    """Where a job says on which instances it runs."""
    if kind == "ProcessingJob":
        return job["ProcessingResources"]["ClusterConfig"]  # type: ignore[no-any-return]
    return job["ResourceConfig" if kind == "TrainingJob" else "TransformResources"]  # type: ignore[no-any-return]


def _process_name(kind: str, name: str) -> str:
    return f"sagemaker-{kind}-{name}"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
