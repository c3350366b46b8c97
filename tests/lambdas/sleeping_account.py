"""An environment in memory that lives on while it is asked: schedules, tasks, trainings, a notebook instance, an
endpoint, workers, RDS, deployments.

Every call to AWS lets a second pass, so that something may happen between a look and the step that follows it.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from lambdas.sleep.account import Settings
from lambdas.sleep.logic import AWAKE

PREFIX = "updraft-dev"
TOKEN_SECONDS = 1800
SLOTS_PER_WORKER = 2
# The reaper looks at an endpoint that has rested for a minute, every five minutes.
REAPED_SECONDS = 6 * 60
SETTINGS = Settings(
    prefix=PREFIX,
    ssm_prefix="/updraft/dev",
    cluster=PREFIX,
    database="db",
    bastion_tag="updraft:codedeploy",
    application="dags",
    deployment_group="bastion",
    observer="observer",
    stacks=(f"{PREFIX}-airflow", f"{PREFIX}-scaling", f"{PREFIX}-tracking", f"{PREFIX}-pets"),
)


class Run:
    """A DAG run: tasks one after the other; a `train` task defers to a SageMaker job."""

    def __init__(self, dag: str, tasks: list[str], *, tagged: bool) -> None:
        self.dag, self.tasks, self.tagged = dag, tasks, tagged
        self.state = "scheduled"  # queued, running, deferred, done, lost
        self.since = 0.0
        self.job_until = 0.0


class Environment:
    """The world; `wrong` collects what must never happen."""

    def __init__(self, seed: int, *, merged: bool) -> None:
        self.random = random.Random(seed)
        self.now = 1_800_000_000.0
        names = ["control-plane"] if merged else ["webserver", "scheduler", "dag-processor", "triggerer"]
        self.services = {name: [1, 1, 0.0] for name in names}  # wanted, running, when running follows
        self.control = names[0] if merged else "scheduler"
        self.database, self.database_at = "available", 0.0
        self.bastion, self.bastion_at = "running", 0.0
        self.replaced: list[str] = []  # the states of the instances before it
        self.rules = {f"{PREFIX}-scaling-EveryMinute": True, f"{PREFIX}-airflow-Reap": True}
        self.parameters: dict[str, str] = {}
        self.runs: list[Run] = []
        self.workers = 0
        self.take_work = True
        self.stack_until = self.push_until = self.notebook_until = self.endpoint_until = 0.0
        self.notebook_status, self.endpoint_status = "InService", "Creating"  # until then
        self.hourly_at = self.now + self.random.randint(100, 3000)
        self.tagged_at = self.now + self.random.randint(3_600, 40_000)
        self.failing: list[str] = []
        self.wrong: list[str] = []

    # The passing of time

    def pass_time(self, seconds: float) -> None:
        """Live on for so long, a few seconds at a time."""
        while seconds > 0:
            step = min(15.0, seconds)
            self.now += step
            seconds -= step
            self._follow()
            if self.usable and self.services[self.control][1]:
                self._schedule()
            self._work()

    @property
    def usable(self) -> bool:
        return self.database == "available"

    @property
    def jobs(self) -> list[str]:
        return [f"{PREFIX}-{run.dag}" for run in self.runs if run.job_until > self.now]

    @property
    def awake(self) -> bool:
        state = self.parameters.get("/updraft/dev/sleep/state", AWAKE)
        up = all(wanted == running > 0 for wanted, running, _ in self.services.values())
        return (
            state == AWAKE and up and self.usable and self.bastion == "running" and all(self.rules.values())
        )

    @property
    def asleep(self) -> bool:
        state = self.parameters.get("/updraft/dev/sleep/state", AWAKE)
        down = all(wanted == running == 0 for wanted, running, _ in self.services.values())
        nothing = not self.workers and not any(self.rules.values())
        return state == "asleep" and down and nothing and self.database == self.bastion == "stopped"

    def _follow(self) -> None:
        for service in self.services.values():
            if service[1] != service[0] and self.now >= service[2]:
                service[1] = service[0]
        if self.database in ("stopping", "starting") and self.now >= self.database_at:
            self.database = {"stopping": "stopped", "starting": "available"}[self.database]
        if self.bastion in ("stopping", "pending") and self.now >= self.bastion_at:
            self.bastion = {"stopping": "stopped", "pending": "running"}[self.bastion]

    def _schedule(self) -> None:
        if self.now >= self.hourly_at:
            self.hourly_at += 3600
            self.runs.append(Run("hourly", self.random.choice([["a"], ["a", "train", "b"]]), tagged=False))
        if self.now >= self.tagged_at:
            self.tagged_at += 86_400
            self.runs.append(Run("nightly", ["a", "train", "b"], tagged=True))
        for run in self.runs:
            if run.state == "deferred" and run.job_until <= self.now:
                run.tasks.pop(0)
                run.state = "scheduled" if run.tasks else "done"
            if run.state == "scheduled":
                run.state, run.since = "queued", self.now

    def _work(self) -> None:
        """The load metric's workers: started for what is queued, told to leave when the environment doesn't take work."""
        sampled = self.rules[f"{PREFIX}-scaling-EveryMinute"] and self.bastion == "running"
        if sampled and self.random.random() < 0.2:
            self.take_work = self.parameters.get("/updraft/dev/sleep/state", AWAKE) == AWAKE
            waiting = sum(run.state in ("queued", "running") for run in self.runs)
            if self.take_work and self.usable:
                self.workers = max(self.workers, -(-waiting // SLOTS_PER_WORKER))
        for run in self.runs:
            busy = sum(run.state == "running" for run in self.runs)
            if run.state == "queued" and self.now - run.since > TOKEN_SECONDS:
                run.state = "lost"
                self.wrong.append(f"a queued task of {run.dag} waited too long: its token has expired")
            if run.state == "queued" and self.take_work and busy < self.workers * SLOTS_PER_WORKER:
                run.state, run.since = "running", self.now
            elif run.state == "running" and self.now - run.since > self.random.randint(20, 600):
                self._end_task(run)
        if not any(run.state in ("queued", "running") for run in self.runs) or not self.take_work:
            busy = sum(run.state == "running" for run in self.runs)
            self.workers = min(self.workers, -(-busy // SLOTS_PER_WORKER))

    def _end_task(self, run: Run) -> None:
        if run.tasks[0] == "train":
            run.state, run.job_until = "deferred", self.now + self.random.randint(60, 3000)
            return
        run.tasks.pop(0)
        run.state = "scheduled" if run.tasks else "done"

    # What must never be done

    def forbid(self, what: str) -> None:
        """Called where something that others live on is taken away."""
        running = [run.dag for run in self.runs if run.state == "running"]
        if running:
            self.wrong.append(f"{what} while tasks of {', '.join(running)} run")
        if self.jobs:
            self.wrong.append(f"{what} while {', '.join(self.jobs)} live")
        if max(self.stack_until, self.push_until) > self.now:
            self.wrong.append(f"{what} during a deployment")
        if self.endpoint_until + REAPED_SECONDS > self.now:
            self.wrong.append(f"{what} before the reaper could undo the endpoint")


def refuse(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as told"}}, operation)


class Clients(dict[str, Any]):
    """boto3's clients of the account, by service."""

    def __init__(self, world: Environment) -> None:
        super().__init__()
        self.world = world

    def __missing__(self, service: str) -> Any:
        self[service] = Client(self.world)
        return self[service]


class Client:
    """Answers every operation that sleep calls; a call may fail before or after it has had its effect."""

    exceptions = SimpleNamespace(
        ParameterNotFound=type("ParameterNotFound", (ClientError,), {}), ClientError=ClientError
    )

    def __init__(self, world: Environment) -> None:
        self._world = world

    def __getattr__(self, operation: str) -> Any:
        answer = getattr(Operations(self._world), operation)

        def call(**arguments: Any) -> Any:
            self._world.pass_time(1)
            mode = self._world.failing.pop() if self._world.failing else "works"
            if mode == "refused":
                raise refuse("ThrottlingException", operation)
            result = answer(**arguments)
            if mode == "lost":
                raise refuse("InternalFailure", operation)
            return result

        return call

    def get_paginator(self, operation: str) -> Any:
        def paginate(**arguments: Any) -> Iterator[dict[str, Any]]:
            yield getattr(self, operation)(**arguments)

        return SimpleNamespace(paginate=paginate)


class Operations:
    """What each operation does to the world."""

    def __init__(self, world: Environment) -> None:
        self._world = world

    def get_parameter(self, *, Name: str) -> Any:
        if Name not in self._world.parameters:
            raise Client.exceptions.ParameterNotFound(
                {"Error": {"Code": "ParameterNotFound"}}, "GetParameter"
            )
        return {"Parameter": {"Value": self._world.parameters[Name]}}

    def put_parameter(self, *, Name: str, Value: str, **_: Any) -> Any:
        self._world.parameters[Name] = Value

    def list_services(self, **_: Any) -> Any:
        return {"serviceArns": list(self._world.services)}

    def describe_services(self, *, services: list[str], **_: Any) -> Any:
        return {
            "services": [
                {
                    "serviceName": name,
                    "desiredCount": self._world.services[name][0],
                    "runningCount": self._world.services[name][1],
                    "pendingCount": 0,
                    "status": "ACTIVE",
                }
                for name in services
            ]
        }

    def update_service(self, *, service: str, desiredCount: int, **_: Any) -> Any:
        world = self._world
        # The scheduler alone may go while tasks run: they report to the API server, not to it.
        if desiredCount == 0 and service != "scheduler":
            world.forbid(f"service {service} to zero")
        world.services[service][0] = desiredCount
        world.services[service][2] = world.now + world.random.randint(10, 90)

    def list_tasks(self, **_: Any) -> Any:
        return {"taskArns": [str(number) for number in range(self._world.workers)]}

    def describe_tasks(self, *, tasks: list[str], **_: Any) -> Any:
        group = f"family:{PREFIX}-worker-default"
        return {"tasks": [{"group": group, "lastStatus": "RUNNING"} for _ in tasks]}

    def describe_db_instances(self, **_: Any) -> Any:
        return {"DBInstances": [{"DBInstanceStatus": self._world.database}]}

    def stop_db_instance(self, **_: Any) -> Any:
        self._switch_database("available", "stopping", 120)

    def start_db_instance(self, **_: Any) -> Any:
        self._switch_database("stopped", "starting", 400)

    def _switch_database(self, wanted: str, passing: str, seconds: float) -> None:
        if self._world.database != wanted:
            raise refuse("InvalidDBInstanceState", passing)
        if passing == "stopping":
            self._world.forbid("the database stopped")
        self._world.database, self._world.database_at = passing, self._world.now + seconds

    def describe_instances(self, *, Filters: list[dict[str, Any]]) -> Any:
        wanted = {each["Name"]: each["Values"] for each in Filters}
        assert wanted.pop("tag:updraft:codedeploy") == [PREFIX]
        found = [
            {
                "InstanceId": f"i-{number}",
                "State": {"Name": state},
                "LaunchTime": datetime.fromtimestamp(number, UTC),
            }
            for number, state in enumerate([*self._world.replaced, self._world.bastion])
            if state in wanted["instance-state-name"]
        ]
        return {"Reservations": [{"Instances": [instance]} for instance in found]}

    def _require_newest(self, instance_ids: list[str]) -> None:
        assert instance_ids == [f"i-{len(self._world.replaced)}"]

    def stop_instances(self, *, InstanceIds: list[str]) -> Any:
        self._require_newest(InstanceIds)
        self._world.forbid("the bastion stopped")
        if self._world.notebook_until > self._world.now:
            self._world.wrong.append(
                "the bastion stopped under a notebook instance, which needs it to stop itself"
            )
        self._world.bastion, self._world.bastion_at = "stopping", self._world.now + 40

    def start_instances(self, *, InstanceIds: list[str]) -> Any:
        self._require_newest(InstanceIds)
        if self._world.bastion != "stopped":
            raise refuse("IncorrectInstanceState", "StartInstances")
        self._world.bastion, self._world.bastion_at = "pending", self._world.now + 40

    def list_rules(self, **_: Any) -> Any:
        return {
            "Rules": [
                {
                    "Name": name,
                    "State": "ENABLED" if on else "DISABLED",
                    "ScheduleExpression": "rate(1 minute)",
                }
                for name, on in self._world.rules.items()
            ]
        }

    def enable_rule(self, *, Name: str) -> Any:
        self._world.rules[Name] = True

    def disable_rule(self, *, Name: str) -> Any:
        self._world.rules[Name] = False

    def list_training_jobs(self, *, StatusEquals: str, **_: Any) -> Any:
        # AWS looks for the prefix anywhere in a name.
        names = [*self._world.jobs, f"other-{PREFIX}-train"] if StatusEquals == "InProgress" else []
        return {"TrainingJobSummaries": [{"TrainingJobName": name} for name in names]}

    def list_processing_jobs(self, **_: Any) -> Any:
        return {"ProcessingJobSummaries": []}

    def list_transform_jobs(self, **_: Any) -> Any:
        return {"TransformJobSummaries": []}

    def list_hyper_parameter_tuning_jobs(self, **_: Any) -> Any:
        return {"HyperParameterTuningJobSummaries": []}

    def list_notebook_instances(self, *, NameContains: str) -> Any:
        world = self._world
        status = world.notebook_status if world.notebook_until > world.now else "Stopped"
        found = {f"{NameContains}notebook": status, f"other-{NameContains}notebook": "InService"}
        return {
            "NotebookInstances": [
                {"NotebookInstanceName": name, "NotebookInstanceStatus": status}
                for name, status in found.items()
            ]
        }

    def list_endpoints(self, *, NameContains: str) -> Any:
        world = self._world
        moving = world.endpoint_until > world.now
        changed = datetime.fromtimestamp(0.0 if moving else world.endpoint_until, UTC)
        found = {
            f"{NameContains}pets": world.endpoint_status if moving else "InService",
            f"other-{NameContains}pets": "Creating",
        }
        return {
            "Endpoints": [
                {"EndpointName": name, "EndpointStatus": status, "LastModifiedTime": changed}
                for name, status in found.items()
            ]
        }

    def list_deployments(self, **_: Any) -> Any:
        return {"deployments": ["d-1"] if self._world.push_until > self._world.now else []}

    def describe_stacks(self, *, StackName: str) -> Any:
        if StackName.endswith("-tracking"):
            raise refuse("ValidationError", "DescribeStacks")
        if StackName.endswith("-pets"):  # its deployment was cut off before it began
            return {"Stacks": [{"StackStatus": "REVIEW_IN_PROGRESS"}]}
        moving = self._world.stack_until > self._world.now
        return {"Stacks": [{"StackStatus": "UPDATE_IN_PROGRESS" if moving else "UPDATE_COMPLETE"}]}

    def invoke(self, **_: Any) -> Any:
        world = self._world
        if not world.usable:
            return {"Payload": io.BytesIO(b'{"errorMessage": "no database"}'), "FunctionError": "Unhandled"}
        states = [run.state for run in world.runs]
        work = {
            "queued": states.count("queued"),
            "running": states.count("running"),
            "tagged_runs": sum(run.tagged and run.state not in ("done", "lost") for run in world.runs),
            "next_tagged_run": world.tagged_at,
        }
        return {"Payload": io.BytesIO(json.dumps(work).encode())}
