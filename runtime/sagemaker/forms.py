"""Requests in the form that most jobs have; a workflow adds what is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.settings import WorkflowSettings

INPUT, OUTPUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
CHANNELS = ("train", "validation")


def training(
    settings: WorkflowSettings,
    *,
    image: str,
    instance_type: str,
    volume_gib: int,
    metrics: Sequence[Mapping[str, str]],
    inputs: str,
    models: str,
) -> dict[str, Any]:
    """A training on one instance: a folder of `inputs` (an S3 URI) for each of CHANNELS, its model to `models`."""
    return {
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": list(metrics),
        },
        "RoleArn": settings.role_arn,
        "InputDataConfig": [
            {
                "ChannelName": channel,
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"{inputs}/{channel}/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
            for channel in CHANNELS
        ],
        "OutputDataConfig": {"S3OutputPath": models},
        "ResourceConfig": {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": volume_gib},
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
    }


def processing(
    settings: WorkflowSettings,
    *,
    image: str,
    entrypoint: Sequence[str],
    volume_gib: int,
    inputs: Mapping[str, tuple[str, str]],
    outputs: Mapping[str, tuple[str, str]],
) -> dict[str, Any]:
    """A processing job on one instance; inputs and outputs by name, each an S3 URI and a path in the container."""
    return {
        "RoleArn": settings.role_arn,
        "AppSpecification": {"ImageUri": image, "ContainerEntrypoint": list(entrypoint)},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": settings.instance_types["processing"],
                "InstanceCount": 1,
                "VolumeSizeInGB": volume_gib,
            }
        },
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": path,
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                },
            }
            for name, (uri, path) in inputs.items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": name,
                    "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": "EndOfJob"},
                }
                for name, (uri, path) in outputs.items()
            ]
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
    }


def csv_transform(
    settings: WorkflowSettings, *, model_name: str, rows: str, predictions: str
) -> dict[str, Any]:
    """A batch transform of the CSV lines below `rows` (S3 URIs), line for line to `predictions`."""
    return {
        "ModelName": model_name,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": rows}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": predictions, "AssembleWith": "Line", "Accept": "text/csv"},
        "TransformResources": {"InstanceType": settings.instance_types["transform"], "InstanceCount": 1},
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": 6,
    }
