"""The way of a trained model into SageMaker's registry: the report on it, the model, and the approved version of its group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import boto3

from runtime.lineage.notes import note_model_package
from runtime.sagemaker.models import complete_model, create_model
from runtime.settings import WorkflowSettings, tags

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html: at most 36.
TOKEN_CHARACTERS = 32


def read_evaluation(settings: WorkflowSettings, prefix: str) -> dict[str, Any]:
    """The report that a run's evaluation job wrote."""
    answer = boto3.client("s3").get_object(
        Bucket=settings.data_bucket, Key=f"{prefix}/evaluation/evaluation.json"
    )
    report: dict[str, Any] = json.loads(answer["Body"].read())
    return report


def register_model(
    settings: WorkflowSettings,
    *,
    name: str,
    container: Mapping[str, Any],
    content_type: str,
    group: str,
    description: str,
    scores: Mapping[str, float],
    context: Mapping[str, Any],
) -> str:
    """Create a model and register it as an approved version of a group; returns the version's ARN.

    Repeating it with the same name makes nothing twice.

    :param container: what serves it, as SageMaker's requests have it
    :param content_type: of what the container takes and answers
    """
    model = complete_model({"PrimaryContainer": container}, settings)
    create_model(boto3.client("sagemaker"), name, model, tags(context))
    return register_version(
        name=name,
        group=group,
        description=description,
        scores=scores,
        metadata=origin(context),
        model={
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": [content_type],
                "SupportedResponseMIMETypes": [content_type],
            }
        },
    )


def origin(context: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that lead from a version of a package, which can't be tagged, back to its DAG run."""
    return {"dag_id": context["ti"].dag_id, "run_id": context["ti"].run_id}


def register_version(
    *,
    name: str,
    group: str,
    description: str,
    scores: Mapping[str, float],
    metadata: Mapping[str, str],
    model: Mapping[str, Any],
) -> str:
    """Register an approved version of a group; returns its ARN. Repeating it with the same name makes no second one.

    :param scores: by name; they and `metadata` become the version's properties
    :param model: how it is served (`InferenceSpecification`), or where it lies (`SourceUri`)
    """
    package = boto3.client("sagemaker").create_model_package(
        ModelPackageGroupName=group,
        ModelPackageDescription=description,
        # A name may be longer than a token.
        ClientToken=hashlib.sha256(name.encode()).hexdigest()[:TOKEN_CHARACTERS],
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={
            **{score: f"{value:.6f}" for score, value in scores.items()},
            **metadata,
        },
        **model,
    )
    arn: str = package["ModelPackageArn"]
    note_model_package(arn)
    return arn
