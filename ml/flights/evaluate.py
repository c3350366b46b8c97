"""Processing job: candidates against the baseline on flights that no training saw.

The baseline is what an airline's desk knows without a model: how often flights of that hour were late so far.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xgboost as xgb
from sklearn.metrics import average_precision_score, roc_auc_score

from ml import contract
from ml.flights import features

HOUR = 1 + features.FEATURES.index("scheduled_hour")


def main(_arguments: Sequence[str] = ()) -> None:
    """Read `train`, `test` and each `model-*` below `processing/input`; write `evaluation/evaluation.json`."""
    source = contract.PROCESSING_INPUT
    train = pd.read_csv(source / "train" / "train.csv", header=None)
    test = pd.read_csv(source / "test" / "test.csv", header=None)
    late, rows = test.iloc[:, 0], test.iloc[:, 1:]
    hourly = train.groupby(HOUR)[0].mean()
    guess = test[HOUR].map(hourly).fillna(train[0].mean())
    report: dict[str, Any] = {
        "flights": len(test),
        "late_share": float(late.mean()),
        "baseline": {"auc": float(roc_auc_score(late, guess))},
        "candidates": {},
    }
    for folder in sorted(source.glob("model-*")):
        scores = load_model(folder / "model.tar.gz").predict(xgb.DMatrix(rows.to_numpy()))
        report["candidates"][folder.name.removeprefix("model-")] = {
            "auc": float(roc_auc_score(late, scores)),
            "average_precision": float(average_precision_score(late, scores)),
        }
    target = contract.PROCESSING_OUTPUT / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    (target / "evaluation.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report), flush=True)


def load_model(archive: Path) -> xgb.Booster:
    """The booster inside a SageMaker model artifact."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as files:
            _extract(files, Path(folder))
        booster = xgb.Booster()
        booster.load_model(Path(folder) / "model.json")
    return booster


def _extract(files: tarfile.TarFile, folder: Path) -> None:
    """Unpack without leaving the folder; the `data` filter came with Python 3.11.4."""
    if hasattr(tarfile, "data_filter"):
        files.extractall(folder, filter="data")
        return
    for member in files.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not (member.isfile() or member.isdir()) or not inside:
            raise ValueError(f"{member.name} is no plain file inside the archive")
    files.extractall(folder)
