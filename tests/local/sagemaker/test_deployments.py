"""The tasks' deployments on the host: a complete one lives on, any other leaves what served before."""

import asyncio
import itertools
import time
from typing import Any

import pytest

from runtime.sagemaker.endpoints import SERVES, DeploymentError, Endpoint
from runtime.sagemaker.models import content_name, create_model
from runtime.sagemaker.resources import settled
from tests.local.sagemaker.hosting import IMAGE, Client, Host, wait_until
from tests.local.sagemaker.test_endpoints import SERVE, archive, instances, variant

pytestmark = pytest.mark.account

names = (f"deployed-{number}" for number in itertools.count())
TAGS = [{"Key": "updraft:task", "Value": "deploy"}]
UNDO = {"by": "airflow", "reason": "the task was cleared"}


class Deployed:
    """An endpoint, and deployments of models that are one word."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.client = Client(host.service.call)
        self.endpoint = Endpoint(self.client, next(names))

    def request(self, text: str) -> dict[str, Any]:
        model = {"Image": IMAGE, "ModelDataUrl": self.host.put(f"deployed/{text}.tar.gz", archive(text))}
        request = {"PrimaryContainer": model, "ExecutionRoleArn": "arn:aws:iam::000000000000:role/jobs"}
        name = content_name("model", request)
        create_model(self.client, name, request, TAGS)
        return {"ProductionVariants": [variant(name, "main")]}

    def config(self, text: str) -> str:
        return content_name(self.endpoint.name, self.request(text))

    def step(self, text: str, *, submitted: bool = False) -> str:
        request = self.request(text)
        config = content_name(self.endpoint.name, request)
        return self.endpoint.bring_to(config, request, TAGS, submitted=submitted)

    def deploy(self, text: str) -> str:
        """A whole deployment; returns its configuration."""
        submitted = False
        while (reached := self.step(text, submitted=submitted)) != "deployed":
            submitted = reached == "submitted"
            self.rest()
        self.endpoint.keep(self.config(text))
        return self.config(text)

    def rest(self) -> None:
        """Wait until nothing is on its way."""
        wait_until(self.rests, f"{self.endpoint.name} rests")

    def rests(self) -> bool:
        found = self.endpoint.describe()
        return found is None or found["EndpointStatus"] in ("InService", "Failed")

    @property
    def serving(self) -> str | None:
        found = self.endpoint.describe()
        return None if found is None else str(found["EndpointConfigName"])

    @property
    def tags(self) -> dict[str, str]:
        found = self.endpoint.describe()
        assert found is not None
        tags = self.client.list_tags(ResourceArn=found["EndpointArn"])["Tags"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    @property
    def configs(self) -> set[str]:
        found = self.client.list_endpoint_configs(NameContains=self.endpoint.name)["EndpointConfigs"]
        return {each["EndpointConfigName"] for each in found}


@pytest.fixture
def deployed(host: Host) -> Deployed:
    host.program(SERVE)
    return Deployed(host)


def test_deployment_is_kept_and_is_not_made_twice(deployed: Deployed) -> None:
    config = deployed.deploy("one")
    assert (deployed.serving, deployed.tags[SERVES], deployed.tags["updraft:task"]) == (
        config,
        config,
        "deploy",
    )
    assert deployed.deploy("one") == config
    assert deployed.client.asked.count("CreateEndpoint") == 1
    assert "UpdateEndpoint" not in deployed.client.asked


def test_next_deployment_replaces_the_one_before(deployed: Deployed) -> None:
    deployed.deploy("one")
    config = deployed.deploy("two")
    assert (deployed.serving, deployed.tags[SERVES], deployed.configs) == (config, config, {config})


def test_retry_takes_over_what_is_on_its_way(deployed: Deployed) -> None:
    assert [deployed.step("one"), deployed.step("one")] == ["submitted", "submitted"]
    deployed.rest()
    assert deployed.step("one", submitted=True) == "deployed"
    assert deployed.client.asked.count("CreateEndpoint") == 1


@pytest.mark.parametrize("operation", ["CreateEndpoint", "UpdateEndpoint"])
def test_lost_answer_of_a_submission_is_no_error(deployed: Deployed, operation: str) -> None:
    if operation == "UpdateEndpoint":
        deployed.deploy("one")
    deployed.client.lost.add(operation)
    assert deployed.step("two") == "submitted"


def test_failed_first_deployment_is_undone(deployed: Deployed) -> None:
    deployed.step("broken")
    deployed.rest()
    with pytest.raises(DeploymentError, match="ping health check"):
        deployed.step("broken", submitted=True)
    told = deployed.endpoint.undo(deployed.config("broken"), **UNDO)
    assert told == "it is deleted, since no deployment of it was ever complete"
    wait_until(lambda: deployed.endpoint.describe() is None, "the endpoint is gone")
    assert deployed.configs == set()
    assert instances(deployed.host, deployed.endpoint.name) == {}


def test_failed_update_leaves_what_served(deployed: Deployed) -> None:
    config = deployed.deploy("one")
    deployed.step("broken")
    deployed.rest()
    with pytest.raises(DeploymentError, match="ping health check"):
        deployed.step("broken", submitted=True)
    assert deployed.endpoint.undo(deployed.config("broken"), **UNDO) == f"it serves {config}"
    assert (deployed.serving, deployed.configs) == (config, {config})


def test_update_that_came_through_after_its_end_goes_back(deployed: Deployed) -> None:
    config = deployed.deploy("one")
    deployed.step("two")
    told = deployed.endpoint.undo(deployed.config("two"), **UNDO)
    assert told == "it is Updating and can't be changed now; the reaper undoes it"
    assert deployed.tags["updraft:stop-reason"] == "the task was cleared"
    deployed.rest()
    assert deployed.serving == deployed.config("two")
    assert deployed.endpoint.undo(deployed.config("two"), **UNDO) == f"it goes back to {config}"
    deployed.rest()
    assert deployed.serving == config


def test_endpoint_of_others_is_taken_over_and_never_deleted(deployed: Deployed) -> None:
    theirs = {"EndpointConfigName": "theirs", **deployed.request("theirs")}
    deployed.client.create_endpoint_config(**theirs)
    deployed.client.create_endpoint(EndpointName=deployed.endpoint.name, EndpointConfigName="theirs")
    deployed.rest()
    deployed.step("one")
    deployed.rest()
    deployed.endpoint.undo(deployed.config("one"), **UNDO)
    deployed.rest()
    assert (deployed.serving, deployed.tags[SERVES]) == ("theirs", "theirs")


def test_failed_endpoint_is_replaced(deployed: Deployed) -> None:
    deployed.step("broken")
    deployed.rest()
    assert deployed.step("one") == "waiting"
    wait_until(lambda: deployed.endpoint.describe() is None, "the failed one is gone")
    deployed.deploy("one")


def test_another_deployment_is_waited_for(deployed: Deployed) -> None:
    deployed.step("one")
    assert deployed.step("two") == "waiting"
    deployed.rest()
    deployed.deploy("two")
    assert deployed.serving == deployed.config("two")


def test_settled_tells_states_and_the_end(deployed: Deployed) -> None:
    class Asynchronous:
        async def describe_endpoint(self, **asked: Any) -> Any:
            return deployed.client.describe_endpoint(**asked)

    def wait(seconds: float) -> tuple[bool, list[str]]:
        told: list[str] = []
        deadline = time.time() + seconds
        waiting = settled(
            Asynchronous(), "endpoint", deployed.endpoint.name, poll_seconds=0.1, deadline=deadline, tell=told.append
        )  # fmt: skip
        return asyncio.run(waiting), told

    name = deployed.endpoint.name
    deployed.step("one")
    assert wait(0) == (False, [f"endpoint {name}: Creating"])
    assert wait(30) == (True, [f"endpoint {name}: Creating", f"endpoint {name}: InService"])
    assert deployed.endpoint.delete() == deployed.config("one")
    assert wait(30)[1][-1] == f"endpoint {name} is gone"
    assert deployed.endpoint.delete() is None
