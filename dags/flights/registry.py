"""The gate between a trained model and a registered one, and the registration itself."""

from __future__ import annotations

import json
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowFailException

from runtime.lineage.notes import note_model_package
from runtime.sagemaker.models import complete_model, create_model
from runtime.settings import WorkflowSettings, tags


def read_evaluation(settings: WorkflowSettings, prefix: str) -> dict[str, Any]:
    """The report that the evaluation job wrote."""
    answer = boto3.client("s3").get_object(
        Bucket=settings.data_bucket, Key=f"{prefix}/evaluation/evaluation.json"
    )
    report: dict[str, Any] = json.loads(answer["Body"].read())
    return report


def final_metrics(training_job: str) -> dict[str, float]:
    """What a training reported last, such as `validation_auc`."""
    job = boto3.client("sagemaker").describe_training_job(TrainingJobName=training_job)
    return {item["MetricName"].replace(":", "_"): float(item["Value"]) for item in job["FinalMetricDataList"]}


def choose(report: dict[str, Any], *, threshold: float) -> dict[str, Any]:
    """The best candidate; raises AirflowFailException when it is below the threshold or no better than the baseline."""
    name, scores = max(report["candidates"].items(), key=lambda item: item[1]["auc"])
    baseline = report["baseline"]["auc"]
    if scores["auc"] <= baseline:
        raise AirflowFailException(
            f"model '{name}' is no better than the baseline: {scores['auc']:.3f} against {baseline:.3f}"
        )
    if scores["auc"] < threshold:
        raise AirflowFailException(
            f"model '{name}' has an AUC of {scores['auc']:.3f}, at least {threshold} is asked for"
        )
    return {"candidate": name, "metric": "auc", "value": scores["auc"], "baseline": baseline}


def register(
    settings: WorkflowSettings, *, name: str, model_uri: str, chosen: dict[str, Any], context: Any
) -> dict[str, str]:
    """Create the model and an approved model package; returns their names. Repeating it makes nothing twice."""
    client = boto3.client("sagemaker")
    container = {"Image": settings.training_image, "ModelDataUrl": model_uri}
    create_model(client, name, complete_model({"PrimaryContainer": container}, settings), tags(context))
    package = client.create_model_package(
        ModelPackageGroupName=settings.model_package_group,
        ModelPackageDescription=f"AUC {chosen['value']:.4f}, baseline {chosen['baseline']:.4f}",
        ClientToken=name,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={
            "auc": f"{chosen['value']:.6f}",
            "baseline": f"{chosen['baseline']:.6f}",
            # A version of a package can't be tagged: this is its way back to the DAG run.
            "dag_id": context["ti"].dag_id,
            "run_id": context["ti"].run_id,
        },
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )
    arn = package["ModelPackageArn"]
    note_model_package(arn)
    return {"model_name": name, "model_package_arn": arn}
