"""Notebook instances: their states and their lifecycle configurations. No machine stands behind them here."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable

from local.account.json_api import ApiError
from local.sagemaker import listing
from local.sagemaker.store import Record, Store

INSTANCE, LIFECYCLE = "NotebookInstance", "NotebookInstanceLifecycleConfig"
STATUS = "NotebookInstanceStatus"
# What an instance is next, and `None` where it is gone then.
NEXT = {"Pending": "InService", "Stopping": "Stopped", "Updating": "Stopped", "Deleting": None}
# The documented limit of a script, before it is encoded.
MOST_SCRIPT_CHARACTERS = 16_384


class Notebooks:
    """The operations, each by its name in the API."""

    def __init__(self, store: Store, *, arn: str) -> None:
        self._store = store
        self._arn = arn
        self.operations: dict[str, Callable[[Record], Record]] = {
            f"Create{INSTANCE}": self.create,
            f"Describe{INSTANCE}": lambda request: self._existing(INSTANCE, request["NotebookInstanceName"]),
            f"Update{INSTANCE}": self.update,
            f"Start{INSTANCE}": lambda request: self._move(request, "Pending", ("Stopped", "Failed")),
            f"Stop{INSTANCE}": lambda request: self._move(request, "Stopping", ("InService",)),
            f"Delete{INSTANCE}": lambda request: self._move(request, "Deleting", ("Stopped", "Failed")),
            f"List{INSTANCE}s": self.list,
            f"Create{LIFECYCLE}": self.create_lifecycle,
            f"Describe{LIFECYCLE}": lambda request: self._existing(LIFECYCLE, request[f"{LIFECYCLE}Name"]),
            f"Update{LIFECYCLE}": self.update_lifecycle,
            f"Delete{LIFECYCLE}": self.delete_lifecycle,
        }

    def step(self) -> None:
        """Every instance on its way arrives."""
        for name, instance in list(self._store.of(INSTANCE).items()):
            if instance[STATUS] not in NEXT:
                continue
            arrived = NEXT[instance[STATUS]]
            if arrived is None:
                del self._store.of(INSTANCE)[name]
                self._store.tags.pop(instance["NotebookInstanceArn"], None)
            else:
                instance |= {STATUS: arrived, "LastModifiedTime": time.time()}
            self._store.changed()

    def create(self, request: Record) -> Record:
        """Record an instance; like the real one it starts at once."""
        name = request["NotebookInstanceName"]
        arn = f"{self._arn}:notebook-instance/{name}"
        if name in self._store.of(INSTANCE):
            raise ApiError("ValidationException", f"Cannot create a duplicate Notebook Instance ({arn})")
        lifecycle = request.pop("LifecycleConfigName", None)
        if lifecycle is not None:
            self._existing(LIFECYCLE, lifecycle)
        if request.get("DirectInternetAccess") == "Disabled" and "SubnetId" not in request:
            raise ApiError("ValidationException", "DirectInternetAccess Disabled needs a SubnetId")
        self._store.tags[arn] = request.pop("Tags", [])
        now = time.time()
        self._store.of(INSTANCE)[name] = request | {
            "NotebookInstanceArn": arn,
            STATUS: "Pending",
            "NotebookInstanceLifecycleConfigName": lifecycle,
            "SecurityGroups": request.pop("SecurityGroupIds", []),
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        return {"NotebookInstanceArn": arn}

    def update(self, request: Record) -> Record:
        """Change a stopped instance."""
        instance = self._existing(INSTANCE, request.pop("NotebookInstanceName"))
        _require(instance, ("Stopped", "Failed"))
        if "LifecycleConfigName" in request:
            lifecycle = request.pop("LifecycleConfigName")
            self._existing(LIFECYCLE, lifecycle)
            instance["NotebookInstanceLifecycleConfigName"] = lifecycle
        if request.pop("DisassociateLifecycleConfig", False):
            instance["NotebookInstanceLifecycleConfigName"] = None
        instance |= request | {STATUS: "Updating", "LastModifiedTime": time.time()}
        return {}

    def list(self, request: Record) -> Record:
        """One page of instances."""
        try:
            found, token = listing.page(
                INSTANCE,
                self._store.of(INSTANCE).values(),
                request,
                name_key="NotebookInstanceName",
                status_key=STATUS,
            )
        except listing.ListingError as error:
            raise ApiError("ValidationException", str(error)) from error
        return {"NotebookInstances": found, "NextToken": token}

    def create_lifecycle(self, request: Record) -> Record:
        """Record the scripts."""
        name = request[f"{LIFECYCLE}Name"]
        arn = f"{self._arn}:notebook-instance-lifecycle-config/{name}"
        if name in self._store.of(LIFECYCLE):
            raise ApiError(
                "ValidationException", f"Cannot create a duplicate lifecycle configuration ({arn})"
            )
        _check_scripts(request)
        now = time.time()
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of(LIFECYCLE)[name] = request | {
            f"{LIFECYCLE}Arn": arn,
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        return {f"{LIFECYCLE}Arn": arn}

    def update_lifecycle(self, request: Record) -> Record:
        """Change the scripts; the next start of an instance runs them."""
        found = self._existing(LIFECYCLE, request.pop(f"{LIFECYCLE}Name"))
        _check_scripts(request)
        found |= request | {"LastModifiedTime": time.time()}
        return {}

    def delete_lifecycle(self, request: Record) -> Record:
        """Remove scripts that no instance uses."""
        name = request[f"{LIFECYCLE}Name"]
        self._existing(LIFECYCLE, name)
        used = [
            each["NotebookInstanceName"]
            for each in self._store.of(INSTANCE).values()
            if each["NotebookInstanceLifecycleConfigName"] == name
        ]
        if used:
            raise ApiError("ValidationException", f"{name} is in use by {', '.join(used)}")
        del self._store.of(LIFECYCLE)[name]
        return {}

    def _move(self, request: Record, to: str, allowed: tuple[str, ...]) -> Record:
        instance = self._existing(INSTANCE, request["NotebookInstanceName"])
        _require(instance, allowed)
        instance |= {STATUS: to, "LastModifiedTime": time.time()}
        return {}

    def _existing(self, kind: str, name: str) -> Record:
        found = self._store.of(kind).get(name)
        if found is None:
            raise ApiError("ValidationException", "RecordNotFound")
        return found


def _require(instance: Record, allowed: tuple[str, ...]) -> None:
    if instance[STATUS] not in allowed:
        raise ApiError(
            "ValidationException",
            f"Status ({instance[STATUS]}) not in ([{', '.join(allowed)}]). "
            f"Unable to transition for Notebook Instance ({instance['NotebookInstanceArn']})",
        )


def _check_scripts(request: Record) -> None:
    for hook in ("OnCreate", "OnStart"):
        for script in request.get(hook, []):
            try:
                text = base64.b64decode(script["Content"], validate=True)
            except (KeyError, binascii.Error) as error:
                raise ApiError("ValidationException", f"{hook}: Content is not base64") from error
            if len(text) > MOST_SCRIPT_CHARACTERS:
                raise ApiError(
                    "ValidationException",
                    f"{hook}: {len(text)} characters, at most {MOST_SCRIPT_CHARACTERS} are allowed",
                )
