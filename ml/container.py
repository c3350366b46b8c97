"""The training image's entry point: `train` and `serve` as SageMaker calls them, or a module for processing."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping

from ml import contract

PROGRAMS = {
    "train": "ml.flights.train",
    "serve": "ml.flights.serve",
    "prepare": "ml.flights.prepare",
    "evaluate": "ml.flights.evaluate",
}


def main(programs: Mapping[str, str] = PROGRAMS) -> int:
    """Run one of the programs (modules by name); a failure is written where SageMaker looks for it."""
    if len(sys.argv) < 2 or sys.argv[1] not in programs:
        print(f"usage: {'|'.join(programs)} [ARGUMENT …]", file=sys.stderr)
        return 2
    program = importlib.import_module(programs[sys.argv[1]])
    try:
        program.main(sys.argv[2:])
    except Exception as error:
        contract.write_failure(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
