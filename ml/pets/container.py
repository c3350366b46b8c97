"""The entry point of the pets' training image: `train` as SageMaker calls it, or a processing job's program."""

from __future__ import annotations

import sys

from ml.container import main

PROGRAMS = {name: f"ml.pets.{name}" for name in ("fetch", "transform", "train", "validate")}

if __name__ == "__main__":
    sys.exit(main(PROGRAMS))
