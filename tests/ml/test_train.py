"""The training program under SageMaker's container contract: interrupted as spot is, it loses minutes and no quality."""

import json
import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from ops.bootstrap import ROOT, environment_python

pytestmark = pytest.mark.account
ROUNDS = 60
SECONDS = 120


@pytest.fixture
def ml_root(tmp_path: Path) -> Path:
    """`/opt/ml` with a learnable problem, so slow to learn that an interruption comes in between."""
    chance = random.Random(5)
    for name, count in (("train", 30_000), ("validation", 2_000)):
        folder = tmp_path / "input" / "data" / name
        folder.mkdir(parents=True)
        rows = []
        for _ in range(count):
            values = [chance.gauss(0, 1) for _ in range(10)]
            late = sum(values[:3]) + values[3] * values[4] + chance.gauss(0, 1) > 0
            rows.append(",".join([str(int(late)), *(f"{value:.4f}" for value in values)]))
        (folder / f"{name}.csv").write_text("\n".join(rows))
    (tmp_path / "checkpoints").mkdir()
    config = tmp_path / "input" / "config"
    config.mkdir()
    (config / "hyperparameters.json").write_text(json.dumps({"rounds": str(ROUNDS), "max_depth": "4"}))
    return tmp_path


def _run(ml_root: Path, *, interrupt_after_round: int | None = None) -> list[tuple[int, float]]:
    """One instance's life: every round that it printed, with its AUC on the validation channel."""
    process = subprocess.Popen(
        [environment_python("training"), "-m", "ml.container", "train"],
        cwd=ROOT,
        env=os.environ | {"ML_ROOT": str(ml_root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    rounds: list[tuple[int, float]] = []
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if found := re.match(r"round=(\d+) .*validation-auc=([0-9.]+)", line):
                rounds.append((int(found[1]), float(found[2])))
                if rounds[-1][0] == interrupt_after_round:
                    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    return rounds


def test_twice_interrupted_training_ends_as_good_as_one_that_was_not(ml_root: Path) -> None:
    whole = _run(ml_root)
    for file in (ml_root / "checkpoints").iterdir():
        file.unlink()
    first = _run(ml_root, interrupt_after_round=13)
    second = _run(ml_root, interrupt_after_round=34)
    last = _run(ml_root)
    # Each goes on from the newest checkpoint, a tenth round.
    assert first[0][0] == 1
    assert (second[0][0], last[0][0]) == (11, 31)
    assert whole[-1][0] == last[-1][0] == ROUNDS
    assert first[-1][0] < ROUNDS
    assert second[-1][0] < ROUNDS
    assert last[-1][1] == pytest.approx(whole[-1][1], abs=0.01)
    assert (ml_root / "model" / "model.json").stat().st_size > 0
