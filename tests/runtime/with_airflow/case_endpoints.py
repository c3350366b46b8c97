"""Who keeps, adopts and undoes a deployment, and starts a notebook; run by unittest in Airflow's own environment."""

from __future__ import annotations

import asyncio
import unittest
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout, TaskDeferred
from botocore.exceptions import ClientError

from runtime.sagemaker import model_operator, resource_operator, resource_trigger
from runtime.sagemaker.endpoint_operator import SageMakerDeleteEndpointOperator, SageMakerEndpointOperator
from runtime.sagemaker.endpoints import SERVES
from runtime.sagemaker.model_operator import SageMakerModelOperator
from runtime.sagemaker.notebook_operator import SageMakerNotebookOperator
from runtime.sagemaker.resource_trigger import SageMakerResourceTrigger
from runtime.settings import WorkflowSettings
from tests.runtime.with_airflow.fake_sagemaker import SETTINGS, JobsCase

NAME = "updraft-test-flights"


def serve(_settings: WorkflowSettings, model_name: str = "m") -> dict[str, Any]:
    return {"ProductionVariants": [{"VariantName": "main", "ModelName": model_name}]}


def refusal(message: str) -> ClientError:
    return ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "operation")


class FakeHosting:
    """One endpoint and one notebook instance, which change their state when `rest` is called."""

    def __init__(self) -> None:
        self.endpoint: dict[str, Any] | None = None
        self.configs: set[str] = set()
        self.models: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}
        self.calls: list[str] = []
        self.fails = False
        self.notebook = {"NotebookInstanceStatus": "Stopped", "Url": "notebook.example"}

    def rest(self) -> None:
        """What is on its way arrives, or fails."""
        found = self.endpoint
        if found is not None and found["EndpointStatus"] == "Deleting":
            self.endpoint = None
        elif found is not None and "PendingDeploymentSummary" in found:
            pending = found.pop("PendingDeploymentSummary")["EndpointConfigName"]
            if self.fails:
                status = "Failed" if found["EndpointStatus"] == "Creating" else "InService"
                found |= {"EndpointStatus": status, "FailureReason": "no ping"}
            else:
                found |= {"EndpointStatus": "InService", "EndpointConfigName": pending}
        arrived = {"Pending": "Failed" if self.fails else "InService", "Stopping": "Stopped"}
        status = self.notebook["NotebookInstanceStatus"]
        self.notebook["NotebookInstanceStatus"] = arrived.get(status, status)

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        if self.endpoint is None:
            raise refusal(f'Could not find endpoint "{EndpointName}".')
        return dict(self.endpoint)

    def create_endpoint_config(self, EndpointConfigName: str, **_: Any) -> None:
        if EndpointConfigName in self.configs:
            raise refusal("Cannot create already existing endpoint configuration")
        self.configs.add(EndpointConfigName)

    def delete_endpoint_config(self, EndpointConfigName: str) -> None:
        if EndpointConfigName not in self.configs:
            raise refusal("Could not find endpoint configuration")
        self.configs.remove(EndpointConfigName)

    def create_endpoint(self, EndpointName: str, EndpointConfigName: str, Tags: Any) -> None:
        self.calls.append("create")
        self.add_tags("arn", Tags)
        self.endpoint = {
            "EndpointName": EndpointName,
            "EndpointArn": "arn",
            "EndpointStatus": "Creating",
            "EndpointConfigName": EndpointConfigName,
            "PendingDeploymentSummary": {"EndpointConfigName": EndpointConfigName},
        }

    def update_endpoint(self, EndpointName: str, EndpointConfigName: str) -> None:  # noqa: ARG002
        self.calls.append("update")
        assert self.endpoint is not None
        pending = {"EndpointConfigName": EndpointConfigName}
        self.endpoint |= {"EndpointStatus": "Updating", "PendingDeploymentSummary": pending}

    def delete_endpoint(self, EndpointName: str) -> None:  # noqa: ARG002
        self.calls.append("delete")
        assert self.endpoint is not None
        self.endpoint["EndpointStatus"] = "Deleting"

    def add_tags(self, ResourceArn: str, Tags: Any) -> None:  # noqa: ARG002
        self.tags |= {tag["Key"]: tag["Value"] for tag in Tags}

    def create_model(self, ModelName: str, **request: Any) -> None:
        if ModelName in self.models:
            raise refusal("Cannot create already existing model")
        self.models[ModelName] = request

    def describe_notebook_instance(self, NotebookInstanceName: str) -> dict[str, Any]:
        return {"NotebookInstanceName": NotebookInstanceName, **self.notebook}

    def start_notebook_instance(self, NotebookInstanceName: str) -> None:  # noqa: ARG002
        self.calls.append("start")
        self.notebook["NotebookInstanceStatus"] = "Pending"

    def stop_notebook_instance(self, NotebookInstanceName: str) -> None:  # noqa: ARG002
        self.calls.append("stop")
        self.notebook["NotebookInstanceStatus"] = "Stopping"

    def get_paginator(self, operation: str) -> Any:
        tags = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        # The budget gate finds nothing that was paid for.
        kinds = ("Training", "Processing", "Transform")
        paid: dict[str, Any] = {f"{kind}JobSummaries": [] for kind in kinds} | {"Endpoints": []}
        page = {"Tags": tags} if operation == "list_tags" else paid
        return SimpleNamespace(paginate=lambda **_: [page])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("describe_"):
            return None
        raise AttributeError(name)


class HostingCase(JobsCase):
    def setUp(self) -> None:
        super().setUp()
        self.sagemaker: Any = FakeHosting()
        for module in (resource_trigger, model_operator):
            self.patch(module, "SageMakerHook", self.hook)
        for module in (resource_operator, model_operator):
            self.patch(module, "workflow_settings", lambda: SETTINGS)

    def patch(self, module: Any, name: str, value: Any) -> None:
        patch = mock.patch.object(module, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def task(self, **changes: Any) -> SageMakerEndpointOperator:
        values: dict[str, Any] = {
            "task_id": "deploy", "endpoint": "flights", "request": serve, "op_kwargs": {},
        }  # fmt: skip
        return SageMakerEndpointOperator(**(values | changes))

    def deferred(self, task: Any) -> SageMakerResourceTrigger:
        with self.assertRaises(TaskDeferred) as raised:
            task.execute(self.context())
        return raised.exception.trigger

    def finish(self, task: Any, waiting: SageMakerResourceTrigger, *, in_time: bool = True) -> Any:
        """What the task makes of its trigger's event, in another process."""
        _, values = waiting.serialize()
        event = {"memory": SageMakerResourceTrigger(**values).memory, "in_time": in_time}
        return task.resume(self.context(), event)

    def deploy(self, **changes: Any) -> dict[str, Any]:
        """A whole deployment."""
        waiting = self.deferred(self.task(**changes))
        self.sagemaker.rest()
        return self.finish(self.task(**changes), waiting)


class Deploying(HostingCase):
    def test_first_deployment_creates_and_keeps(self) -> None:
        result = self.deploy()
        self.assertEqual(result["name"], NAME)
        self.assertEqual(self.sagemaker.calls, ["create"])
        self.assertEqual(self.sagemaker.tags[SERVES], result["config_name"])
        self.assertEqual(self.sagemaker.tags["updraft:dag"], "d")

    def test_next_deployment_updates(self) -> None:
        self.deploy()
        result = self.deploy(op_kwargs={"model_name": "better"})
        self.assertEqual(self.sagemaker.calls, ["create", "update"])
        self.assertEqual(self.sagemaker.configs, {result["config_name"]})

    def test_what_serves_already_is_not_deployed_again(self) -> None:
        first = self.deploy()
        self.assertEqual(self.task().execute(self.context()), first)
        self.assertEqual(self.sagemaker.calls, ["create"])

    def test_retry_takes_over(self) -> None:
        self.deferred(self.task())
        waiting = self.deferred(self.task())
        self.sagemaker.rest()
        self.finish(self.task(), waiting)
        self.assertEqual(self.sagemaker.calls, ["create"])

    def test_task_that_holds_its_slot_waits_there(self) -> None:
        async def settled(*_: Any, **__: Any) -> bool:
            self.sagemaker.rest()
            return True

        with mock.patch.object(resource_operator, "settled_with_hook", settled):
            result = self.task(deferrable=False).execute(self.context())
        self.assertEqual(self.sagemaker.tags[SERVES], result["config_name"])

    def test_failed_deployments_leave_what_served(self) -> None:
        self.sagemaker.fails = True
        with self.assertRaisesRegex(AirflowException, "no ping"):
            self.deploy()
        self.sagemaker.rest()
        self.assertIsNone(self.sagemaker.endpoint)
        self.sagemaker.fails = False
        config = self.deploy()["config_name"]
        self.sagemaker.fails = True
        with self.assertRaisesRegex(AirflowException, "no ping"):
            self.deploy(op_kwargs={"model_name": "worse"})
        self.assertEqual(self.sagemaker.endpoint["EndpointConfigName"], config)
        self.assertEqual(self.sagemaker.configs, {config})

    def test_name_that_sagemaker_refuses_is_refused_first(self) -> None:
        with self.assertRaisesRegex(ValueError, "no name on SageMaker"):
            self.task(endpoint="my flights").execute(self.context())

    def test_month_over_budget_deploys_nothing(self) -> None:
        spent = mock.patch("runtime.sagemaker.owner.spent_this_month", return_value=(99.0, []))
        with spent, self.assertRaisesRegex(AirflowException, "monthly_budget_usd"):
            self.task().execute(self.context())
        self.assertEqual(self.sagemaker.calls, [])


class Ending(HostingCase):
    def kill(self, waiting: SageMakerResourceTrigger, state: str | None) -> None:
        self.state = state
        waiting._task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="deploy", map_index=-1)
        asyncio.run(waiting.on_kill())

    def test_ended_task_undoes_its_deployment(self) -> None:
        for state in ("failed", "success", "queued", None):
            with self.subTest(state=state):
                self.setUp()
                waiting = self.deferred(self.task())
                self.sagemaker.rest()
                self.kill(waiting, state)
                self.assertEqual(self.sagemaker.calls, ["create", "delete"])

    def test_ended_task_leaves_its_mark_where_sagemaker_refuses(self) -> None:
        waiting = self.deferred(self.task())
        self.kill(waiting, "failed")
        self.assertEqual(self.sagemaker.calls, ["create"])
        self.assertEqual(self.sagemaker.tags["updraft:stopped-by"], "airflow")

    def test_ended_update_goes_back(self) -> None:
        config = self.deploy()["config_name"]
        waiting = self.deferred(self.task(op_kwargs={"model_name": "other"}))
        self.sagemaker.rest()
        self.kill(waiting, "failed")
        self.sagemaker.rest()
        self.assertEqual(self.sagemaker.endpoint["EndpointConfigName"], config)

    def test_moved_trigger_undoes_nothing(self) -> None:
        waiting = self.deferred(self.task())
        self.sagemaker.rest()
        self.kill(waiting, "deferred")
        self.assertEqual(self.sagemaker.calls, ["create"])

    def test_task_that_waits_for_another_ones_deployment_undoes_nothing(self) -> None:
        self.deferred(self.task())
        waiting = self.deferred(self.task(op_kwargs={"model_name": "other"}))
        self.sagemaker.rest()
        self.kill(waiting, "failed")
        self.assertEqual(self.sagemaker.calls, ["create"])

    def test_killed_worker_undoes_and_a_leaving_one_does_not(self) -> None:
        for state, calls in (("failed", ["create", "delete"]), ("running", ["create"])):
            with self.subTest(state=state):
                self.setUp()
                self.assertEqual(self.sync_kill(state), calls)

    def sync_kill(self, state: str) -> list[str]:
        """A task that holds its slot gets SIGTERM while it waits."""
        task = self.task(deferrable=False)

        async def killed(*_: Any, **__: Any) -> bool:
            self.sagemaker.rest()
            self.state = state
            task.on_kill()
            raise SystemExit

        with (
            mock.patch.object(resource_operator, "settled_with_hook", killed),
            self.assertRaises(SystemExit),
        ):
            task.execute(self.context())
        return list(self.sagemaker.calls)

    def test_kill_before_an_update_leaves_an_endpoint_of_others_alone(self) -> None:
        self.sagemaker.create_endpoint(NAME, "theirs", [])
        self.sagemaker.rest()
        task = self.task(deferrable=False)

        def killed(**_: Any) -> None:
            self.state = "failed"
            task.on_kill()
            raise SystemExit

        with (
            mock.patch.object(self.sagemaker, "create_endpoint_config", killed),
            self.assertRaises(SystemExit),
        ):
            task.execute(self.context())
        self.assertEqual(self.sagemaker.calls, ["create"])
        self.assertEqual(self.sagemaker.tags, {})

    def test_time_out_undoes(self) -> None:
        waiting = self.deferred(self.task(execution_timeout=timedelta(seconds=50)))
        self.sagemaker.rest()
        with self.assertRaises(AirflowTaskTimeout):
            self.finish(self.task(), waiting, in_time=False)
        self.assertEqual(self.sagemaker.calls, ["create", "delete"])

    def test_delete_takes_the_configuration_along_and_can_be_repeated(self) -> None:
        self.deploy()
        task = SageMakerDeleteEndpointOperator(task_id="delete", endpoint="flights")
        waiting = self.deferred(task)
        self.sagemaker.rest()
        self.assertEqual(self.finish(task, waiting), {"name": NAME})
        self.assertEqual((self.sagemaker.endpoint, self.sagemaker.configs), (None, set()))
        self.assertEqual(task.execute(self.context()), {"name": NAME})


class Models(HostingCase):
    def test_same_content_is_one_model(self) -> None:
        def request(_settings: WorkflowSettings, *, uri: str) -> dict[str, Any]:
            return {"PrimaryContainer": {"Image": "image", "ModelDataUrl": uri}}

        def create(uri: str) -> str:
            task = SageMakerModelOperator(
                task_id="model", model="flights", request=request, op_kwargs={"uri": uri}
            )
            return str(task.execute(self.context())["name"])

        names = [create("s3://data/a"), create("s3://data/a"), create("s3://data/b")]
        self.assertEqual(names[0], names[1])
        self.assertEqual(set(self.sagemaker.models), set(names))
        self.assertEqual(len(set(names)), 2)
        made = self.sagemaker.models[names[0]]
        self.assertEqual(made["ExecutionRoleArn"], "arn:aws:iam::123456789012:role/jobs")
        self.assertIn("VpcConfig", made)


class Notebooks(HostingCase):
    def notebook(self, action: Any) -> SageMakerNotebookOperator:
        return SageMakerNotebookOperator(task_id=action, action=action)

    def test_notebook_is_started_and_stopped_once(self) -> None:
        for action, url in (("start", "notebook.example"), ("stop", None)):
            waiting = self.deferred(self.notebook(action))
            self.sagemaker.rest()
            wanted = {"name": "updraft-test-notebook", "url": url}
            self.assertEqual(self.finish(self.notebook(action), waiting), wanted)
            self.assertEqual(self.notebook(action).execute(self.context()), wanted)
        self.assertEqual(self.sagemaker.calls, ["start", "stop"])

    def test_start_of_one_that_still_stops_waits_first(self) -> None:
        self.sagemaker.notebook["NotebookInstanceStatus"] = "Stopping"
        waiting = self.deferred(self.notebook("start"))
        self.assertEqual(self.sagemaker.calls, [])
        self.sagemaker.rest()
        with self.assertRaises(TaskDeferred):
            self.finish(self.notebook("start"), waiting)
        self.assertEqual(self.sagemaker.calls, ["start"])

    def test_failed_start_says_why(self) -> None:
        self.sagemaker.fails = True
        self.sagemaker.notebook["FailureReason"] = "no capacity"
        waiting = self.deferred(self.notebook("start"))
        self.sagemaker.rest()
        with self.assertRaisesRegex(AirflowException, "no capacity"):
            self.finish(self.notebook("start"), waiting)

    def test_unknown_action_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "start, stop"):
            self.notebook("restart")


class Waiting(HostingCase):
    def test_trigger_fires_when_the_endpoint_rests(self) -> None:
        waiting = self.deferred(self.task())
        sagemaker = self.sagemaker

        class Asynchronous:
            async def __aenter__(self) -> Asynchronous:
                return self

            async def __aexit__(self, *_: object) -> None:
                """Nothing to close."""

            async def describe_endpoint(self, **asked: Any) -> Any:
                found = sagemaker.describe_endpoint(**asked)
                sagemaker.rest()
                return found

        async def connect() -> Asynchronous:
            return Asynchronous()

        hook = SimpleNamespace(get_async_conn=connect)
        waiting._task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="deploy", map_index=-1)

        async def first() -> Any:
            with mock.patch.object(resource_trigger, "SageMakerHook", lambda **_: hook):
                return await anext(waiting.run())

        event = asyncio.run(first())
        self.assertTrue(event.payload["in_time"])
        self.assertEqual(self.task().resume(self.context(), event.payload)["name"], NAME)


if __name__ == "__main__":
    unittest.main()
