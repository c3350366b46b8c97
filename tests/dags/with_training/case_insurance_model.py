"""The programs of the insurance jobs under SageMaker's container contract, on a made-up book of policies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from ml.insurance import features

PROGRAM = [sys.executable, "-m", "ml.container"]
WIDTH = len(features.FEATURES)
PREMIUM, CLAIMS = features.TARIFF, features.FEATURES.index("past_claims")


def policies(count: int, *, learnable: bool = True) -> np.ndarray:
    """Rows of a label and features; a claim hangs on past claims, and a little on the premium."""
    random = np.random.default_rng(3)
    rows = random.random((count, WIDTH))
    rows[:, CLAIMS] = random.poisson(0.5, count)
    rows[:, PREMIUM] = 400 * (1 + 0.2 * rows[:, CLAIMS] + random.random(count))
    chance = 0.05 + 0.2 * np.minimum(rows[:, CLAIMS], 3) if learnable else np.full(count, 0.2)
    return np.column_stack([(random.random(count) < chance).astype(int), rows])


class Programs(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="updraft-ml-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def write(self, path: str, rows: np.ndarray) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(file, rows, delimiter=",", fmt="%.6g")

    def environment(self, **variables: str) -> dict[str, str]:
        return os.environ | {"ML_ROOT": str(self.root), "ML_PROBLEM": "insurance"} | variables

    def run_program(self, *arguments: str, **variables: str) -> Any:
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def trained(self, rows: np.ndarray, **hyperparameters: object) -> Any:
        for channel, part in (("train", rows[:3000]), ("validation", rows[3000:4000])):
            self.write(f"input/data/{channel}/{channel}.csv", part)
        config = self.root / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
        return self.run_program("train")

    def evaluated(self, rows: np.ndarray) -> dict[str, Any]:
        self.write("processing/input/test/test.csv", rows)
        (self.root / "processing/input/model").mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.root / "processing/input/model/model.tar.gz", "w:gz") as archive:
            for file in (self.root / "model").iterdir():
                archive.add(file, file.name)
        ran = self.run_program("evaluate")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        report = self.root / "processing/output/evaluation/evaluation.json"
        return dict(json.loads(report.read_text()))

    def test_model_beats_the_tariff_where_there_is_something_to_learn(self) -> None:
        rows = policies(6000)
        ran = self.trained(rows, rounds="60", max_depth="3", eta="0.1")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stdout, r"round=1 train-auc=0\.\d+ validation-auc=0\.\d+")
        report = self.evaluated(rows[4000:])
        self.assertEqual(report["policies"], 2000)
        self.assertGreater(report["model"]["auc"], report["baseline"]["auc"] + 0.03)
        self.assertGreater(report["model"]["claims_in_top_tenth"], 0.15)

    def test_where_there_is_nothing_to_learn_the_report_says_so(self) -> None:
        rows = policies(6000, learnable=False)
        self.assertEqual(self.trained(rows, rounds="30").returncode, 0)
        self.assertLess(abs(self.evaluated(rows[4000:])["model"]["auc"] - 0.5), 0.06)

    def test_wrong_hyperparameters_and_matrices_fail_with_their_reason(self) -> None:
        ran = self.trained(policies(4000), depth="3")
        self.assertEqual(ran.returncode, 1)
        failure = self.root / "output" / "failure"
        self.assertIn("unknown hyper-parameters depth; there are rounds", failure.read_text())
        self.assertEqual(self.trained(policies(4000)[:, :-1]).returncode, 1)
        self.assertIn(f"train.csv: {WIDTH} columns came, a row has {WIDTH + 1}", failure.read_text())

    def test_unknown_problem_or_program_is_refused(self) -> None:
        for variables, program, told in (
            ({"ML_PROBLEM": "typo"}, "train", "ML_PROBLEM: 'typo' is not one of flights, insurance"),
            ({}, "prepare", "usage: python -m ml.container train|serve|evaluate"),
        ):
            ran = self.run_program(program, **variables)
            self.assertEqual(ran.returncode, 2)
            self.assertIn(told, ran.stderr)

    def test_model_is_served_row_by_row(self) -> None:
        self.assertEqual(self.trained(policies(4000), rounds="20").returncode, 0)
        import socket

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [*PROGRAM, "serve"], env=self.environment(SAGEMAKER_BIND_TO_PORT=str(port), ML_HOST="127.0.0.1")
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=1).close()
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline, "the server does not answer")
                time.sleep(0.1)
        few = ",".join(["0"] * WIDTH)
        often = few.split(",")
        often[CLAIMS] = "3"
        body = f"{few}\n{','.join(often)}\n".encode()
        request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "text/csv"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            low, high = (float(line) for line in answer.read().split())
        self.assertLess(low, high)
        wrong = urllib.request.Request(f"{url}/invocations", b"1,2\n", {"Content-Type": "text/csv"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong, timeout=10)
        self.addCleanup(refused.exception.close)
        self.assertEqual(refused.exception.code, 400)
        self.assertIn(b"2 columns came", refused.exception.read())


if __name__ == "__main__":
    unittest.main()
