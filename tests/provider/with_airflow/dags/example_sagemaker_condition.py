"""The provider's `example_sagemaker_condition`: values that tasks hand on decide which way a run goes."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerConditionOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, task


@task
def produce_metrics() -> dict[str, float]:
    """What a good training says of itself."""
    return {"accuracy": 0.95, "loss": 0.04}


@task
def produce_bad_metrics() -> dict[str, float]:
    """What a bad one says."""
    return {"accuracy": 0.5, "loss": 0.8}


def value_of(task_id: str, key: str) -> str:
    """The template of a value that a task has returned."""
    return f"{{{{ ti.xcom_pull(task_ids='{task_id}')['{key}'] }}}}"


with DAG(dag_id="example_sagemaker_condition", schedule=None, start_date=datetime(2021, 1, 1), catchup=False):
    check_accuracy = SageMakerConditionOperator(
        task_id="check_accuracy",
        conditions=[
            {
                "type": "GreaterThanOrEqualTo",
                "left_value": value_of("produce_metrics", "accuracy"),
                "right_value": 0.9,
            },
            {"type": "LessThan", "left_value": value_of("produce_metrics", "loss"), "right_value": 0.1},
        ],
        if_task_ids=["deploy_model"],
        else_task_ids=["retrain_model"],
    )
    check_bad_accuracy = SageMakerConditionOperator(
        task_id="check_bad_accuracy",
        condition_type="GreaterThanOrEqualTo",
        left_value=value_of("produce_bad_metrics", "accuracy"),
        right_value=0.9,
        if_task_ids=["should_not_run"],
        else_task_ids=["should_run"],
    )
    check_logical = SageMakerConditionOperator(
        task_id="check_logical",
        conditions=[
            {
                "type": "Or",
                "conditions": [
                    {"type": "Equals", "left_value": 1, "right_value": 2},
                    {"type": "Equals", "left_value": 3, "right_value": 3},
                ],
            },
            {"type": "Not", "condition": {"type": "Equals", "left_value": "a", "right_value": "b"}},
        ],
        if_task_ids=["logical_pass"],
        else_task_ids=["logical_fail"],
    )
    ways = {
        check_accuracy: ("deploy_model", "retrain_model"),
        check_bad_accuracy: ("should_not_run", "should_run"),
        check_logical: ("logical_pass", "logical_fail"),
    }
    for check, names in ways.items():
        chain(check, [EmptyOperator(task_id=name) for name in names])
    produce_metrics() >> check_accuracy
    produce_bad_metrics() >> check_bad_accuracy
