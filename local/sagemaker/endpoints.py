"""Real-time endpoints and their configurations, as the API has them; `endpoint_host` does what they say.

A deployment is a fleet: the variants of one configuration, each with its model. An endpoint has at most one that
answers (`_serving`), one that is on its way (`_deploying`), and some that leave (`_leaving`), each by its number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from local.account.json_api import ApiError
from local.sagemaker import checks, listing
from local.sagemaker.store import Record, Store

ENDPOINT, CONFIG = "Endpoint", "EndpointConfig"
STATUS = "EndpointStatus"
SETTLED = ("InService", "Failed", "OutOfService")


class Endpoints:
    """The operations, each by its name in the API."""

    def __init__(self, store: Store, *, arn: str) -> None:
        self._store = store
        self._arn = arn
        self.operations: dict[str, Callable[[Record], Record]] = {
            f"Create{CONFIG}": self.create_config,
            f"Describe{CONFIG}": lambda request: self._config(request["EndpointConfigName"]),
            f"Delete{CONFIG}": self.delete_config,
            f"List{CONFIG}s": lambda request: self._list(CONFIG, request, status_key=None),
            f"Create{ENDPOINT}": self.create,
            f"Describe{ENDPOINT}": self.describe,
            f"Update{ENDPOINT}": self.update,
            f"Update{ENDPOINT}WeightsAndCapacities": self.update_weights,
            f"Delete{ENDPOINT}": self.delete,
            f"List{ENDPOINT}s": lambda request: self._list(ENDPOINT, request, status_key=STATUS),
        }

    # Configurations

    def create_config(self, request: Record) -> Record:
        """Record a configuration of models that exist."""
        name = request["EndpointConfigName"]
        arn = f"{self._arn}:endpoint-config/{name}"
        _refuse(checks.mistakes(CONFIG, request))
        _refuse(_variant_mistakes(request["ProductionVariants"]))
        if name in self._store.of(CONFIG):
            raise _invalid(f'Cannot create already existing endpoint configuration "{arn}".')
        for variant in request["ProductionVariants"]:
            self._model(variant["ModelName"])
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of(CONFIG)[name] = request | {"EndpointConfigArn": arn, "CreationTime": time.time()}
        return {"EndpointConfigArn": arn}

    def delete_config(self, request: Record) -> Record:
        """Forget a configuration; an endpoint that was made from it goes on."""
        config = self._config(request["EndpointConfigName"])
        del self._store.of(CONFIG)[config["EndpointConfigName"]]
        self._store.tags.pop(config["EndpointConfigArn"], None)
        return {}

    # Endpoints

    def create(self, request: Record) -> Record:
        """Record an endpoint as Creating, with its first fleet on its way."""
        name = request["EndpointName"]
        arn = f"{self._arn}:endpoint/{name}"
        _refuse(checks.mistakes(ENDPOINT, request))
        if name in self._store.of(ENDPOINT):
            raise _invalid(f'Cannot create already existing endpoint "{arn}".')
        fleet = self._fleet(request["EndpointConfigName"])
        now = time.time()
        self._store.tags[arn] = request.pop("Tags", [])
        self._store.of(ENDPOINT)[name] = request | {
            "EndpointArn": arn,
            STATUS: "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            "_fleets": {"1": fleet},
            "_fleets_made": 1,
            "_serving": None,
            "_deploying": "1",
            "_leaving": [],
        }
        return {"EndpointArn": arn}

    def describe(self, request: Record) -> Record:
        """The endpoint, and while a deployment is on its way what it is to become."""
        endpoint = self._existing(request["EndpointName"])
        if endpoint["_deploying"] is None:
            return endpoint
        fleet = endpoint["_fleets"][endpoint["_deploying"]]
        pending = {
            "EndpointConfigName": fleet["config"],
            "ProductionVariants": [{"VariantName": each["VariantName"]} for each in fleet["variants"]],
            "StartTime": fleet["started_at"],
        }
        return endpoint | {"PendingDeploymentSummary": pending}

    def update(self, request: Record) -> Record:
        """Bring up another fleet; the one that serves goes on until it is there."""
        _refuse(checks.mistakes(ENDPOINT, request))
        endpoint = self._in_service(request["EndpointName"])
        endpoint["_fleets_made"] += 1
        number = str(endpoint["_fleets_made"])
        endpoint["_fleets"][number] = self._fleet(request["EndpointConfigName"])
        endpoint |= {"_deploying": number, STATUS: "Updating", "LastModifiedTime": time.time()}
        endpoint.pop("FailureReason", None)
        return {"EndpointArn": endpoint["EndpointArn"]}

    def update_weights(self, request: Record) -> Record:
        """Ask for other shares of the traffic."""
        endpoint = self._in_service(request["EndpointName"])
        variants = {each["VariantName"]: each for each in endpoint["ProductionVariants"]}
        for wanted in request["DesiredWeightsAndCapacities"]:
            _refuse(checks.mistakes("DesiredWeightAndCapacity", wanted))
            if wanted["VariantName"] not in variants:
                raise _invalid(
                    f"{endpoint['EndpointName']} has no variant {wanted['VariantName']}; it has {', '.join(variants)}"
                )
        for wanted in request["DesiredWeightsAndCapacities"]:
            if "DesiredWeight" in wanted:
                variants[wanted["VariantName"]]["DesiredWeight"] = wanted["DesiredWeight"]
        endpoint |= {STATUS: "Updating", "LastModifiedTime": time.time()}
        return {"EndpointArn": endpoint["EndpointArn"]}

    def delete(self, request: Record) -> Record:
        """Let every fleet leave; like the real one, not while a deployment is on its way."""
        endpoint = self._existing(request["EndpointName"])
        if endpoint[STATUS] not in (*SETTLED, "Deleting"):
            raise _in_progress(endpoint)
        endpoint |= {STATUS: "Deleting", "LastModifiedTime": time.time()}
        return {}

    # Look-ups

    def _fleet(self, config_name: str) -> Record:
        """What a deployment of this configuration runs, kept apart: config and models may be deleted meanwhile."""
        variants = self._config(config_name)["ProductionVariants"]
        return {
            "config": config_name,
            "variants": variants,
            "models": {each["ModelName"]: self._model(each["ModelName"]) for each in variants},
            "started_at": time.time(),
        }

    def _in_service(self, name: str) -> Record:
        endpoint = self._existing(name)
        if endpoint[STATUS] == "Failed":
            raise _invalid(
                f'Cannot update failed endpoint "{endpoint["EndpointArn"]}": it can only be deleted.'
            )
        if endpoint[STATUS] != "InService":
            raise _in_progress(endpoint)
        return endpoint

    def _existing(self, name: str) -> Record:
        found = self._store.of(ENDPOINT).get(name)
        if found is None:
            raise _invalid(f'Could not find endpoint "{self._arn}:endpoint/{name}".')
        return found

    def _config(self, name: str) -> Record:
        found = self._store.of(CONFIG).get(name)
        if found is None:
            raise _invalid(f'Could not find endpoint configuration "{self._arn}:endpoint-config/{name}".')
        return found

    def _model(self, name: str) -> Record:
        found = self._store.of("Model").get(name)
        if found is None:
            raise _invalid(f'Could not find model "{self._arn}:model/{name}".')
        return found

    def _list(self, kind: str, request: Record, *, status_key: str | None) -> Record:
        try:
            found, token = listing.page(
                kind,
                self._store.of(kind).values(),
                request,
                name_key=f"{kind}Name",
                status_key=status_key,
            )
        except listing.ListingError as error:
            raise _invalid(str(error)) from error
        return {f"{kind}s": found, "NextToken": token}


def _variant_mistakes(variants: list[Record]) -> Iterable[str]:
    names = [each["VariantName"] for each in variants]
    if len(set(names)) < len(names):
        yield f"ProductionVariants: each needs a name of its own, came {', '.join(names)}"
    for each in variants:
        for required in ("ModelName", "InstanceType", "InitialInstanceCount"):
            if required not in each:
                yield f"ProductionVariants {each['VariantName']}: {required} is required"
    if not any(each.get("InitialVariantWeight", 1.0) > 0 for each in variants):
        yield "ProductionVariants: at least one InitialVariantWeight must be above 0"


def _refuse(mistakes: Iterable[str]) -> None:
    found = list(mistakes)
    if found:
        raise _invalid("; ".join(found))


def _in_progress(endpoint: Record) -> ApiError:
    return _invalid(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)


def summaries(variants: list[Record], models: dict[str, Any], now: float) -> list[Record]:
    """The variants of a fleet that serves, as DescribeEndpoint tells them."""
    return [
        {
            "VariantName": each["VariantName"],
            "DeployedImages": [
                {
                    "SpecifiedImage": models[each["ModelName"]]["PrimaryContainer"]["Image"],
                    "DeploymentTime": now,
                }
            ],
            "CurrentWeight": each.get("InitialVariantWeight", 1.0),
            "DesiredWeight": each.get("InitialVariantWeight", 1.0),
            "CurrentInstanceCount": each["InitialInstanceCount"],
            "DesiredInstanceCount": each["InitialInstanceCount"],
        }
        for each in variants
    ]
