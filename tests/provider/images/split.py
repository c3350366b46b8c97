"""A processing job's program: splits `input.csv` into rows to learn from and, without their class, rows to answer."""

import csv
import json
import os
import random
import time
from pathlib import Path

ROOT = Path(os.environ["ML_ROOT"]) / "processing"
LEARN_SHARE = 0.7

if __name__ == "__main__":
    with (ROOT / "input" / "input.csv").open() as file:
        rows = list(csv.DictReader(file))
    random.Random(7).shuffle(rows)
    count = int(len(rows) * LEARN_SHARE)
    parts = {
        "train.csv": [list(row.values()) for row in rows[:count]],
        "test.csv": [[row["x"], row["y"]] for row in rows[count:]],
    }
    for name, part in parts.items():
        with (ROOT / "output" / name).open("w", newline="") as file:
            csv.writer(file).writerows(part)
    summary = {"train": count, "test": len(rows) - count}
    (ROOT / "output" / "summary.json").write_text(json.dumps(summary))
    print("split", summary, flush=True)
    # Named from the root; so a test finds the job at work for as long as it wants.
    while "UNTIL" in os.environ and not Path("/", os.environ["UNTIL"]).exists():
        time.sleep(0.05)
