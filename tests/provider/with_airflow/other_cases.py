"""Notebook instances, conditions, and what the host does not have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerAutoMLOperator,
    SageMakerConditionOperator,
    SageMakerCreateExperimentOperator,
    SageMakerCreateNotebookOperator,
    SageMakerDeleteNotebookOperator,
    SageMakerStartNoteBookOperator,
    SageMakerStartPipelineOperator,
    SageMakerStopNotebookOperator,
    SageMakerStopPipelineOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import SageMakerAutoMLSensor, SageMakerPipelineSensor
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from tests.provider.names import ACCOUNT, BUCKET, REGION, ROLE_ARN
from tests.provider.with_airflow.harness import (
    Gate,
    Record,
    TaskInstance,
    client,
    fails,
    name_of,
    register,
    run,
    training_config,
    until,
)
from tests.provider.with_airflow.job_cases import MODES


def notebook(status: str) -> str:
    """An instance that is in a status; returns its name."""
    name = name_of(f"notebook-{status}")
    client().create_notebook_instance(
        NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=ROLE_ARN
    )
    until(lambda: status_of(name) == "InService", f"{name} is in service")
    if status == "Stopped":
        client().stop_notebook_instance(NotebookInstanceName=name)
        until(lambda: status_of(name) == status, f"{name} is stopped")
    return name


def status_of(name: str) -> str:
    found = client().describe_notebook_instance(NotebookInstanceName=name)
    return str(found["NotebookInstanceStatus"])


@register.case(SageMakerCreateNotebookOperator, "sync")
def notebook_is_in_service(mode: str) -> None:
    name = name_of("notebook-created")
    given: Record = {"instance_type": "ml.t3.medium", "role_arn": ROLE_ARN, "volume_size_in_gb": 7}
    arn = run(SageMakerCreateNotebookOperator, mode, instance_name=name, root_access="Disabled", **given)
    found = client().describe_notebook_instance(NotebookInstanceName=name)
    assert (found["NotebookInstanceStatus"], found["NotebookInstanceArn"]) == ("InService", arn)
    assert (found["VolumeSizeInGB"], found["RootAccess"]) == (7, "Disabled")


@register.case(SageMakerStopNotebookOperator, "sync")
def notebook_is_stopped(mode: str) -> None:
    name = notebook("InService")
    run(SageMakerStopNotebookOperator, mode, instance_name=name)
    assert status_of(name) == "Stopped"


@register.case(SageMakerStartNoteBookOperator, "sync")
def notebook_is_in_service_again(mode: str) -> None:
    name = notebook("Stopped")
    run(SageMakerStartNoteBookOperator, mode, instance_name=name)
    assert status_of(name) == "InService"


@register.case(SageMakerDeleteNotebookOperator, "sync")
def notebook_is_gone_and_one_that_runs_is_not_deleted(mode: str) -> None:
    name, running = notebook("Stopped"), notebook("InService")
    run(SageMakerDeleteNotebookOperator, mode, instance_name=name)
    fails("RecordNotFound", lambda: status_of(name))
    fails("not in", lambda: run(SageMakerDeleteNotebookOperator, mode, instance_name=running))
    assert status_of(running) == "InService"


@register.case(SageMakerConditionOperator, "sync")
def accuracy_of_a_training_decides_the_way(_mode: str) -> None:
    name = name_of("training-judged")
    gate = Gate()
    gate.open()
    config = training_config(name, gate) | {"RoleArn": ROLE_ARN}
    config["InputDataConfig"].append(config["InputDataConfig"][0] | {"ChannelName": "test"})
    metric = {"Name": "test:accuracy", "Regex": "test:accuracy=([0-9.]+)"}
    config["AlgorithmSpecification"]["MetricDefinitions"] = [metric]
    client().create_training_job(**config)
    until(lambda: training(name)["TrainingJobStatus"] == "Completed", f"{name} completes")
    [accuracy] = training(name)["FinalMetricDataList"]
    assert accuracy["Value"] == 1
    for least, skipped in ((0.9, "retrain"), (1.1, "deploy")):
        # As a template renders it.
        task = condition(str(accuracy["Value"]), least, else_task_ids=["retrain"])
        context: Any = {"ti": TaskInstance(task)}
        try:
            task.execute(context)
        except DownstreamTasksSkipped as raised:
            assert [each[0] for each in raised.tasks] == [skipped], raised.tasks
        else:
            raise AssertionError("no way was left out")
    context = {}
    fails("Condition check failed", lambda: condition("1", 2).execute(context), AirflowFailException)


def training(name: str) -> Record:
    """A training's description."""
    return dict(client().describe_training_job(TrainingJobName=name))


def condition(left: str, least: float, **more: Any) -> SageMakerConditionOperator:
    """An operator with a way to go when a value is large enough, and another one."""
    with DAG(dag_id="conditions", schedule=None, start_date=datetime(2026, 1, 1)):
        task = SageMakerConditionOperator(
            task_id="check",
            condition_type="GreaterThanOrEqualTo",
            left_value=left,
            right_value=least,
            if_task_ids=["deploy"],
            **more,
        )
        task >> [EmptyOperator(task_id="deploy"), EmptyOperator(task_id="retrain")]
    return task


# Out of the host's scope

PIPELINE_EXECUTION = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/p/execution/abcdefghijkl"


@register.case(SageMakerStartPipelineOperator, *MODES)
def start_of_a_pipeline(mode: str) -> None:
    run(SageMakerStartPipelineOperator, mode, pipeline_name="p", wait_for_completion=True)


@register.case(SageMakerStopPipelineOperator, *MODES)
def stop_of_a_pipeline(mode: str) -> None:
    run(SageMakerStopPipelineOperator, mode, pipeline_exec_arn=PIPELINE_EXECUTION)


@register.case(SageMakerAutoMLOperator, "sync")
def auto_ml(mode: str) -> None:
    run(
        SageMakerAutoMLOperator,
        mode,
        job_name=name_of("automl"),
        s3_input=f"s3://{BUCKET}/input",
        target_attribute="class",
        s3_output=f"s3://{BUCKET}/output",
        role_arn=ROLE_ARN,
        time_limit=30,
    )


@register.case(SageMakerCreateExperimentOperator, "sync")
def experiment(mode: str) -> None:
    run(SageMakerCreateExperimentOperator, mode, name=name_of("experiment"))


def poked(sensor: type, **arguments: Any) -> Callable[[str], None]:
    return lambda mode: sensor(task_id="task", mode=mode, **arguments).execute({"ti": TaskInstance(None)})


for sensor, arguments in (
    (SageMakerPipelineSensor, {"pipeline_exec_arn": PIPELINE_EXECUTION}),
    (SageMakerAutoMLSensor, {"job_name": "automl"}),
):
    register.case(sensor, "poke", "reschedule")(poked(sensor, **arguments))
