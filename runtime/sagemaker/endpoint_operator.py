"""The tasks that deploy an endpoint, and that delete one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowException

from runtime.sagemaker.endpoints import DeploymentError, Endpoint
from runtime.sagemaker.models import content_name, environment_name
from runtime.sagemaker.resource_operator import SageMakerResourceOperator
from runtime.settings import WorkflowSettings, tags


class SageMakerEndpointOperator(SageMakerResourceOperator):
    """Deploys a configuration to a real-time endpoint: creates the endpoint, or updates the one that is there.

    A complete deployment lives on after its task. One that fails, or whose task is ended, leaves what served before,
    and no endpoint where there was none. A retry, a lost worker, and a restart of scheduler or triggerer go on with
    the deployment that is on its way; one that is there already is not made again.

    :param endpoint: its name after the environment's: `flights` is `{project}-{environment}-flights`
    :param request: called with the environment's settings and `op_kwargs`; returns the request of
        CreateEndpointConfig without name and tags
    :param op_kwargs: templated keyword arguments of `request`
    :param deferrable: wait in the triggerer, or hold a worker's slot
    :param aws_conn_id: Airflow's connection to AWS

    Returns `name` and `config_name`::

        def serve(settings, *, model_name):
            variant = {
                "VariantName": "main", "ModelName": model_name, "InitialInstanceCount": 1,
                "InstanceType": settings.instance_types["transform"],
            }
            return {"ProductionVariants": [variant]}

        SageMakerEndpointOperator(
            task_id="deploy", endpoint="flights", request=serve,
            op_kwargs={"model_name": model.output["name"]},
        )
    """

    kind = "endpoint"
    template_fields = ("endpoint", "op_kwargs")

    def __init__(
        self,
        *,
        endpoint: str,
        request: Callable[..., dict[str, Any]],
        op_kwargs: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.request = request
        self.op_kwargs = op_kwargs

    def resource_name(self) -> str:
        """The endpoint's whole name."""
        return environment_name(self.endpoint)

    @property
    def owned_name(self) -> str | None:
        """The endpoint, once a deployment of this task is on its way."""
        return self.resource_name() if self._config else None

    def step(self, context: Any, settings: WorkflowSettings, memory: dict[str, Any]) -> dict[str, Any] | None:
        """Look at the endpoint, and do what brings it nearer to its configuration."""
        request = self.request(settings, **self.op_kwargs)
        name = self.resource_name()
        config, endpoint = content_name(name, request), Endpoint(self.client, name)
        submitted = bool(memory.get("submitted"))
        if not submitted:
            self._refuse_over_budget(settings)
        # From here on a kill has something to undo.
        self._config = config
        try:
            reached = endpoint.bring_to(config, request, tags(context), submitted=submitted)
        except DeploymentError as error:
            self._give_up("the deployment failed")
            raise AirflowException(str(error)) from error
        if reached == "deployed":
            endpoint.keep(config)
            self._config = None
            self.log.info("endpoint %s serves %s", name, config)
            return {"name": name, "config_name": config}
        memory["submitted"] = reached == "submitted"
        if reached == "waiting":
            # What the endpoint is busy with belongs to another task.
            self._config = None
        return None

    def _give_up(self, reason: str) -> None:
        config, self._config = self._config, None
        if config is not None:
            done = Endpoint(self.client, self.resource_name()).undo(config, by="airflow", reason=reason)
            self.log.info("deployment of %s is given up: %s", self.resource_name(), done)


class SageMakerDeleteEndpointOperator(SageMakerResourceOperator):
    """Deletes a real-time endpoint and its configuration, and waits until it is gone; one that isn't there is fine.

    :param endpoint: its name after the environment's, as `SageMakerEndpointOperator` has it
    :param deferrable: wait in the triggerer, or hold a worker's slot
    :param aws_conn_id: Airflow's connection to AWS

    Returns `name`.
    """

    kind = "endpoint"
    template_fields = ("endpoint",)

    def __init__(self, *, endpoint: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint

    def resource_name(self) -> str:
        """The endpoint's whole name."""
        return environment_name(self.endpoint)

    def step(
        self, _context: Any, _settings: WorkflowSettings, memory: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Ask for its end when it can be asked, and take the configuration away once it is gone."""
        endpoint = Endpoint(self.client, self.resource_name())
        config = endpoint.delete()
        if config is not None:
            memory["config"] = config
            return None
        endpoint.delete_config(memory.get("config"))
        return {"name": endpoint.name}
