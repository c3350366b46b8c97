"""Processing job: the trained model against the baseline, on pictures that no training saw.

The model is the very file that the application will serve. The baseline is a logistic regression on the pixels: what
it reaches needs no deep network.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from sklearn.linear_model import LogisticRegression

from ml import contract
from ml.pets import transform
from ml.pets.pictures import LABELS, Array, as_input

MODEL, DESCRIPTION = "model.onnx", "model.json"
BATCH = 64
# Of the baseline: regularisation as in ridge regression on thousands of pixels, and a bound on its time.
BASELINE = {"C": 1e-3, "max_iter": 200}


def main(_arguments: Sequence[str] = ()) -> None:
    """Read `model`, `train` and `heldout` below `processing/input`; write `evaluation/evaluation.json`."""
    source = contract.PROCESSING_INPUT
    pictures, labels, names = transform.load(source / "heldout")
    probabilities = predict(source / "model" / "model.tar.gz", pictures)
    right = probabilities.argmax(-1) == labels
    sure = int((probabilities.max(-1) * right).argmax())
    report: dict[str, Any] = {
        "pictures": len(labels),
        "accuracy": float(right.mean()),
        "accuracy_by_label": {
            label: float(right[labels == number].mean()) for number, label in enumerate(LABELS)
        },
        "baseline": {"accuracy": baseline(source / "train", pictures, labels)},
        # What a deployment is tried with, before anybody else uses it.
        "example": {
            "name": names[sure],
            "label": LABELS[int(labels[sure])],
            "probability": float(probabilities[sure].max()),
        },
    }
    target = contract.PROCESSING_OUTPUT / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    (target / "evaluation.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report), flush=True)


def predict(archive: Path, pictures: Array) -> Array:
    """A probability for each picture and label, by the model in a SageMaker artifact."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / MODEL
        with tarfile.open(archive) as files:
            member = files.extractfile(MODEL)
            assert member is not None, f"the training writes {MODEL}"
            model.write_bytes(member.read())
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = [
        session.run(["probabilities"], {"pictures": as_input(pictures[start : start + BATCH])})[0]
        for start in range(0, len(pictures), BATCH)
    ]
    found: Array = np.concatenate(batches)
    return found


def baseline(train: Path, pictures: Array, labels: Array) -> float:
    """The accuracy of a logistic regression on the pixels."""
    known, known_labels, _ = transform.load(train)
    model = LogisticRegression(**BASELINE).fit(as_input(known).reshape(len(known), -1), known_labels)
    return float(model.score(as_input(pictures).reshape(len(pictures), -1), labels))
