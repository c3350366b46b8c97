"""What the reaper does, each with the words that tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from lambdas.reaper.logic import SERVES, Endpoint, Job, Orphan, Owner

# kind: (the word in the API's operations, the words in its answers); tuning first, since it stops its trainings.
KINDS = {
    "tuning": ("hyper_parameter_tuning_job", "HyperParameterTuningJob"),
    "training": ("training_job", "TrainingJob"),
    "processing": ("processing_job", "ProcessingJob"),
    "transform": ("transform_job", "TransformJob"),
}
REFUSALS = ("ValidationException", "ResourceNotFound")


@dataclass(frozen=True)
class Action:
    """One thing to do: `operation` with `request`, and a label with the reason on what stays.

    `done` and `dry` are what is told of it; `also` is asked after it.
    """

    name: str
    arn: str | None
    operation: str
    request: Mapping[str, Any]
    done: str
    dry: str
    reason: str
    whose: str
    also: tuple[str, Mapping[str, Any]] | None = None

    def take(self, sagemaker: Any) -> bool:
        """Do it; False when it is no longer possible, since things have changed in between."""
        return _is_taken(sagemaker, self.operation, self.request)

    def finish(self, sagemaker: Any) -> None:
        """Label what stays, and ask what comes after it."""
        if self.arn is not None:
            tags = {"updraft:stopped-by": "reaper", "updraft:stop-reason": self.reason}
            sagemaker.add_tags(
                ResourceArn=self.arn, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
            )
        if self.also is not None:
            _is_taken(sagemaker, *self.also)


def stop(orphan: Orphan) -> Action:
    """Stop a job."""
    noun, words = KINDS[orphan.job.kind]
    return Action(
        name=orphan.job.name,
        arn=orphan.job.arn,
        operation=f"stop_{noun}",
        request={f"{words}Name": orphan.job.name},
        done=f"{orphan.job.kind} job {orphan.job.name} was told to stop",
        dry=f"{orphan.job.kind} job {orphan.job.name} would be stopped",
        reason=orphan.reason,
        whose=_path(orphan.owner),
    )


def undo(endpoint: Endpoint, owner: Owner) -> Action:
    """Take an endpoint back to its last complete deployment, or delete one that never had any."""
    what = f"endpoint {endpoint.name}"
    name = {"EndpointName": endpoint.name}
    if endpoint.way_out == "delete":
        return Action(
            name=endpoint.name,
            arn=None,
            operation="delete_endpoint",
            request=name,
            done=f"{what} was deleted",
            dry=f"{what} would be deleted",
            reason="its task is gone, and its deployment was never complete",
            whose=_path(owner),
            also=("delete_endpoint_config", {"EndpointConfigName": endpoint.config}),
        )
    serves = endpoint.tags[SERVES]
    return Action(
        name=endpoint.name,
        arn=endpoint.arn,
        operation="update_endpoint",
        request={**name, "EndpointConfigName": serves},
        done=f"{what} goes back to {serves}",
        dry=f"{what} would go back to {serves}",
        reason="the task that was changing it is gone",
        whose=_path(owner),
    )


def end_pool(pool: Job, owner: Owner) -> Action:
    """Give a warm pool's instances back."""
    return Action(
        name=pool.name,
        arn=pool.arn,
        operation="update_training_job",
        request={"TrainingJobName": pool.name, "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}},
        done=f"warm pool of training job {pool.name} was ended",
        dry=f"warm pool of training job {pool.name} would be ended",
        reason="nothing of its DAG run is left to use it",
        whose=_path(owner),
    )


def stop_notebook(name: str, arn: str, hours: int) -> Action:
    """Stop a notebook instance."""
    return Action(
        name=name,
        arn=arn,
        operation="stop_notebook_instance",
        request={"NotebookInstanceName": name},
        done=f"notebook instance {name} was told to stop",
        dry=f"notebook instance {name} would be stopped",
        reason=f"it has been running for more than {hours} hours",
        whose="its idle stop should have ended it",
    )


def message(actions: Iterable[Action], *, dry_run: bool) -> str:
    """What was done and why, for people."""
    return "\n".join(
        f"{f'{each.dry} (dry run)' if dry_run else each.done}: {each.reason} ({each.whose})"
        for each in actions
    )


def _is_taken(sagemaker: Any, operation: str, request: Mapping[str, Any]) -> bool:
    try:
        getattr(sagemaker, operation)(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSALS:
            raise
        return False
    return True


def _path(owner: Owner) -> str:
    return f"{owner.dag_id} / {owner.run_id} / {owner.task_id} / {owner.map_index}"
