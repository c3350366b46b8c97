"""The task that starts or stops a notebook instance."""

from __future__ import annotations

from typing import Any, Literal

from airflow.sdk.exceptions import AirflowException

from runtime.sagemaker.models import environment_name
from runtime.sagemaker.resource_operator import SageMakerResourceOperator
from runtime.sagemaker.resources import RESOURCES
from runtime.settings import WorkflowSettings

WANTED = {"start": "InService", "stop": "Stopped"}


class SageMakerNotebookOperator(SageMakerResourceOperator):
    """Starts or stops a notebook instance, and waits until it is there; one that is there already is fine.

    A started instance outlives its task: it stops by itself when it is idle, and the reaper stops one that doesn't.

    :param action: `start` or `stop`
    :param notebook: its name after the environment's; the workflows stack makes `notebook`
    :param deferrable: wait in the triggerer, or hold a worker's slot
    :param aws_conn_id: Airflow's connection to AWS

    Returns `name` and `url` (None for a stopped one).
    """

    kind = "notebook"
    template_fields = ("notebook",)

    def __init__(
        self, *, action: Literal["start", "stop"], notebook: str = "notebook", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if action not in WANTED:
            raise ValueError(f"action: {action!r} is not one of {', '.join(WANTED)}")
        self.action = action
        self.notebook = notebook

    def resource_name(self) -> str:
        """The instance's whole name."""
        return environment_name(self.notebook)

    def step(
        self, _context: Any, settings: WorkflowSettings, memory: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Look at the instance, and start or stop it when it rests in another state."""
        name = self.resource_name()
        found = self.client.describe_notebook_instance(NotebookInstanceName=name)
        status = found["NotebookInstanceStatus"]
        if status == WANTED[self.action]:
            return {"name": name, "url": found.get("Url") if self.action == "start" else None}
        if status in RESOURCES["notebook"].moving:
            return None
        if memory.get("asked"):
            reason = found.get("FailureReason", "no reason given")
            raise AirflowException(f"notebook instance {name} is {status} after its {self.action}: {reason}")
        if self.action == "stop":
            if status == "Failed":
                # What failed runs nothing, and SageMaker doesn't stop it.
                return {"name": name, "url": None}
            self.client.stop_notebook_instance(NotebookInstanceName=name)
        else:
            self._refuse_over_budget(settings)
            self.client.start_notebook_instance(NotebookInstanceName=name)
        memory["asked"] = True
        return None
