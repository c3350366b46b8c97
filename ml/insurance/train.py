"""Training job: gradient boosting on the features of policies, ended by the validation policies.

Prints `train-auc=…` and `validation-auc=…` after each round, which SageMaker reads as metrics. It takes seconds, so
there are no checkpoints: a stop ends it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xgboost as xgb

from ml import contract
from ml.insurance import features

DEFAULTS: dict[str, Any] = {"rounds": 300, "max_depth": 3, "eta": 0.05, "seed": 7}
# Trees of few policies would learn single drivers by heart.
LEAST_CHILD_WEIGHT = 8
PATIENCE_ROUNDS = 30


class Metrics(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Prints the metrics of each round."""

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: dict[str, Any]) -> bool:
        """False: training goes on."""
        del model
        values = " ".join(f"{name}-auc={log['auc'][-1]:.5f}" for name, log in evals_log.items())
        print(f"round={epoch + 1} {values}", flush=True)
        return False


def main(_arguments: Sequence[str] = ()) -> None:
    """Train on the channels `train` and `validation`, write `model/model.json`."""
    settings = read_settings(contract.hyperparameters())
    train = read_matrix(contract.channel("train") / "train.csv")
    validation = read_matrix(contract.channel("validation") / "validation.csv")
    booster = xgb.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "tree_method": "hist",
            "subsample": 0.8,
            "colsample_bytree": 0.7,
            "min_child_weight": LEAST_CHILD_WEIGHT,
            **{name: settings[name] for name in ("max_depth", "eta", "seed")},
        },
        train,
        num_boost_round=settings["rounds"],
        evals=[(train, "train"), (validation, "validation")],
        verbose_eval=False,
        early_stopping_rounds=PATIENCE_ROUNDS,
        callbacks=[Metrics()],
    )
    contract.MODEL.mkdir(parents=True, exist_ok=True)
    booster[: booster.best_iteration + 1].save_model(contract.MODEL / "model.json")
    (contract.MODEL / "settings.json").write_text(
        json.dumps({**settings, "rounds_kept": booster.best_iteration + 1, "features": features.FEATURES})
    )


def read_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Every hyper-parameter as a number; raises ValueError naming those that there are none of."""
    known = {name: value for name, value in given.items() if not name.startswith("_")}
    unknown = sorted(set(known) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown hyper-parameters {', '.join(unknown)}; there are {', '.join(DEFAULTS)}")
    return {
        name: type(default)(float(str(known.get(name, default)).strip('"')))
        for name, default in DEFAULTS.items()
    }


def read_matrix(file: Path) -> xgb.DMatrix:
    """Rows of a label and FEATURES; raises ValueError for others."""
    data = pd.read_csv(file, header=None)
    if data.shape[1] != 1 + len(features.FEATURES):
        raise ValueError(f"{file.name}: {data.shape[1]} columns came, a row has {1 + len(features.FEATURES)}")
    return xgb.DMatrix(data.iloc[:, 1:].to_numpy(), label=data.iloc[:, 0].to_numpy())
