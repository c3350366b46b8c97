"""The application around the model: `POST /predict` with a picture, `GET /health`.

Started with `--check` it asks the one that runs beside it for its health instead, and ends accordingly.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml.pets.pictures import PictureError, as_input, read

HOST = os.environ.get("PETS_HOST", "127.0.0.1")
PORT = 8000
MODEL = Path(os.environ.get("PETS_MODEL", "model"))
FIELD = "picture"
TYPES = ("image/jpeg", "image/png")
MOST_BYTES = 5 * 2**20
# What multipart adds around a picture.
ENVELOPE_BYTES = 16 * 2**10
# More at once wait for so long that their callers have gone.
MOST_AT_ONCE = 64
CHECK_SECONDS = 5


class Model:
    """The model of a training, as `model.onnx` and `model.json` in a folder."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / "model.json").read_text())
        self.labels: list[str] = described["labels"]
        self.size: int = described["size"]
        options = onnxruntime.SessionOptions()
        # Requests come side by side already.
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    def predict(self, content: bytes) -> dict[str, Any]:
        """Label and probability of a picture's bytes; raises PictureError."""
        inputs = as_input(read(content, size=self.size)[None])
        probabilities = self._session.run(["probabilities"], {"pictures": inputs})[0][0]
        best = int(np.argmax(probabilities))
        return {"label": self.labels[best], "probability": round(float(probabilities[best]), 6)}


class LimitBody:
    """Ends a request whose body is longer than `most` bytes, said or not."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await _refusal(413, self._too_long())(scope, receive, send)
            return
        came = 0

        async def limited() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise HTTPException(413, self._too_long())
            return message

        await self._app(scope, limited, send)

    def _too_long(self) -> str:
        return f"a picture has at most {MOST_BYTES} bytes"


def application(model: Model) -> Starlette:
    """The application around one model."""

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "labels": model.labels})

    async def predict(request: Request) -> JSONResponse:
        content = await picture_of(request)
        try:
            return JSONResponse(await run_in_threadpool(model.predict, content))
        except PictureError as error:
            raise HTTPException(422, str(error)) from error

    return Starlette(
        routes=[Route("/health", health), Route("/predict", predict, methods=["POST"])],
        middleware=[Middleware(LimitBody, most=MOST_BYTES + ENVELOPE_BYTES)],
        exception_handlers={HTTPException: _told},
    )


async def picture_of(request: Request) -> bytes:
    """The bytes of the one picture that a request carries; raises HTTPException with what is wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(
            415, f"{kind or 'no type'} came; send multipart/form-data with the file '{FIELD}'"
        )
    async with request.form(max_files=1, max_fields=0) as form:
        picture = form.get(FIELD)
        if not isinstance(picture, UploadFile):
            raise HTTPException(400, f"the file '{FIELD}' is missing; {', '.join(form) or 'nothing'} came")
        if picture.content_type not in TYPES:
            raise HTTPException(415, f"{picture.content_type} came; {' and '.join(TYPES)} are taken")
        content: bytes = await picture.read()
    if not content:
        raise HTTPException(400, f"the file '{FIELD}' is empty")
    if len(content) > MOST_BYTES:
        raise HTTPException(413, f"a picture has at most {MOST_BYTES} bytes, {len(content)} came")
    return content


async def _told(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "it is registered for these"
    return _refusal(error.status_code, error.detail, dict(error.headers or {}))


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


def check() -> int:
    """0 when the application of this container is healthy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://localhost:{PORT}/health", timeout=CHECK_SECONDS) as answer:
            return int(answer.status != 200)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def main() -> None:
    """Serve until SIGTERM, or check."""
    parser = argparse.ArgumentParser(prog="pets", description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(check())
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(
        application(Model(MODEL)),
        host=HOST,
        port=PORT,
        limit_concurrency=MOST_AT_ONCE,
        timeout_graceful_shutdown=20,
        access_log=False,
    )


if __name__ == "__main__":
    main()
