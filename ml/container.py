"""The training image's entry point: `train` and `serve` as SageMaker calls them, or a module for processing."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from ml import contract

# SageMaker says `train` or `serve` and nothing of the problem: that stands in the job's or the model's environment.
PROBLEM = os.environ.get("ML_PROBLEM", "flights")
PROGRAMS = {
    "flights": ("train", "serve", "prepare", "evaluate"),
    "insurance": ("train", "serve", "evaluate"),
    "pets": ("fetch", "transform", "train", "validate"),
}


def main(problem: str = PROBLEM) -> int:
    """Run one program of a problem; a failure is written where SageMaker looks for it."""
    if problem not in PROGRAMS:
        print(f"ML_PROBLEM: {problem!r} is not one of {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS[problem]:
        print(f"usage: python -m ml.container {'|'.join(PROGRAMS[problem])} [ARGUMENT …]", file=sys.stderr)
        return 2
    program = importlib.import_module(f"ml.{problem}.{sys.argv[1]}")
    try:
        program.main(sys.argv[2:])
    except Exception as error:
        contract.write_failure(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
