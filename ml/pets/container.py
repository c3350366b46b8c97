"""The entry point of the pets' training image: `train` as SageMaker calls it, or a module for processing."""

from __future__ import annotations

import sys

from ml.container import main

if __name__ == "__main__":
    sys.exit(main("pets"))
