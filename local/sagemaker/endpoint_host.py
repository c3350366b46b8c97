"""What stands behind endpoints: an instance for each variant of a fleet, kept alive as long as its fleet serves."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from local import docker, processes
from local.account.context import AccountContext
from local.paths import LocalPaths
from local.sagemaker.endpoints import ENDPOINT, STATUS, summaries
from local.sagemaker.launch import launch
from local.sagemaker.store import Record, Store
from local.state_file import write_whole

# An instance of a fleet that serves, and could not start again, is replaced after this time.
REPLACE_SECONDS = 30


class EndpointHost:
    """Does what the store says of endpoints; the host's thread calls it with the store's lock held."""

    def __init__(self, context: AccountContext, store: Store) -> None:
        self._context = context
        self._paths = context.paths
        self._store = store
        self._logger = context.logger

    def register_roles(self) -> None:
        """An instance that outlived the account goes on with the credentials that it has."""
        for name, endpoint in self._store.of(ENDPOINT).items():
            for number, fleet in endpoint["_fleets"].items():
                for variant in fleet["variants"]:
                    directory = instance_directory(self._paths, name, number, variant["VariantName"])
                    self._register_role(fleet["models"][variant["ModelName"]], directory)

    def step(self) -> None:
        """Bring every endpoint one step towards what it is to be."""
        for name, endpoint in list(self._store.of(ENDPOINT).items()):
            try:
                self._step_one(name, endpoint)
            except Exception as error:
                # One endpoint's trouble is its own.
                self._logger.exception("endpoint %s can't go on", name)
                if endpoint["_deploying"] is not None:
                    self._fail(endpoint, f"InternalServerError: {error}")

    def stop(self) -> None:
        """End every instance; what serves or is on its way is started again with the host."""
        for directory in self._directories():
            self._kill(directory)
            (directory / "status.json").unlink(missing_ok=True)

    def tidy(self) -> None:
        """End and remove what belongs to no fleet that the store has."""
        known = {
            instance_directory(self._paths, name, number, variant["VariantName"])
            for name, endpoint in self._store.of(ENDPOINT).items()
            for number, fleet in endpoint["_fleets"].items()
            for variant in fleet["variants"]
        }
        for directory in self._directories():
            if directory not in known:
                self._kill(directory)
                shutil.rmtree(directory, ignore_errors=True)

    # Fleets

    def _step_one(self, name: str, endpoint: Record) -> None:
        if endpoint[STATUS] == "Deleting":
            self._retire(endpoint, *(key for key in ("_serving", "_deploying") if endpoint[key]))
        for number in list(endpoint["_leaving"]):
            self._let_leave(name, endpoint, number)
        if endpoint["_deploying"] is not None:
            self._deploy(name, endpoint)
        elif endpoint[STATUS] == "Updating":
            self._shift_traffic(endpoint)
        if endpoint["_serving"] is not None:
            self._keep_alive(name, endpoint, endpoint["_serving"])
        if endpoint[STATUS] == "Deleting" and not endpoint["_leaving"]:
            self._forget(name, endpoint)

    def _deploy(self, name: str, endpoint: Record) -> None:
        number = endpoint["_deploying"]
        self._keep_alive(name, endpoint, number)
        reports = [report(directory) for directory in self._instances(name, endpoint, number)]
        reasons = [each["reason"] for each in reports if each["status"] == "Failed"]
        if reasons:
            self._fail(endpoint, reasons[0])
        elif all(each["status"] == "InService" for each in reports):
            self._take_over(endpoint)

    def _fail(self, endpoint: Record, reason: str) -> None:
        """A first deployment leaves a failed endpoint; a later one leaves the fleet that serves."""
        self._retire(endpoint, "_deploying")
        status = "InService" if endpoint["_serving"] else "Failed"
        self._change(endpoint, {STATUS: status, "FailureReason": reason})

    def _take_over(self, endpoint: Record) -> None:
        fleet = endpoint["_fleets"][endpoint["_deploying"]]
        if endpoint["_serving"]:
            self._retire(endpoint, "_serving")
        changes = {
            STATUS: "InService",
            "EndpointConfigName": fleet["config"],
            "ProductionVariants": summaries(fleet["variants"], fleet["models"], time.time()),
            "_serving": endpoint["_deploying"],
            "_deploying": None,
        }
        self._change(endpoint, changes)

    def _shift_traffic(self, endpoint: Record) -> None:
        for variant in endpoint["ProductionVariants"]:
            variant["CurrentWeight"] = variant["DesiredWeight"]
        self._change(endpoint, {STATUS: "InService"})

    def _retire(self, endpoint: Record, *keys: str) -> None:
        for key in keys:
            endpoint["_leaving"].append(endpoint[key])
            endpoint[key] = None
        self._store.changed()

    def _forget(self, name: str, endpoint: Record) -> None:
        del self._store.of(ENDPOINT)[name]
        self._store.tags.pop(endpoint["EndpointArn"], None)
        shutil.rmtree(self._paths.sagemaker / ENDPOINT / name, ignore_errors=True)
        self._store.changed()

    def _change(self, endpoint: Record, changes: Record) -> None:
        endpoint |= changes | {"LastModifiedTime": time.time()}
        self._store.changed()

    # Instances

    def _keep_alive(self, name: str, endpoint: Record, number: str) -> None:
        fleet = endpoint["_fleets"][number]
        for variant in fleet["variants"]:
            directory = instance_directory(self._paths, name, number, variant["VariantName"])
            if processes.is_running(self._paths, _process_name(directory)):
                continue
            if report(directory)["status"] == "Failed" and not (
                number == endpoint["_serving"] and _age_seconds(directory) > REPLACE_SECONDS
            ):
                continue
            # What a container left behind when its instance was killed holds its name.
            self._kill(directory)
            (directory / "status.json").unlink(missing_ok=True)
            model = fleet["models"][variant["ModelName"]]
            self._register_role(model, directory)
            write_whole(
                directory / "instance.json",
                {
                    "endpoint": name,
                    "name": _name(directory),
                    "variant": variant,
                    "model": model,
                    "root": str(self._paths.root),
                    "port": self._paths.port,
                },
            )
            launch(
                self._paths,
                _process_name(directory),
                "local.sagemaker.endpoint_instance",
                directory,
                log_name=_name(directory),
            )

    def _register_role(self, model: Record, directory: Path) -> None:
        self._context.permissions.credentials(model["ExecutionRoleArn"], _name(directory))

    def _let_leave(self, name: str, endpoint: Record, number: str) -> None:
        """Ask a fleet's instances to end, and forget the fleet once they have."""
        gone = True
        for directory in self._instances(name, endpoint, number):
            if processes.is_running(self._paths, _process_name(directory)):
                (directory / "stop").touch()
                gone = False
            else:
                self._kill(directory)
                shutil.rmtree(directory, ignore_errors=True)
        if gone:
            endpoint["_leaving"].remove(number)
            del endpoint["_fleets"][number]
            self._store.changed()

    def _kill(self, directory: Path) -> None:
        processes.stop(self._paths, _process_name(directory), timeout_seconds=0)
        engine = docker.chosen(self._paths)
        if engine is not None:
            engine.remove_container(engine.name(docker.job_container(ENDPOINT, _name(directory))))

    def _instances(self, name: str, endpoint: Record, number: str) -> list[Path]:
        return [
            instance_directory(self._paths, name, number, variant["VariantName"])
            for variant in endpoint["_fleets"][number]["variants"]
        ]

    def _directories(self) -> list[Path]:
        return sorted((self._paths.sagemaker / ENDPOINT).glob("*/*"))


def instance_directory(paths: LocalPaths, endpoint: str, fleet: str, variant: str) -> Path:
    """Where the instance of a variant lives."""
    return paths.sagemaker / ENDPOINT / endpoint / f"{fleet}.{variant}"


def report(directory: Path) -> dict[str, Any]:
    """What an instance last said of itself; `Creating` before its first word."""
    try:
        found: dict[str, Any] = json.loads((directory / "status.json").read_text())
    except FileNotFoundError:
        return {"status": "Creating"}
    return found


def _age_seconds(directory: Path) -> float:
    return time.time() - (directory / "status.json").stat().st_mtime


def _name(directory: Path) -> str:
    return f"{directory.parent.name}.{directory.name}"


def _process_name(directory: Path) -> str:
    return f"sagemaker-{ENDPOINT}-{_name(directory)}"
