"""SageMaker's inference contract over a booster: `/ping`, and `/invocations` with CSV rows of features in and one
probability a line out.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import xgboost as xgb

from ml import contract

LONGEST_BODY_BYTES = 64 * 2**20


def serve(features: Sequence[str]) -> None:
    """Serve the model in `model/model.json` until SIGTERM. SageMaker's proxy is the only client."""
    booster = xgb.Booster()
    booster.load_model(contract.MODEL / "model.json")
    server = ThreadingHTTPServer((contract.HOST, contract.PORT), handler_for(booster, features))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()


def predict(booster: xgb.Booster, features: Sequence[str], body: str) -> str:
    """One probability a line; raises ValueError for rows that are not the model's."""
    rows = pd.read_csv(io.StringIO(body), header=None)
    if rows.shape[1] != len(features):
        raise ValueError(f"{rows.shape[1]} columns came, a row has {len(features)}: {', '.join(features)}")
    return "".join(f"{score:.6f}\n" for score in booster.predict(xgb.DMatrix(rows.to_numpy())))


def handler_for(booster: xgb.Booster, features: Sequence[str]) -> type[BaseHTTPRequestHandler]:
    """A request handler around one model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path == "/ping" else 404, "")

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if self.path != "/invocations":
                return self._answer(404, "")
            if not 0 < length <= LONGEST_BODY_BYTES:
                return self._answer(413, f"a body has 1 to {LONGEST_BODY_BYTES} bytes, came {length}\n")
            if not (self.headers.get("Content-Type") or "").startswith("text/csv"):
                return self._answer(415, "only text/csv is understood\n")
            try:
                answer = predict(booster, features, self.rfile.read(length).decode())
            except (ValueError, UnicodeDecodeError) as error:
                return self._answer(400, f"{error}\n")
            return self._answer(200, answer)

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are counted by SageMaker; the log is for what goes wrong."""

    return Handler
