"""The service's side of deployments: picks the instances, follows their agents, rolls back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.codedeploy.agent import EVENTS, Agent, AgentDied, Diagnostics, Order, Stopped
from local.codedeploy.instance import Instance, LogIn, matching_instances
from local.codedeploy.store import FINAL_STATES, Item, Store, new_deployment_id, now

if TYPE_CHECKING:
    from local.paths import LocalPaths


class Dispatcher:
    """Runs each deployment in a thread of its own.

    `ec2` is a boto3 client of the account's owner, `log_in` gives each instance its own clients, and `environment`
    is what hook scripts inherit.
    """

    def __init__(
        self,
        *,
        store: Store,
        paths: LocalPaths,
        ec2: Any,
        log_in: Callable[[Item], LogIn],
        environment: Mapping[str, str],
        logger: logging.Logger,
        dies_in: Callable[[str], bool] = lambda _event: False,
    ) -> None:
        self._store = store
        self._paths = paths
        self._ec2 = ec2
        self._log_in = log_in
        self._environment = environment
        self._logger = logger
        self._dies_in = dies_in
        # What user data says is read once, when an instance boots.
        self._booted: dict[str, Instance] = {}
        self._stops: dict[str, threading.Event] = {}
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def create(self, deployment: Item) -> str:
        """Store a deployment and start it; returns its id.

        `deployment` has the members of the API's DeploymentInfo that its creator decides.
        """
        identifier = new_deployment_id()
        item = deployment | {"deploymentId": identifier, "status": "Created", "createTime": now()}
        with self._store.changing():
            self._store.deployments[identifier] = item
            self._store.targets[identifier] = {}
            self._group(item)["targetRevision"] = item["revision"]
        self._stops[identifier] = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(item,), name=f"codedeploy-{identifier}", daemon=True
        )
        self._threads.add(thread)
        thread.start()
        return identifier

    def stop(self, identifier: str, *, rollback: bool) -> None:
        """End a running deployment at once; its script is killed."""
        item = self._store.deployments[identifier]
        with self._store.changing():
            if rollback:
                item.setdefault("autoRollbackConfiguration", {"enabled": True, "events": []})
                events = item["autoRollbackConfiguration"].setdefault("events", [])
                item["autoRollbackConfiguration"]["enabled"] = True
                if "DEPLOYMENT_STOP_ON_REQUEST" not in events:
                    events.append("DEPLOYMENT_STOP_ON_REQUEST")
        self._stops[identifier].set()

    def fail_interrupted(self) -> None:
        """End what the account's last life left unfinished, as a restarted agent reports it."""
        for item in list(self._store.deployments.values()):
            if item["status"] not in FINAL_STATES:
                message = "The CodeDeploy agent was restarted during the deployment"
                self._finish(item, "Failed", code="AGENT_ISSUE", message=message)

    def shut_down(self) -> None:
        """Kill running scripts; their deployments are found interrupted at the next start."""
        self._closing = True
        for stop in self._stops.values():
            stop.set()
        for thread in list(self._threads):
            thread.join(timeout=5)

    def _run(self, item: Item) -> None:
        try:
            self._deploy(item)
        except Stopped:
            if not self._closing:
                self._finish_stopped(item)
        except AgentDied:
            # Nobody tells the service: the deployment goes on, as far as it knows, until somebody stops it.
            if self._stops[item["deploymentId"]].wait() and not self._closing:
                self._finish_stopped(item)
        except Exception as error:
            self._logger.exception("deployment %s", item["deploymentId"])
            self._finish(item, "Failed", code="INTERNAL_ERROR", message=f"{type(error).__name__}: {error}")
        finally:
            self._threads.discard(threading.current_thread())

    def _finish_stopped(self, item: Item) -> None:
        self._finish(item, "Stopped", code="MANUAL_STOP", message="The deployment was stopped by request")

    def _deploy(self, item: Item) -> None:
        group = self._group(item)
        instances = matching_instances(
            self._ec2, self._log_in, self._paths, tag_groups(group), booted=self._booted
        )
        if not instances:
            self._finish(
                item,
                "Failed",
                code="NO_INSTANCES",
                message="The deployment failed because no instances were found for your deployment group. "
                "Check your deployment group settings to make sure the tags for your Amazon EC2 instances "
                "correctly identify the instances you want to deploy to, and then try again.",
            )
            return
        with self._store.changing():
            item |= {"status": "InProgress", "startTime": now()}
            targets = self._store.targets[item["deploymentId"]]
            targets |= {it.identifier: _new_target(item["deploymentId"], it) for it in instances}
        succeeded = 0
        for position, instance in enumerate(instances):
            succeeded += self._deploy_to(item, group, instance)
            healthy = succeeded + len(instances) - position - 1
            if healthy < _minimum_healthy(item["deploymentConfigName"], len(instances)):
                break
        if succeeded and healthy >= _minimum_healthy(item["deploymentConfigName"], len(instances)):
            self._finish(item, "Succeeded")
            return
        self._finish(
            item,
            "Failed",
            code="HEALTH_CONSTRAINTS",
            message="The overall deployment failed because too many individual instances failed deployment, "
            "too few healthy instances are available for deployment, or some instances in your deployment "
            "group are experiencing problems.",
        )

    def _deploy_to(self, item: Item, group: Item, instance: Instance) -> bool:
        target = self._store.targets[item["deploymentId"]][instance.identifier]

        def report(event: str, status: str, diagnostics: Diagnostics | None) -> None:
            with self._store.changing():
                _record_event(target, event, status, diagnostics)

        instance.folder.mkdir(parents=True, exist_ok=True)
        order = Order(
            deployment_id=item["deploymentId"],
            application=item["applicationName"],
            group=item["deploymentGroupName"],
            group_id=group["deploymentGroupId"],
            ignore_application_stop_failures=item["ignoreApplicationStopFailures"],
            file_exists_behavior=item["fileExistsBehavior"],
        )
        environment = {**self._environment, **instance.log_in.environment}
        agent = Agent(instance, environment=environment, dies_in=self._dies_in)
        done = agent.deploy(
            order,
            download=lambda path: _download(instance, item["revision"]["s3Location"], path),
            report=report,
            stop=self._stops[item["deploymentId"]],
        )
        with self._store.changing():
            _end_target(target, "Succeeded" if done else "Failed")
        return done

    def _finish(self, item: Item, status: str, *, code: str = "", message: str = "") -> None:
        with self._store.changing():
            item |= {"status": status, "completeTime": now()}
            if code:
                item["errorInformation"] = {"code": code, "message": message}
            for target in self._store.targets[item["deploymentId"]].values():
                if target["status"] in ("Pending", "InProgress"):
                    _end_target(target, "Skipped" if target["status"] == "Pending" else "Failed")
        if status != "Succeeded":
            self._roll_back(item)

    def _roll_back(self, item: Item) -> None:
        events = {"Failed": "DEPLOYMENT_FAILURE", "Stopped": "DEPLOYMENT_STOP_ON_REQUEST"}
        configuration = item.get("autoRollbackConfiguration", {})
        wanted = configuration.get("enabled") and events[item["status"]] in configuration.get("events", [])
        last = self._store.last_success(item["applicationName"], item["deploymentGroupName"])
        if not wanted or item["creator"] == "codeDeployRollback" or last is None:
            return
        inherited = ("applicationName", "deploymentGroupName", "deploymentConfigName", "computePlatform")
        identifier = self.create(
            {name: item[name] for name in inherited}
            | {
                "revision": last["revision"],
                "creator": "codeDeployRollback",
                "description": f"Automatic rollback of {item['deploymentId']}",
                "ignoreApplicationStopFailures": item["ignoreApplicationStopFailures"],
                # The failed deployment's files are in the way of the previous ones.
                "fileExistsBehavior": "OVERWRITE",
                "rollbackInfo": {"rollbackTriggeringDeploymentId": item["deploymentId"]},
            }
        )
        with self._store.changing():
            item["rollbackInfo"] = {
                "rollbackDeploymentId": identifier,
                "rollbackMessage": f"Deployment {item['deploymentId']} is rolled back by {identifier}",
            }

    def _group(self, item: Item) -> Item:
        return self._store.groups[item["applicationName"]][item["deploymentGroupName"]]


def _download(instance: Instance, location: Item, path: Path) -> None:
    arguments = {"Bucket": location["bucket"], "Key": location["key"]}
    if location.get("version"):
        arguments["VersionId"] = location["version"]
    s3 = instance.log_in.client("s3")
    try:
        body = s3.get_object(**arguments)["Body"]
    except s3.exceptions.ClientError as error:
        raise OSError(f"The revision can't be downloaded: {error}") from error
    with path.open("wb") as file:
        for part in body.iter_chunks(1024 * 1024):
            file.write(part)


def tag_groups(group: Item) -> list[list[dict[str, str]]]:
    """Return the group's filters: an instance must match one of each list."""
    if filters := group.get("ec2TagFilters"):
        return [filters]
    return list(group.get("ec2TagSet", {}).get("ec2TagSetList", []))


def _minimum_healthy(configuration: str, count: int) -> int:
    return {"AllAtOnce": 0, "HalfAtATime": count // 2, "OneAtATime": count - 1}[configuration.split(".")[1]]


def _new_target(deployment_id: str, instance: Instance) -> Item:
    return {
        "deploymentId": deployment_id,
        "targetId": instance.identifier,
        "targetArn": instance.arn,
        "status": "Pending",
        "lastUpdatedAt": now(),
        "lifecycleEvents": [{"lifecycleEventName": name, "status": "Pending"} for name in EVENTS],
    }


def _record_event(target: Item, name: str, status: str, diagnostics: Diagnostics | None) -> None:
    event = next(it for it in target["lifecycleEvents"] if it["lifecycleEventName"] == name)
    event["status"] = status
    event["startTime" if status == "InProgress" else "endTime"] = now()
    if diagnostics:
        event["diagnostics"] = {
            "errorCode": diagnostics.error_code,
            "scriptName": diagnostics.script,
            "message": diagnostics.message,
            "logTail": diagnostics.log_tail,
        }
    target |= {"status": "InProgress", "lastUpdatedAt": now()}


def _end_target(target: Item, status: str) -> None:
    target |= {"status": status, "lastUpdatedAt": now()}
    for event in target["lifecycleEvents"]:
        if event["status"] == "Pending":
            event["status"] = "Skipped"
        elif event["status"] == "InProgress":
            event |= {"status": "Failed", "endTime": now()}
