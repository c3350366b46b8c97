"""The provider's `example_sagemaker_notebook`: an instance is made, stopped, started, stopped and deleted."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerCreateNotebookOperator,
    SageMakerDeleteNotebookOperator,
    SageMakerStartNoteBookOperator,
    SageMakerStopNotebookOperator,
)
from airflow.sdk import DAG, chain

from tests.provider.names import ROLE_ARN

NAME = "example-test-notebook"

with DAG(dag_id="example_sagemaker_notebook", schedule=None, start_date=datetime(2021, 1, 1), catchup=False):
    chain(
        SageMakerCreateNotebookOperator(
            task_id="create_instance",
            instance_name=NAME,
            instance_type="ml.t3.medium",
            role_arn=ROLE_ARN,
            wait_for_completion=True,
        ),
        SageMakerStopNotebookOperator(task_id="stop_instance", instance_name=NAME),
        SageMakerStartNoteBookOperator(task_id="start_instance", instance_name=NAME),
        SageMakerStopNotebookOperator(task_id="stop_instance_before_delete", instance_name=NAME),
        SageMakerDeleteNotebookOperator(task_id="delete_instance", instance_name=NAME),
    )
