"""The SageMaker requests of the insurance workflow. Name, tags and limits are added by the operator."""

from __future__ import annotations

from typing import Any

from runtime.sagemaker import forms
from runtime.sagemaker.forms import INPUT, OUTPUT
from runtime.settings import WorkflowSettings

Request = dict[str, Any]
VOLUME_GIB = 20
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
        **forms.training(
            settings,
            image=settings.training_image,
            instance_type=settings.instance_types["tuning"],
            volume_gib=VOLUME_GIB,
            metrics=METRICS,
            inputs=f"{root}/matrices",
            models=f"{root}/models",
        ),
        "HyperParameters": {name: str(value) for name, value in hyperparameters.items()},
        "Environment": ENVIRONMENT,
    }


def evaluate(settings: WorkflowSettings, *, prefix: str, model_uri: str) -> Request:
    """Processing: the model's artifact against the tariff on the test policies."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return {
        **forms.processing(
            settings,
            image=settings.training_image,
            entrypoint=["python", "-m", "ml.container", "evaluate"],
            volume_gib=VOLUME_GIB,
            inputs={
                "test": (f"{root}/matrices/test/", f"{INPUT}/test"),
                "model": (model_uri, f"{INPUT}/model"),
            },
            outputs={"evaluation": (f"{root}/evaluation", f"{OUTPUT}/evaluation")},
        ),
        "Environment": ENVIRONMENT,
    }


def score(settings: WorkflowSettings, *, prefix: str, model_name: str) -> Request:
    """Batch transform of the policies as they are now."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return forms.csv_transform(
        settings, model_name=model_name, rows=f"{root}/matrices/current/", predictions=f"{root}/scores"
    )
