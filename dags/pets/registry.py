"""The gate between a trained model and a registered one, and the registration itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import boto3
from airflow.sdk.exceptions import AirflowFailException

from pets.settings import PetsSettings
from runtime.lineage.notes import note_model_package
from runtime.settings import WorkflowSettings

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html: at most 36.
TOKEN_CHARACTERS = 32


def read_evaluation(settings: WorkflowSettings, prefix: str) -> dict[str, Any]:
    """The report that the validation job wrote."""
    answer = boto3.client("s3").get_object(
        Bucket=settings.data_bucket, Key=f"{prefix}/evaluation/evaluation.json"
    )
    report: dict[str, Any] = json.loads(answer["Body"].read())
    return report


def accept(report: Mapping[str, Any], *, threshold: float) -> dict[str, Any]:
    """The report of a model that is good enough; raises AirflowFailException for one that isn't."""
    accuracy, baseline = report["accuracy"], report["baseline"]["accuracy"]
    told = f"{accuracy:.3f} of {report['pictures']} held-out pictures are told right"
    if accuracy <= baseline:
        raise AirflowFailException(f"{told}, no more than the baseline's {baseline:.3f}")
    if accuracy < threshold:
        raise AirflowFailException(f"{told}, at least {threshold} are asked for")
    return dict(report)


def register(pets: PetsSettings, *, name: str, model_uri: str, report: Mapping[str, Any]) -> dict[str, str]:
    """Register the model as an approved version; repeating it makes no second one."""
    package = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=pets.model_package_group,
        ModelPackageDescription=(
            f"accuracy {report['accuracy']:.4f}, baseline {report['baseline']['accuracy']:.4f}"
        ),
        ClientToken=hashlib.sha256(name.encode()).hexdigest()[:TOKEN_CHARACTERS],
        ModelApprovalStatus="Approved",
        # It is served by the application's image and by no endpoint, so there is no inference container to name.
        SourceUri=model_uri,
        CustomerMetadataProperties={
            "accuracy": f"{report['accuracy']:.6f}",
            "baseline": f"{report['baseline']['accuracy']:.6f}",
            "model_uri": model_uri,
        },
    )
    note_model_package(package["ModelPackageArn"])
    return {"model_package_arn": package["ModelPackageArn"]}
