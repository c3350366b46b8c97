"""Training job: gradient boosting on the prepared flights, on the GPU when there is one.

Prints `train-auc=…` and `validation-auc=…` after each round, which SageMaker reads as metrics. SIGTERM (a stop or a
spot interruption) ends training after the current round with what has been learned. Where the request has a
`CheckpointConfig`, the next job with the same one goes on from there.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import xgboost as xgb

from ml import contract

DEFAULTS: dict[str, Any] = {"rounds": 60, "max_depth": 6, "eta": 0.15, "subsample": 0.9, "seed": 7}
CHECKPOINT_ROUNDS = 10


class Progress(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Prints metrics, writes checkpoints, and ends training when a stop was asked for."""

    def __init__(self, done_rounds: int) -> None:
        self._done_rounds = done_rounds
        self._stop = threading.Event()
        signal.signal(signal.SIGTERM, self._ask_to_stop)

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: dict[str, Any]) -> bool:
        """True ends the training."""
        number = self._done_rounds + epoch + 1
        values = {name: log["auc"][-1] for name, log in evals_log.items()}
        print(
            f"round={number} " + " ".join(f"{name}-auc={value:.5f}" for name, value in values.items()),
            flush=True,
        )
        if number % CHECKPOINT_ROUNDS == 0 and contract.CHECKPOINTS.is_dir():
            _write_checkpoint(model, number)
        return self._stop.is_set()


def main(_arguments: Sequence[str] = ()) -> None:
    """Train on the channels `train` and `validation`, write `model/model.json`."""
    settings = _settings(contract.hyperparameters())
    train = _matrix(contract.channel("train") / "train.csv")
    validation = _matrix(contract.channel("validation") / "validation.csv")
    checkpoint, done = _newest_checkpoint()
    booster = xgb.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "tree_method": "hist",
            "device": "cuda" if _has_gpu() else "cpu",
            **{name: settings[name] for name in ("max_depth", "eta", "subsample", "seed")},
        },
        train,
        num_boost_round=max(0, settings["rounds"] - done),
        evals=[(train, "train"), (validation, "validation")],
        verbose_eval=False,
        xgb_model=checkpoint,
        callbacks=[Progress(done)],
    )
    contract.MODEL.mkdir(parents=True, exist_ok=True)
    booster.save_model(contract.MODEL / "model.json")
    (contract.MODEL / "settings.json").write_text(json.dumps(settings))


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in given.items() if not name.startswith("_")}
    unknown = sorted(set(known) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown hyper-parameters {', '.join(unknown)}; there are {', '.join(DEFAULTS)}")
    return {name: type(default)(_number(known.get(name, default))) for name, default in DEFAULTS.items()}


def _number(value: Any) -> float:
    return float(str(value).strip('"'))


def _matrix(file: Path) -> xgb.DMatrix:
    data = pd.read_csv(file, header=None)
    return xgb.DMatrix(data.iloc[:, 1:].to_numpy(), label=data.iloc[:, 0].to_numpy())


def _has_gpu() -> bool:
    return bool(xgb.build_info().get("USE_CUDA")) and shutil.which("nvidia-smi") is not None


def _write_checkpoint(model: xgb.Booster, number: int) -> None:
    partial = contract.CHECKPOINTS / ".partial.json"
    model.save_model(partial)
    partial.rename(contract.CHECKPOINTS / f"round-{number:05d}.json")


def _newest_checkpoint() -> tuple[str | None, int]:
    files = sorted(contract.CHECKPOINTS.glob("round-*.json"))
    if not files:
        return None, 0
    done = int(files[-1].stem.partition("-")[2])
    print(f"going on from round {done}", flush=True)
    return str(files[-1]), done
