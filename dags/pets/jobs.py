"""The SageMaker requests of the pet detection. Name, tags and limits are added by the operator."""

from __future__ import annotations

from typing import Any

from pets.settings import pets_settings
from runtime.sagemaker import forms
from runtime.sagemaker.forms import INPUT, OUTPUT
from runtime.settings import WorkflowSettings

Request = dict[str, Any]
VOLUME_GIB = 30
# Of one training, wherever its environment allows more.
TRAINING_SECONDS = 3600
METRICS = [
    {"Name": "train:loss", "Regex": r"train-loss=([0-9.]+)"},
    {"Name": "validation:accuracy", "Regex": r"validation-accuracy=([0-9.]+)"},
]


def fetch(
    settings: WorkflowSettings, *, prefix: str, source: str, pictures: int | str, seed: int | str
) -> Request:
    """Processing: the source's pictures in the Oxford layout; drawn ones where there is no source."""
    return _processing(
        settings,
        program=[
            "fetch",
            *("--pictures", str(pictures), "--seed", str(seed)),
            *(["--url", source] if source.startswith("https://") else []),
        ],
        inputs={"source": (source, f"{INPUT}/source")} if source.startswith("s3://") else {},
        outputs={"pets": (f"{_root(settings, prefix)}/raw", f"{OUTPUT}/pets")},
    )


def transform(settings: WorkflowSettings, *, prefix: str, size: int | str) -> Request:
    """Processing: checked, cropped and scaled pictures, split into three."""
    root = _root(settings, prefix)
    return _processing(
        settings,
        program=["transform", "--size", str(size)],
        inputs={"pets": (f"{root}/raw/", f"{INPUT}/pets")},
        outputs={
            split: (f"{root}/prepared/{split}", f"{OUTPUT}/{split}")
            for split in ("train", "validation", "heldout")
        },
    )


def train(
    settings: WorkflowSettings, *, prefix: str, wait_seconds: int | str, hyperparameters: Request
) -> Request:
    """Training on a GPU instance; on spot it waits so long for one, interruptions included, and no longer."""
    pets, root = pets_settings(), _root(settings, prefix)
    longest = min(TRAINING_SECONDS, settings.max_runtime_seconds)
    return {
        **forms.training(
            settings,
            image=pets.training_image,
            instance_type=pets.instance_type,
            volume_gib=VOLUME_GIB,
            metrics=METRICS,
            inputs=f"{root}/prepared",
            models=f"{root}/models",
        ),
        "HyperParameters": {name: str(value) for name, value in hyperparameters.items() if value != ""},
        "CheckpointConfig": {"S3Uri": f"{root}/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        "StoppingCondition": {
            "MaxRuntimeInSeconds": longest,
            "MaxWaitTimeInSeconds": longest + int(wait_seconds),
        },
    }


def validate(settings: WorkflowSettings, *, prefix: str, model_uri: str) -> Request:
    """Processing: the model and the baseline on the held-out pictures."""
    root = _root(settings, prefix)
    inputs = {part: (f"{root}/prepared/{part}/", f"{INPUT}/{part}") for part in ("train", "heldout")}
    return _processing(
        settings,
        program=["validate"],
        inputs=inputs | {"model": (model_uri, f"{INPUT}/model")},
        outputs={"evaluation": (f"{root}/evaluation", f"{OUTPUT}/evaluation")},
    )


def _root(settings: WorkflowSettings, prefix: str) -> str:
    return f"s3://{settings.data_bucket}/{prefix}"


def _processing(
    settings: WorkflowSettings,
    *,
    program: list[str],
    inputs: dict[str, tuple[str, str]],
    outputs: dict[str, tuple[str, str]],
) -> Request:
    return forms.processing(
        settings,
        image=pets_settings().training_image,
        entrypoint=["python", "-m", "ml.pets.container", *program],
        volume_gib=VOLUME_GIB,
        inputs=inputs,
        outputs=outputs,
    )
