"""The gate between a trained model and a registered one, and both registries: SageMaker's and MLflow's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from insurance import jobs
from runtime import experiments
from runtime.sagemaker.registry import register_model
from runtime.settings import WorkflowSettings

METRIC = "auc"
# Of the experiment and the registered model in MLflow.
EXPERIMENT, MODEL = "insurance", "insurance-claims"
PACKAGE_TAG = "model_package_arn"


def judge(report: Mapping[str, Any], *, threshold: float) -> dict[str, Any]:
    """The model's score beside the tariff's; raises AirflowFailException unless it is better, and good enough."""
    value, baseline = report["model"][METRIC], report["baseline"][METRIC]
    if value <= baseline:
        raise AirflowFailException(
            f"the model is no better than the {report['baseline']['name']}: AUC {value:.3f} against {baseline:.3f}"
        )
    if value < threshold:
        raise AirflowFailException(f"the model has an AUC of {value:.3f}, at least {threshold} is asked for")
    return {"metric": METRIC, "value": value, "baseline": baseline}


def register(
    settings: WorkflowSettings, *, name: str, model_uri: str, judged: Mapping[str, Any], context: Any
) -> dict[str, str]:
    """Create the model and an approved model package; returns their names.

    `name` is the training job's: repeating it for the same training makes nothing twice.
    """
    group = settings.insurance.get("model_package_group")
    if group is None:
        raise AirflowFailException("there is no model package group yet; deploy the workflows stack again")
    arn = register_model(
        settings,
        name=name,
        container={
            "Image": settings.training_image,
            "ModelDataUrl": model_uri,
            "Environment": jobs.ENVIRONMENT,
        },
        content_type="text/csv",
        group=group,
        description=f"AUC {judged['value']:.4f}, tariff {judged['baseline']:.4f}",
        scores={"auc": judged["value"], "baseline": judged["baseline"]},
        context=context,
    )
    return {"model_name": name, "model_package_arn": arn, "model_uri": model_uri}


def record(
    *, registered: Mapping[str, str], report: Mapping[str, Any], parameters: Mapping[str, Any], context: Any
) -> dict[str, str | None]:
    """A run and a model version in MLflow, where tracking is on; returns their ids. Repeating it makes nothing twice."""
    tags = {PACKAGE_TAG: registered["model_package_arn"], "model_uri": registered["model_uri"]}
    run_id = experiments.start_run(
        context, experiment=EXPERIMENT, name=registered["model_name"], parameters=parameters
    )
    scores = {
        f"{part}_{name}": value
        for part in ("model", "baseline")
        for name, value in report[part].items()
        if name != "name"
    }
    experiments.record(run_id, metrics={**scores, "policies": report["policies"]}, tags=tags)
    version = experiments.register_model(
        run_id,
        name=MODEL,
        source=registered["model_uri"],
        tags=tags,
        description=f"AUC {report['model'][METRIC]:.4f}, {report['baseline']['name']} {report['baseline'][METRIC]:.4f}",
    )
    experiments.end_run(run_id)
    return {"mlflow_run_id": run_id, "model_version": version}
