"""Processing job: raw splits, weather and planes in, matrices of features out (label first, no header)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from ml import contract
from ml.flights import features

SPLITS = ("train", "validation", "test")


def main(_arguments: Sequence[str] = ()) -> None:
    """Read `processing/input`, write one folder for each split below `processing/output`."""
    source, target = contract.PROCESSING_INPUT, contract.PROCESSING_OUTPUT
    raw = {split: pd.read_csv(source / f"{split}.csv") for split in SPLITS}
    weather, planes = pd.read_csv(source / "weather.csv"), pd.read_csv(source / "planes.csv")
    known = raw["train"]
    rates = {by: features.late_rates(known, by).to_dict() for by in ("carrier", "dest")}
    rates["overall"] = {"rate": float(features.label(known).mean())}
    for split, flights in raw.items():
        matrix = features.build(flights, weather, planes, rates)
        matrix.insert(0, features.LABEL, features.label(flights).to_numpy())
        folder = target / split
        folder.mkdir(parents=True, exist_ok=True)
        matrix.to_csv(folder / f"{split}.csv", index=False, header=False)
        print(f"{split}: {len(matrix)} flights, {matrix[features.LABEL].mean():.3f} late", flush=True)
    unlabelled = target / "batch"
    unlabelled.mkdir(parents=True, exist_ok=True)
    matrix.drop(columns=features.LABEL).to_csv(unlabelled / "batch.csv", index=False, header=False)
    (target / "train" / "features.json").write_text(json.dumps(list(features.FEATURES)))
