"""Where SageMaker puts things in a container.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("ML_ROOT", "/opt/ml"))
MODEL = ROOT / "model"
OUTPUT = ROOT / "output"
CHECKPOINTS = ROOT / "checkpoints"
PROCESSING_INPUT = ROOT / "processing" / "input"
PROCESSING_OUTPUT = ROOT / "processing" / "output"
# Written into the image's environment: inside a container every address means the container's own.
HOST = os.environ.get("ML_HOST", "127.0.0.1")
PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))


def channel(name: str) -> Path:
    """The folder of an input channel."""
    return ROOT / "input" / "data" / name


def hyperparameters() -> dict[str, Any]:
    """The job's hyper-parameters; SageMaker hands every value over as text."""
    file = ROOT / "input" / "config" / "hyperparameters.json"
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def write_failure(reason: str) -> None:
    """What SageMaker shows as the job's FailureReason (its first 1,024 characters)."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "failure").write_text(reason[:1024])
