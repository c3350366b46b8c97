"""The SageMaker requests of the insurance workflow. Name, tags and limits are added by the operator."""

from __future__ import annotations

from typing import Any

from runtime.settings import WorkflowSettings

Request = dict[str, Any]
VOLUME_GIB = 20
INPUT, OUTPUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
# Tells the training image which problem's programs to run (ml/container.py).
ENVIRONMENT = {"ML_PROBLEM": "insurance"}
METRICS = [
    {"Name": "train:auc", "Regex": r"train-auc=([0-9.]+)"},
    {"Name": "validation:auc", "Regex": r"validation-auc=([0-9.]+)"},
]


def train(settings: WorkflowSettings, *, prefix: str, hyperparameters: Request) -> Request:
    """Training on the CPU type of the environment's tunings: a table of this size would leave a GPU idle."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return {
        "AlgorithmSpecification": {
            "TrainingImage": settings.training_image,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRICS,
        },
        "RoleArn": settings.role_arn,
        "HyperParameters": {name: str(value) for name, value in hyperparameters.items()},
        "Environment": ENVIRONMENT,
        "InputDataConfig": [
            {
                "ChannelName": channel,
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"{root}/matrices/{channel}/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
            for channel in ("train", "validation")
        ],
        "OutputDataConfig": {"S3OutputPath": f"{root}/models"},
        "ResourceConfig": {
            "InstanceType": settings.instance_types["tuning"],
            "InstanceCount": 1,
            "VolumeSizeInGB": VOLUME_GIB,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
    }


def evaluate(settings: WorkflowSettings, *, prefix: str, model_uri: str) -> Request:
    """Processing: the model's artifact against the tariff on the test policies."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    inputs = {"test": f"{root}/matrices/test/", "model": model_uri}
    return {
        "RoleArn": settings.role_arn,
        "AppSpecification": {
            "ImageUri": settings.training_image,
            "ContainerEntrypoint": ["python", "-m", "ml.container", "evaluate"],
        },
        "Environment": ENVIRONMENT,
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": settings.instance_types["processing"],
                "InstanceCount": 1,
                "VolumeSizeInGB": VOLUME_GIB,
            }
        },
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"{INPUT}/{name}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                },
            }
            for name, uri in inputs.items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "evaluation",
                    "S3Output": {
                        "S3Uri": f"{root}/evaluation",
                        "LocalPath": f"{OUTPUT}/evaluation",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
    }


def score(settings: WorkflowSettings, *, prefix: str, model_name: str) -> Request:
    """Batch transform of the policies as they are now."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return {
        "ModelName": model_name,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{root}/matrices/current/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"{root}/scores", "AssembleWith": "Line", "Accept": "text/csv"},
        "TransformResources": {"InstanceType": settings.instance_types["transform"], "InstanceCount": 1},
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": 6,
    }
