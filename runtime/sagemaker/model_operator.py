"""The task that creates a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.sdk import BaseOperator

from runtime.sagemaker.jobs import RETRIES
from runtime.sagemaker.models import complete_model, content_name, create_model, environment_name
from runtime.settings import tags, workflow_settings


class SageMakerModelOperator(BaseOperator):  # type: ignore[misc]
    """Creates a SageMaker model, once for each content: a retry or a clear finds the one that is there.

    :param model: the first words of its name, after the environment's; the rest is a digest of the request
    :param request: called with the environment's settings and `op_kwargs`; returns the request of CreateModel without
        name and tags; role and network are the environment's unless it names them
    :param op_kwargs: templated keyword arguments of `request`
    :param aws_conn_id: Airflow's connection to AWS

    Returns `name`.
    """

    template_fields = ("model", "op_kwargs")

    def __init__(
        self,
        *,
        model: str,
        request: Callable[..., dict[str, Any]],
        op_kwargs: Mapping[str, Any],
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.model = model
        self.request = request
        self.op_kwargs = op_kwargs
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Any) -> dict[str, Any]:
        """Create the model unless it is there."""
        settings = workflow_settings()
        request = complete_model(self.request(settings, **self.op_kwargs), settings)
        name = content_name(environment_name(self.model), request)
        client = SageMakerHook(aws_conn_id=self.aws_conn_id, config=RETRIES).get_conn()
        made = create_model(client, name, request, tags(context))
        self.log.info("model %s %s", name, "is created" if made else "was there already")
        return {"name": name}
