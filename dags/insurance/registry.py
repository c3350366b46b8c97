"""The gate between a trained model and a registered one, and both registries: SageMaker's and MLflow's."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowFailException

from insurance import jobs
from runtime.sagemaker.requests import vpc_config
from runtime.settings import WorkflowSettings, tags

METRIC = "auc"
# Of the experiment and the registered model in MLflow.
EXPERIMENT, MODEL = "insurance", "insurance-claims"
ALIAS = "newest"
PACKAGE_TAG = "updraft.model_package_arn"
log = logging.getLogger(__name__)


def read_evaluation(settings: WorkflowSettings, prefix: str) -> dict[str, Any]:
    """The report that the evaluation job wrote."""
    answer = boto3.client("s3").get_object(
        Bucket=settings.data_bucket, Key=f"{prefix}/evaluation/evaluation.json"
    )
    report: dict[str, Any] = json.loads(answer["Body"].read())
    return report


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
    client = boto3.client("sagemaker")
    container = {
        "Image": settings.training_image,
        "ModelDataUrl": model_uri,
        "Environment": jobs.ENVIRONMENT,
    }
    try:
        client.create_model(
            ModelName=name,
            PrimaryContainer=container,
            ExecutionRoleArn=settings.role_arn,
            VpcConfig=vpc_config(settings),
            Tags=tags(context),
        )
    except client.exceptions.ClientError as error:
        if "already existing" not in str(error):
            raise
    package = client.create_model_package(
        ModelPackageGroupName=group,
        ModelPackageDescription=f"AUC {judged['value']:.4f}, tariff {judged['baseline']:.4f}",
        ClientToken=name,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={
            "auc": f"{judged['value']:.6f}",
            "baseline": f"{judged['baseline']:.6f}",
        },
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )
    return {"model_name": name, "model_package_arn": package["ModelPackageArn"], "model_uri": model_uri}


def record(
    *,
    registered: Mapping[str, str],
    report: Mapping[str, Any],
    parameters: Mapping[str, Any],
    run: Mapping[str, str],
) -> dict[str, str] | None:
    """A run and a model version in MLflow, where tracking is on; `run` has `dag_id` and `run_id`.

    Returns the ids of both. Repeating it makes nothing twice.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        log.info("not recorded: this environment has no tracking server")
        return None
    import mlflow

    client = mlflow.MlflowClient()
    arn = registered["model_package_arn"]
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    known = client.search_runs([experiment_id], f"tags.`{PACKAGE_TAG}` = '{arn}'", max_results=1)
    if known:
        mlflow_run = known[0]
    else:
        names = {PACKAGE_TAG: arn, "updraft.dag": run["dag_id"], "updraft.run": run["run_id"]}
        mlflow_run = client.create_run(experiment_id, run_name=registered["model_name"], tags=names)
    run_id = mlflow_run.info.run_id
    for name, value in parameters.items():
        client.log_param(run_id, name, value)
    for part in ("model", "baseline"):
        for name, value in report[part].items():
            if name != "name":
                client.log_metric(run_id, f"{part}_{name}", value)
    client.log_dict(run_id, dict(report), "evaluation.json")
    client.set_terminated(run_id)
    return {"run_id": run_id, "model_version": _model_version(client, registered, run_id)}


def _model_version(client: Any, registered: Mapping[str, str], run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="Will a motor policy have a claim within a year?")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{MODEL}'"):
        if version.run_id == run_id:
            return str(version.version)
    arn = registered["model_package_arn"]
    made = client.create_model_version(
        MODEL, source=registered["model_uri"], run_id=run_id, tags={PACKAGE_TAG: arn}
    )
    client.set_registered_model_alias(MODEL, ALIAS, made.version)
    return str(made.version)
