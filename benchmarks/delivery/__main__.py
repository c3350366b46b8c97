"""`./updraft bench delivery [--parts pushes,rollbacks,bad,switches,peers]`; exits 1 when something unsafe was seen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.delivery.aws_model import HOOK_START_SECONDS, push_on_aws
from benchmarks.delivery.bad import bad
from benchmarks.delivery.peers import peers
from benchmarks.delivery.platform import Platform
from benchmarks.delivery.pushes import DAGS, pushes, rollbacks
from benchmarks.delivery.switches import switches

MUST_BE_ZERO = (
    "mixed_version_runs", "failed_tasks", "wrongly_stamped_parses", "bad_bundles_live",
    "bad_bundles_without_reason", "bad_bundles_that_left_something",
)  # fmt: skip


def main() -> int:
    """Run the parts in order and print one document."""
    arguments = _arguments()
    platform = Platform()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "pushes": lambda: _with_model(pushes(platform, arguments.pushes)),
        "rollbacks": lambda: rollbacks(platform, arguments.rollbacks),
        "bad": lambda: bad(platform),
        "switches": lambda: {"conditions": switches(platform, arguments.switches, arguments.runs)},
        "peers": lambda: {"peers": peers(platform, arguments.peer_pushes)},
    }
    document: dict[str, Any] = {}
    for name in arguments.parts.split(","):
        if name not in parts:
            print(f"bench delivery: no part '{name}': there are {', '.join(parts)}", file=sys.stderr)
            return 2
        document |= parts[name]()
    print(json.dumps(document, indent=2))
    return 1 if _unsafe(document) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./updraft bench delivery", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document, as without it")
    parser.add_argument("--parts", default="pushes,rollbacks,bad,switches,peers")
    parser.add_argument("--pushes", type=int, default=50)
    parser.add_argument("--rollbacks", type=int, default=20)
    parser.add_argument("--switches", type=int, default=200, help="in each of three conditions")
    parser.add_argument("--runs", type=int, default=50, help="in flight during the switches")
    parser.add_argument("--peer-pushes", type=int, default=5)
    return parser.parse_args()


def _with_model(figures: dict[str, Any]) -> dict[str, Any]:
    phases = figures["push_phase_median_seconds"]
    model = push_on_aws(
        files=DAGS,
        import_seconds=max(0.0, phases.get("AfterInstall", 0.0) - 2 * HOOK_START_SECONDS),
        parse_seconds=max(0.0, phases.get("ValidateService", 0.0) - HOOK_START_SECONDS),
    )
    return figures | {"push_on_aws_model": model}


def _unsafe(document: dict[str, Any]) -> bool:
    figures = [document, *document.get("conditions", {}).values()]
    return any(figure.get(name) for figure in figures for name in MUST_BE_ZERO)


if __name__ == "__main__":
    sys.exit(main())
