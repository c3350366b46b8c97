"""A classifier by the nearest neighbours under SageMaker's container contract: `train` or `serve`.

Channels hold CSV without a header, the class first; a channel `test` is scored. Requests hold the features alone.
"""

import csv
import http.server
import json
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(os.environ["ML_ROOT"])
MODEL = ROOT / "model" / "model.json"
Row = list[float]


def train() -> None:
    parameters = json.loads((ROOT / "input" / "config" / "hyperparameters.json").read_text())
    if "fail" in parameters:
        sys.exit(parameters["fail"])
    rows = _channel("train")[: int(parameters["sample_size"])]
    k = min(int(parameters["k"]), len(rows))
    MODEL.write_text(json.dumps({"k": k, "rows": rows}))
    print(f"{os.environ['TRAINING_JOB_NAME']} keeps {len(rows)} rows", flush=True)
    wait_for(parameters.get("until"))
    test = _channel("test")
    if test:
        right = sum(classify(k, rows, row[1:]) == row[0] for row in test)
        print(f"test:accuracy={right / len(test):.4f}", flush=True)


def wait_for(file: str | None) -> None:
    """Be at work until a file is there, named from the root: so a test finds the job where it wants it."""
    while file and not Path("/", file).exists():
        time.sleep(0.05)


def _channel(name: str) -> list[Row]:
    files = sorted((ROOT / "input" / "data" / name).glob("*.csv"))
    return [[float(value) for value in row] for file in files for row in csv.reader(file.open())]


def classify(k: int, rows: list[Row], features: Row) -> float:
    nearest = sorted(rows, key=lambda row: math.dist(row[1:], features))[:k]
    return Counter(row[0] for row in nearest).most_common(1)[0][0]


def serve() -> None:
    model = json.loads(MODEL.read_text())
    wait_for(os.environ.get("UNTIL"))
    print(f"serves {len(model['rows'])} rows", flush=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ping" else 404)
            self.end_headers()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            rows = [[float(value) for value in row] for row in csv.reader(text.splitlines())]
            labels = [{"predicted_label": classify(model["k"], model["rows"], row)} for row in rows]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"predictions": labels}).encode() + b"\n")

        def log_message(self, *_: object) -> None:
            pass

    address = (os.environ["ML_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.HTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    {"train": train, "serve": serve}[sys.argv[1]]()
