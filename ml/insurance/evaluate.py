"""Processing job: the model against the tariff, on policies of customers that no training saw.

The tariff is how an insurer ranks risks without a model: the higher the premium, the likelier a claim.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from sklearn.metrics import average_precision_score, roc_auc_score

from ml import contract
from ml.insurance.features import TARIFF
from ml.insurance.train import read_matrix


def main(_arguments: Sequence[str] = ()) -> None:
    """Read `test` and `model` below `processing/input`; write `evaluation/evaluation.json`."""
    source = contract.PROCESSING_INPUT
    policies = read_matrix(source / "test" / "test.csv")
    report = evaluate(load_model(source / "model" / "model.tar.gz"), policies)
    target = contract.PROCESSING_OUTPUT / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    (target / "evaluation.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report), flush=True)


def evaluate(booster: xgb.Booster, policies: xgb.DMatrix) -> dict[str, Any]:
    """AUC, average precision and the share of all claims in the tenth with the highest scores, of model and tariff."""
    claimed = policies.get_label()
    premiums = policies.get_data().toarray()[:, TARIFF]
    return {
        "policies": len(claimed),
        "claim_share": float(claimed.mean()),
        "baseline": {"name": "tariff", **_scores(claimed, premiums)},
        "model": _scores(claimed, booster.predict(policies)),
    }


def _scores(claimed: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    top = np.argsort(-scores, kind="stable")[: max(1, len(scores) // 10)]
    return {
        "auc": float(roc_auc_score(claimed, scores)),
        "average_precision": float(average_precision_score(claimed, scores)),
        "claims_in_top_tenth": float(claimed[top].sum() / claimed.sum()),
    }


def load_model(archive: Path) -> xgb.Booster:
    """The booster inside a SageMaker model artifact."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as files:
        [member] = [item for item in files.getmembers() if Path(item.name) == Path("model.json")]
        content = files.extractfile(member)
        if content is None:
            raise ValueError(f"{archive.name}: model.json is no file")
        file = Path(folder) / "model.json"
        file.write_bytes(content.read())
        booster = xgb.Booster()
        booster.load_model(file)
    return booster
