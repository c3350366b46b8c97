"""The gate between a trained model and a registered one, and the registration itself."""

from __future__ import annotations

from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowFailException

from runtime.sagemaker.registry import register_model
from runtime.settings import WorkflowSettings


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
    """Create the model and an approved model package; returns their names.

    `name` is that of the job that made it: repeating it for the same one makes nothing twice.
    """
    arn = register_model(
        settings,
        name=name,
        container={"Image": settings.training_image, "ModelDataUrl": model_uri},
        content_type="text/csv",
        group=settings.model_package_group,
        description=f"AUC {chosen['value']:.4f}, baseline {chosen['baseline']:.4f}",
        scores={"auc": chosen["value"], "baseline": chosen["baseline"]},
        context=context,
    )
    return {"model_name": name, "model_package_arn": arn}
