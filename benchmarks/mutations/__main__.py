"""`python -m benchmarks.mutations [--json]`: how many seeded misconfigurations are caught, and which are missed."""

from __future__ import annotations

import json
import sys

from benchmarks.mutations import MUTATIONS
from benchmarks.mutations.runner import run


def main() -> None:
    """Run every mutation; exit code 1 when more than one in twenty is missed."""
    outcomes = list(run(MUTATIONS))
    missed = [
        {"name": item.mutation.name, "fails_on_aws": item.mutation.fails}
        for item in outcomes
        if item.caught_by is None
    ]
    result = {
        "seeded": len(outcomes),
        "caught": len(outcomes) - len(missed),
        "missed": missed,
        "caught_by": {item.mutation.name: item.caught_by for item in outcomes if item.caught_by},
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps(result))
    else:
        for item in outcomes:
            print(f"{item.mutation.name:<40} {item.caught_by or 'MISSED: ' + item.mutation.fails}")
        print(f"{result['caught']} of {result['seeded']} caught")
    sys.exit(1 if len(missed) * 20 > len(outcomes) else 0)


if __name__ == "__main__":
    main()
