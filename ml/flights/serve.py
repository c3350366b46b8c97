"""Inference container: a flight's features in, a probability out."""

from __future__ import annotations

from collections.abc import Sequence

from ml import serving
from ml.flights import features


def main(_arguments: Sequence[str] = ()) -> None:
    """Serve until SIGTERM."""
    serving.serve(features.FEATURES)
