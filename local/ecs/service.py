"""The ECS API (JSON 1.1): every request is held against botocore's model before it changes anything."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from local.account.json_api import ApiError, answer
from local.account.resources.shapes import InvalidPropertiesError, to_api
from local.ecs.store import Record, Store, public

DEFAULT_DEPLOYMENT = {"maximumPercent": 200, "minimumHealthyPercent": 100}
MOST_TASKS_AT_ONCE = 10


class EcsError(ApiError):
    """An error of this service."""


class EcsService:
    """Operations that read and change the store; the engine does what the store says."""

    def __init__(self, store: Store, *, account_id: str, region: str) -> None:
        self._store = store
        self._arn = f"arn:aws:ecs:{region}:{account_id}"
        self._zone = f"{region}a"
        self.operations: dict[str, Callable[[Record], Record]] = {
            "CreateCluster": self.create_cluster,
            "DeleteCluster": self.delete_cluster,
            "DescribeClusters": self.describe_clusters,
            "ListClusters": self.list_clusters,
            "PutClusterCapacityProviders": self.put_cluster_capacity_providers,
            "RegisterTaskDefinition": self.register_task_definition,
            "DeregisterTaskDefinition": self.deregister_task_definition,
            "DescribeTaskDefinition": self.describe_task_definition,
            "ListTaskDefinitions": self.list_task_definitions,
            "CreateService": self.create_service,
            "UpdateService": self.update_service,
            "DeleteService": self.delete_service,
            "DescribeServices": self.describe_services,
            "ListServices": self.list_services,
            "RunTask": self.run_task,
            "StopTask": self.stop_task,
            "DescribeTasks": self.describe_tasks,
            "ListTasks": self.list_tasks,
        }

    async def handle(
        self, _method: str, _path: str, headers: dict[str, str], body: bytes, _query: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request."""
        return answer(self.call, headers, body)

    def call(self, operation: str, request: Record) -> Record:
        """Run one operation; raises EcsError as AWS would answer."""
        if operation not in self.operations:
            raise EcsError("UnknownOperationException", f"{operation} is not available in the local account")
        try:
            checked = to_api("ecs", operation, request)
        except InvalidPropertiesError as error:
            raise EcsError("InvalidParameterException", str(error)) from error
        with self._store.lock:
            found = self.operations[operation](checked)
            self._store.changed()
            return json.loads(json.dumps(found))  # type: ignore[no-any-return]

    # Clusters

    def create_cluster(self, request: Record) -> Record:
        name = request.get("clusterName", "default")
        cluster = self._store.clusters.setdefault(
            name,
            {
                "clusterArn": f"{self._arn}:cluster/{name}",
                "clusterName": name,
                "status": "ACTIVE",
                "settings": request.get("settings", []),
                "capacityProviders": request.get("capacityProviders", []),
                "defaultCapacityProviderStrategy": request.get("defaultCapacityProviderStrategy", []),
                "tags": request.get("tags", []),
            },
        )
        return {"cluster": public(cluster)}

    def delete_cluster(self, request: Record) -> Record:
        cluster = self._cluster(request["cluster"])
        if self._services_in(cluster):
            raise EcsError(
                "ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active."
            )
        if self._active_tasks_in(cluster):
            raise EcsError(
                "ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active."
            )
        del self._store.clusters[cluster["clusterName"]]
        return {"cluster": public(cluster) | {"status": "INACTIVE"}}

    def describe_clusters(self, request: Record) -> Record:
        found, failures = [], []
        for reference in request.get("clusters", ["default"]):
            try:
                found.append(public(self._cluster(reference)))
            except EcsError:
                failures.append({"arn": reference, "reason": "MISSING"})
        return {"clusters": found, "failures": failures}

    def list_clusters(self, _request: Record) -> Record:
        return {"clusterArns": [cluster["clusterArn"] for cluster in self._store.clusters.values()]}

    def put_cluster_capacity_providers(self, request: Record) -> Record:
        cluster = self._cluster(request["cluster"])
        used = {item.get("capacityProviderName") for item in self._active_tasks_in(cluster)}
        used |= {
            each["capacityProvider"]
            for service in self._services_in(cluster)
            for each in service.get("capacityProviderStrategy", [])
        }
        for name in cluster["capacityProviders"]:
            if name in used and name not in request["capacityProviders"]:
                raise EcsError(
                    "ResourceInUseException",
                    f"The specified capacity provider is in use and cannot be removed: {name}",
                )
        cluster["capacityProviders"] = request["capacityProviders"]
        cluster["defaultCapacityProviderStrategy"] = request["defaultCapacityProviderStrategy"]
        return {"cluster": public(cluster)}

    # Task definitions

    def register_task_definition(self, request: Record) -> Record:
        family = request["family"]
        revisions = [
            item["revision"] for item in self._store.task_definitions.values() if item["family"] == family
        ]
        revision = max(revisions, default=0) + 1
        arn = f"{self._arn}:task-definition/{family}:{revision}"
        tags = request.pop("tags", [])
        definition = request | {
            "taskDefinitionArn": arn,
            "revision": revision,
            "status": "ACTIVE",
            "registeredAt": time.time(),
            "compatibilities": request.get("requiresCompatibilities", ["EC2"]),
            "_tags": tags,
        }
        self._store.task_definitions[arn] = definition
        return {"taskDefinition": public(definition), "tags": tags}

    def deregister_task_definition(self, request: Record) -> Record:
        definition = self._task_definition(request["taskDefinition"])
        definition["status"] = "INACTIVE"
        return {"taskDefinition": public(definition)}

    def describe_task_definition(self, request: Record) -> Record:
        definition = self._task_definition(request["taskDefinition"])
        return {"taskDefinition": public(definition), "tags": definition["_tags"]}

    def list_task_definitions(self, request: Record) -> Record:
        prefix, status = request.get("familyPrefix"), request.get("status", "ACTIVE")
        found = [
            item["taskDefinitionArn"]
            for item in self._store.task_definitions.values()
            if item["status"] == status and prefix in (None, item["family"])
        ]
        return {"taskDefinitionArns": found[::-1] if request.get("sort") == "DESC" else found}

    # Services

    def create_service(self, request: Record) -> Record:
        cluster = self._cluster(request.get("cluster"))
        definition = self._task_definition(request["taskDefinition"])
        arn = f"{self._arn}:service/{cluster['clusterName']}/{request['serviceName']}"
        if arn in self._store.services:
            raise EcsError("InvalidParameterException", "Creation of service was not idempotent.")
        service = {
            "serviceArn": arn,
            "serviceName": request["serviceName"],
            "clusterArn": cluster["clusterArn"],
            "status": "ACTIVE",
            "desiredCount": request.get("desiredCount", 0),
            "runningCount": 0,
            "pendingCount": 0,
            "taskDefinition": definition["taskDefinitionArn"],
            "launchType": request.get("launchType", "FARGATE"),
            "capacityProviderStrategy": request.get("capacityProviderStrategy", []),
            "serviceRegistries": request.get("serviceRegistries", []),
            "deploymentConfiguration": DEFAULT_DEPLOYMENT | request.get("deploymentConfiguration", {}),
            "networkConfiguration": request.get("networkConfiguration", {}),
            "healthCheckGracePeriodSeconds": request.get("healthCheckGracePeriodSeconds", 0),
            "enableExecuteCommand": request.get("enableExecuteCommand", False),
            "propagateTags": request.get("propagateTags", "NONE"),
            "schedulingStrategy": "REPLICA",
            "createdAt": time.time(),
            "events": [],
            "deployments": [],
            "tags": request.get("tags", []),
            "_last_good": None,
            "_failures_in_row": 0,
            "_not_before": 0.0,
        }
        service["deployments"] = [_deployment(service)]
        self._store.services[arn] = service
        return {"service": self._service_view(service)}

    def update_service(self, request: Record) -> Record:
        service = self._service(request.get("cluster"), request["service"])
        before = service["taskDefinition"]
        if "taskDefinition" in request:
            service["taskDefinition"] = self._task_definition(request["taskDefinition"])["taskDefinitionArn"]
        for name in (
            "desiredCount",
            "capacityProviderStrategy",
            "networkConfiguration",
            "serviceRegistries",
            "enableExecuteCommand",
            "propagateTags",
            "healthCheckGracePeriodSeconds",
        ):
            if name in request:
                service[name] = request[name]
        if "deploymentConfiguration" in request:
            service["deploymentConfiguration"] = DEFAULT_DEPLOYMENT | request["deploymentConfiguration"]
        if service["taskDefinition"] != before or request.get("forceNewDeployment"):
            start_deployment(service)
        for deployment in service["deployments"]:
            if deployment["status"] == "PRIMARY":
                deployment["desiredCount"] = service["desiredCount"]
        return {"service": self._service_view(service)}

    def delete_service(self, request: Record) -> Record:
        service = self._service(request.get("cluster"), request["service"])
        if service["desiredCount"] and not request.get("force"):
            raise EcsError(
                "InvalidParameterException", "The service cannot be stopped while it is scaled above 0."
            )
        service["desiredCount"], service["status"] = 0, "DRAINING"
        return {"service": self._service_view(service)}

    def describe_services(self, request: Record) -> Record:
        found, failures = [], []
        for reference in request["services"]:
            try:
                found.append(self._service_view(self._service(request.get("cluster"), reference)))
            except EcsError:
                failures.append({"arn": reference, "reason": "MISSING"})
        return {"services": found, "failures": failures}

    def list_services(self, request: Record) -> Record:
        arn = self._cluster(request.get("cluster"))["clusterArn"]
        return {
            "serviceArns": [
                item["serviceArn"] for item in self._store.services.values() if item["clusterArn"] == arn
            ]
        }

    # Tasks

    def run_task(self, request: Record) -> Record:
        cluster = self._cluster(request.get("cluster"))
        count = request.get("count", 1)
        if not 1 <= count <= MOST_TASKS_AT_ONCE:
            raise EcsError(
                "InvalidParameterException", f"count: {count} is not between 1 and {MOST_TASKS_AT_ONCE}"
            )
        token = request.get("clientToken")
        if token and token in self._store.client_tokens:
            tasks = [
                self._store.tasks[arn] for arn in self._store.client_tokens[token] if arn in self._store.tasks
            ]
            return {"tasks": [public(task) for task in tasks], "failures": []}
        definition = self._task_definition(request["taskDefinition"], active=True)
        group = request.get("group", f"family:{definition['family']}")
        strategy = request.get("capacityProviderStrategy")
        tasks = [
            self.new_task(
                cluster["clusterArn"],
                definition,
                group=group,
                started_by=request.get("startedBy"),
                overrides=request.get("overrides", {}),
                tags=request.get("tags", []),
                capacity_provider=strategy[0]["capacityProvider"] if strategy else None,
                network=request.get("networkConfiguration", {}),
                execute_command=request.get("enableExecuteCommand", False),
            )
            for _ in range(count)
        ]
        if token:
            self._store.client_tokens[token] = [task["taskArn"] for task in tasks]
        return {"tasks": [public(task) for task in tasks], "failures": []}

    def new_task(
        self,
        cluster_arn: str,
        definition: Record,
        *,
        group: str,
        started_by: str | None,
        overrides: Record | None = None,
        tags: list[Record] | None = None,
        capacity_provider: str | None = None,
        network: Record | None = None,
        execute_command: bool = False,
    ) -> Record:
        """Add a task in PROVISIONING, for the engine to start."""
        task_id = uuid.uuid4().hex
        arn = f"{self._arn}:task/{cluster_arn.rpartition('/')[2]}/{task_id}"
        subnets = (network or {}).get("awsvpcConfiguration", {}).get("subnets", [])
        task = {
            "taskArn": arn,
            "clusterArn": cluster_arn,
            "taskDefinitionArn": definition["taskDefinitionArn"],
            "group": group,
            "startedBy": started_by or "",
            "overrides": overrides or {},
            "enableExecuteCommand": execute_command,
            "lastStatus": "PROVISIONING",
            "desiredStatus": "RUNNING",
            "healthStatus": "UNKNOWN",
            "cpu": definition.get("cpu", ""),
            "memory": definition.get("memory", ""),
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "availabilityZone": self._zone,
            "createdAt": time.time(),
            "version": 1,
            "tags": tags or [],
            "attachments": [
                {
                    "id": str(uuid.uuid4()),
                    "type": "ElasticNetworkInterface",
                    "status": "PRECREATED",
                    "details": [{"name": "subnetId", "value": subnets[0] if subnets else "subnet-unknown"}],
                }
            ],
            "containers": [
                {
                    "containerArn": f"{self._arn}:container/{uuid.uuid4()}",
                    "taskArn": arn,
                    "name": container["name"],
                    "image": container["image"],
                    "lastStatus": "PENDING",
                    "healthStatus": "UNKNOWN",
                    "networkInterfaces": [],
                }
                for container in definition["containerDefinitions"]
            ],
            "_has_health_check": any("healthCheck" in item for item in definition["containerDefinitions"]),
        }
        if capacity_provider:
            task["capacityProviderName"] = capacity_provider
        self._store.tasks[arn] = task
        self._store.changed()
        return task

    def stop_task(self, request: Record) -> Record:
        task = self.find_task(request.get("cluster"), request["task"])
        want_stop(task, request.get("reason", "Task stopped by user"), "UserInitiated")
        return {"task": public(task)}

    def describe_tasks(self, request: Record) -> Record:
        found, failures = [], []
        for reference in request["tasks"]:
            try:
                found.append(public(self.find_task(request.get("cluster"), reference)))
            except EcsError:
                failures.append({"arn": reference, "reason": "MISSING"})
        return {"tasks": found, "failures": failures}

    def list_tasks(self, request: Record) -> Record:
        cluster = self._cluster(request.get("cluster"))["clusterArn"]
        wanted = request.get("desiredStatus", "RUNNING")
        family, service = request.get("family"), request.get("serviceName")
        found = [
            task["taskArn"]
            for task in self._store.tasks.values()
            if task["clusterArn"] == cluster
            and task["desiredStatus"] == wanted
            and (family is None or _family(task["taskDefinitionArn"]) == family)
            and (service is None or task["group"] == f"service:{service.rpartition('/')[2]}")
            and request.get("startedBy") in (None, task["startedBy"])
        ]
        start, most = int(request.get("nextToken", 0)), request.get("maxResults", 100)
        answer: Record = {"taskArns": found[start : start + most]}
        if start + most < len(found):
            answer["nextToken"] = str(start + most)
        return answer

    # Look-ups

    def _services_in(self, cluster: Record) -> list[Record]:
        return [item for item in self._store.services.values() if item["clusterArn"] == cluster["clusterArn"]]

    def _active_tasks_in(self, cluster: Record) -> list[Record]:
        return [
            task
            for task in self._store.tasks.values()
            if task["clusterArn"] == cluster["clusterArn"] and task["lastStatus"] != "STOPPED"
        ]

    def _cluster(self, reference: str | None) -> Record:
        name = (reference or "default").rpartition("/")[2]
        if name not in self._store.clusters:
            raise EcsError("ClusterNotFoundException", "Cluster not found.")
        return self._store.clusters[name]

    def _service(self, cluster: str | None, reference: str) -> Record:
        arn = f"{self._arn}:service/{self._cluster(cluster)['clusterName']}/{reference.rpartition('/')[2]}"
        if arn not in self._store.services:
            raise EcsError("ServiceNotFoundException", "Service not found.")
        return self._store.services[arn]

    def find_task(self, cluster: str | None, reference: str) -> Record:
        """A task by its id or ARN; raises EcsError when the cluster has none."""
        arn = f"{self._arn}:task/{self._cluster(cluster)['clusterName']}/{reference.rpartition('/')[2]}"
        if arn not in self._store.tasks:
            raise EcsError("InvalidParameterException", "The referenced task was not found.")
        return self._store.tasks[arn]

    def roles_of(self, reference: str) -> tuple[str, list[str]]:
        """The ARN of a task definition and its roles; the reference itself and none where there is no such one."""
        try:
            with self._store.lock:
                definition = self._task_definition(reference)
        except EcsError:
            return reference, []
        roles = [definition[name] for name in ("taskRoleArn", "executionRoleArn") if name in definition]
        return definition["taskDefinitionArn"], roles

    def _task_definition(self, reference: str, *, active: bool = False) -> Record:
        """By ARN, `family:revision`, or the family's newest active revision."""
        name = reference.rpartition("/")[2]
        family, _, revision = name.partition(":")
        matches = [
            item
            for item in self._store.task_definitions.values()
            if item["family"] == family
            and (str(item["revision"]) == revision if revision else item["status"] == "ACTIVE")
        ]
        if not matches or (active and matches[-1]["status"] != "ACTIVE"):
            raise EcsError("ClientException", f"Unable to describe task definition {reference}.")
        return max(matches, key=lambda item: item["revision"])

    def _service_view(self, service: Record) -> Record:
        tasks = self._store.service_tasks(service)
        for deployment in service["deployments"]:
            own = [task for task in tasks if task["startedBy"] == deployment["id"]]
            deployment["runningCount"] = sum(task["lastStatus"] == "RUNNING" for task in own)
            deployment["pendingCount"] = len(own) - deployment["runningCount"]
        service["runningCount"] = sum(task["lastStatus"] == "RUNNING" for task in tasks)
        service["pendingCount"] = len(tasks) - service["runningCount"]
        return public(service)


def want_stop(task: Record, reason: str, code: str) -> None:
    """Ask the engine to stop a task; the first reason counts."""
    if task["desiredStatus"] != "STOPPED":
        task |= {
            "desiredStatus": "STOPPED",
            "stoppedReason": reason,
            "stopCode": code,
            "stoppingAt": time.time(),
        }


def start_deployment(service: Record) -> None:
    """Make the service's task definition its primary deployment; the others drain."""
    for deployment in service["deployments"]:
        deployment["status"] = "ACTIVE"
    service["deployments"].insert(0, _deployment(service))
    service["_failures_in_row"], service["_not_before"] = 0, 0.0


def _deployment(service: Record) -> Record:
    now = time.time()
    return {
        "id": f"ecs-svc/{uuid.uuid4().int % 10**19:019d}",
        "status": "PRIMARY",
        "taskDefinition": service["taskDefinition"],
        "desiredCount": service["desiredCount"],
        "runningCount": 0,
        "pendingCount": 0,
        "failedTasks": 0,
        "createdAt": now,
        "updatedAt": now,
        "launchType": service["launchType"],
        "rolloutState": "IN_PROGRESS",
        "rolloutStateReason": "ECS deployment in progress.",
    }


def _family(definition_arn: str) -> str:
    return definition_arn.rpartition("/")[2].partition(":")[0]
