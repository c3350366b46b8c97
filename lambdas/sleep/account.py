"""The account as sleep sees it and acts on it: one observation, one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from lambdas.sleep import logic
from lambdas.sleep.logic import Memory, Observed, Service, Work

MOST_SERVICES_AT_ONCE = 10
MOST_TASKS_AT_ONCE = 100
LIVING_JOBS = (
    ("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
    ("list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName"),
    ("list_transform_jobs", "TransformJobSummaries", "TransformJobName"),
    ("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries", "HyperParameterTuningJobName"),
)
# In any other status a notebook instance needs the VPC's way out: it stops itself through it.
RESTING_NOTEBOOK = frozenset({"Stopped", "Failed", "Deleting"})
# One that is being deleted goes without anybody's help.
MOVING_ENDPOINT = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
# What an ended task left half made rests before the reaper may undo it: its grace, its interval, and some more.
REAPER_SECONDS = 10 * 60
UNDER_WAY = ["Created", "Queued", "InProgress", "Baking", "Ready"]
LIVING_INSTANCE = ["pending", "running", "stopping", "stopped"]
SERVICES = ("cloudformation", "codedeploy", "ec2", "ecs", "events", "lambda", "rds", "sagemaker", "ssm")


@dataclass(frozen=True)
class Settings:
    """The function's environment; `stacks` are the names whose changes must not be disturbed.

    The bastion carries `bastion_tag` with the prefix as its value; a deployment may replace it at any time.
    """

    prefix: str
    ssm_prefix: str
    cluster: str
    database: str
    bastion_tag: str
    application: str
    deployment_group: str
    observer: str
    stacks: tuple[str, ...]


class Account:
    """Reads and changes what belongs to one environment; `clients` are boto3's by service name."""

    def __init__(self, settings: Settings, clients: dict[str, Any]) -> None:
        self._settings = settings
        self._clients = clients

    def ask(self, *, sleep: bool) -> None:
        """Write down what is wanted."""
        self._put("wanted", logic.ASLEEP if sleep else logic.AWAKE)

    def observe(self, now: float) -> Observed:
        """Look at everything once."""
        wants_sleep = self._get("wanted", logic.AWAKE) == logic.ASLEEP
        bastion = self._bastion()
        seen = Observed(
            now=now,
            wants_sleep=wants_sleep,
            state=self._get("state", logic.AWAKE),
            memory=Memory(**json.loads(self._get("memory", "{}"))),
            services=self._services(),
            workers=0,
            other_tasks=0,
            database=self._database(),
            bastion=bastion["State"]["Name"] if bastion else "terminated",
            rules=frozenset(rule["State"] != "DISABLED" for rule in self._rules()),
        )
        if not logic.sleeps_now(seen):
            return seen
        seen = replace(seen, notebooks=self._notebooks())
        if seen.state == logic.ASLEEP or seen.database not in logic.DATABASE_USABLE:
            return seen
        workers, others = self._tasks()
        return replace(
            seen,
            workers=workers,
            other_tasks=others,
            jobs=self._jobs(),
            endpoints=self._endpoints(now),
            changes=self._changes(),
            # Last, so that nothing that was seen before can have started since without being seen here.
            work=self._work(),
        )

    def do(self, step: logic.Step) -> None:
        """Take one step; raises what AWS answers when it can't be taken."""
        match step:
            case logic.Say(state):
                self._put("state", state)
            case logic.Remember(memory):
                self._put("memory", json.dumps(asdict(memory)))
            case logic.Scale(service, count):
                self._clients["ecs"].update_service(
                    cluster=self._settings.cluster, service=service, desiredCount=count
                )
            case logic.SwitchDatabase(on):
                rds = self._clients["rds"]
                (rds.start_db_instance if on else rds.stop_db_instance)(
                    DBInstanceIdentifier=self._settings.database
                )
            case logic.SwitchBastion(on):
                ec2, bastion = self._clients["ec2"], self._bastion()
                if bastion is not None:
                    (ec2.start_instances if on else ec2.stop_instances)(InstanceIds=[bastion["InstanceId"]])
            case logic.SwitchRules(on):
                events = self._clients["events"]
                change: Callable[..., Any] = events.enable_rule if on else events.disable_rule
                for rule in self._rules():
                    change(Name=rule["Name"])

    # What is seen

    def _get(self, name: str, default: str) -> str:
        ssm = self._clients["ssm"]
        try:
            answer = ssm.get_parameter(Name=f"{self._settings.ssm_prefix}/sleep/{name}")
        except ssm.exceptions.ParameterNotFound:
            return default
        return str(answer["Parameter"]["Value"])

    def _put(self, name: str, value: str) -> None:
        self._clients["ssm"].put_parameter(
            Name=f"{self._settings.ssm_prefix}/sleep/{name}", Value=value, Type="String", Overwrite=True
        )

    def _services(self) -> tuple[Service, ...]:
        ecs, cluster = self._clients["ecs"], self._settings.cluster
        pages = ecs.get_paginator("list_services").paginate(cluster=cluster)
        arns = sorted(arn for page in pages for arn in page["serviceArns"])
        found = []
        for start in range(0, len(arns), MOST_SERVICES_AT_ONCE):
            some = arns[start : start + MOST_SERVICES_AT_ONCE]
            found += ecs.describe_services(cluster=cluster, services=some)["services"]
        return tuple(
            Service(item["serviceName"], item["desiredCount"], item["runningCount"] + item["pendingCount"])
            if item["desiredCount"] == 0
            else Service(item["serviceName"], item["desiredCount"], item["runningCount"])
            for item in found
            if item["status"] == "ACTIVE"
        )

    def _tasks(self) -> tuple[int, int]:
        """How many workers live, and how many tasks that belong to no service (a migration, a clean-up)."""
        ecs, cluster = self._clients["ecs"], self._settings.cluster
        pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster)
        arns = [arn for page in pages for arn in page["taskArns"]]
        groups: list[str] = []
        for start in range(0, len(arns), MOST_TASKS_AT_ONCE):
            answer = ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + MOST_TASKS_AT_ONCE])
            groups += [task["group"] for task in answer["tasks"] if task["lastStatus"] != "STOPPED"]
        workers = sum(group.startswith(f"family:{self._settings.prefix}-worker-") for group in groups)
        services = sum(group.startswith("service:") for group in groups)
        return workers, len(groups) - workers - services

    def _database(self) -> str:
        answer = self._clients["rds"].describe_db_instances(DBInstanceIdentifier=self._settings.database)
        return str(answer["DBInstances"][0]["DBInstanceStatus"])

    def _bastion(self) -> dict[str, Any] | None:
        """The newest instance that is not terminated: while one is replaced there are two."""
        filters = [
            {"Name": f"tag:{self._settings.bastion_tag}", "Values": [self._settings.prefix]},
            {"Name": "instance-state-name", "Values": LIVING_INSTANCE},
        ]
        pages = self._clients["ec2"].get_paginator("describe_instances").paginate(Filters=filters)
        found = [
            instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]
        return max(found, key=lambda instance: instance["LaunchTime"], default=None)

    def _rules(self) -> list[dict[str, Any]]:
        """The rules on a schedule that the environment's stacks made, which are named after them."""
        pages = self._clients["events"].get_paginator("list_rules").paginate(NamePrefix=self._settings.prefix)
        ours = tuple(f"{stack}-" for stack in self._settings.stacks)
        return [
            rule
            for page in pages
            for rule in page["Rules"]
            if rule["Name"].startswith(ours) and rule.get("ScheduleExpression")
        ]

    def _jobs(self) -> tuple[str, ...]:
        return tuple(
            job[name]
            for operation, summaries, name in LIVING_JOBS
            for state in ("InProgress", "Stopping")
            for job in self._named(operation, summaries, name, StatusEquals=state)
        )

    def _notebooks(self) -> tuple[str, ...]:
        name = "NotebookInstanceName"
        return tuple(
            notebook[name]
            for notebook in self._named("list_notebook_instances", "NotebookInstances", name)
            if notebook["NotebookInstanceStatus"] not in RESTING_NOTEBOOK
        )

    def _endpoints(self, now: float) -> tuple[str, ...]:
        """Those that are being deployed, or were a moment ago, so that the reaper has had its turn."""
        name = "EndpointName"
        return tuple(
            endpoint[name]
            for endpoint in self._named("list_endpoints", "Endpoints", name)
            if endpoint["EndpointStatus"] in MOVING_ENDPOINT
            or (
                endpoint["EndpointStatus"] != "Deleting"
                and now - endpoint["LastModifiedTime"].timestamp() < REAPER_SECONDS
            )
        )

    def _named(self, operation: str, items: str, name: str, **filters: str) -> Iterator[dict[str, Any]]:
        """What SageMaker lists whose name begins as this environment's do; AWS's filter looks anywhere in it."""
        prefix = f"{self._settings.prefix}-"
        pages = self._clients["sagemaker"].get_paginator(operation).paginate(NameContains=prefix, **filters)
        return (item for page in pages for item in page[items] if item[name].startswith(prefix))

    def _changes(self) -> tuple[str, ...]:
        pages = (
            self._clients["codedeploy"]
            .get_paginator("list_deployments")
            .paginate(
                applicationName=self._settings.application,
                deploymentGroupName=self._settings.deployment_group,
                includeOnlyStatuses=UNDER_WAY,
            )
        )
        found = [f"bundle deployment {item}" for page in pages for item in page["deployments"]]
        cloudformation = self._clients["cloudformation"]
        for name in self._settings.stacks:
            try:
                stacks = cloudformation.describe_stacks(StackName=name)["Stacks"]
            except cloudformation.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "ValidationError":  # there is no such stack
                    raise
                continue
            found += [f"stack {name}" for stack in stacks if _is_changing(stack["StackStatus"])]
        return tuple(found)

    def _work(self) -> Work | None:
        """Asked through a function inside the VPC: this one must go on when the VPC has no way out."""
        answer = self._clients["lambda"].invoke(FunctionName=self._settings.observer)
        document = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            print(json.dumps({"observer_failed": document}))
            return None
        return Work(**document)


def _is_changing(stack_status: str) -> bool:
    # A new stack in review waits for somebody to execute its change set, which may never happen.
    return stack_status.endswith("_IN_PROGRESS") and stack_status != "REVIEW_IN_PROGRESS"
