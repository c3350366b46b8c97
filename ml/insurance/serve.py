"""Inference container: a policy's features in, a probability out."""

from __future__ import annotations

from collections.abc import Sequence

from ml import serving
from ml.insurance import features


def main(_arguments: Sequence[str] = ()) -> None:
    """Serve until SIGTERM."""
    serving.serve(features.FEATURES)
