"""`./updraft bench delivery [--parts pushes,rollbacks]`; exits 1 when something unsafe was seen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from botocore.exceptions import ClientError

from benchmarks.delivery.aws_model import HOOK_START_SECONDS, push_on_aws
from benchmarks.delivery.bad import bad
from benchmarks.delivery.peers import peers_at_defaults, peers_at_fastest
from benchmarks.delivery.platform import CommandError, Platform, tell
from benchmarks.delivery.pushes import DAGS, pushes, rollbacks
from benchmarks.delivery.switches import switches

# It waits for half an hour and computes nothing: the parts after it, which aren't timed, run beside it.
BESIDE = "peers_at_defaults"
MUST_BE_ZERO = (
    "mixed_version_runs", "failed_tasks", "wrongly_stamped_parses", "bad_bundles_live",
    "bad_bundles_without_reason", "bad_bundles_that_left_something",
)  # fmt: skip


def main() -> int:
    """Run the parts and print one document; a part that breaks off is named in it and doesn't stop the others."""
    arguments = _arguments()
    platform = Platform()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "pushes": lambda: _with_model(pushes(platform, arguments.pushes)),
        "rollbacks": lambda: rollbacks(platform, arguments.rollbacks),
        "peers_at_fastest": lambda: peers_at_fastest(platform, arguments.peer_pushes),
        BESIDE: lambda: peers_at_defaults(platform, arguments.peer_pushes),
        "bad": lambda: bad(platform),
        "switches": lambda: switches(platform, arguments.switches, arguments.runs),
    }
    chosen = arguments.parts.split(",") if arguments.parts else list(parts)
    if unknown := sorted({*chosen} - {*parts}):
        print(f"bench delivery: no part {', '.join(unknown)}: there are {', '.join(parts)}", file=sys.stderr)
        return 2
    document: dict[str, Any] = {"broken_off": {}}

    def run(name: str) -> None:
        try:
            document.update(parts[name]())
        except (AssertionError, ClientError, CommandError, TimeoutError, requests.RequestException) as error:
            document["broken_off"][name] = f"{type(error).__name__}: {error}"
            tell(f"{name} broke off: {error}")

    with ThreadPoolExecutor(1) as beside:
        waiting = []
        for name in (name for name in parts if name in chosen):
            if name == BESIDE:
                waiting.append(beside.submit(run, name))
            else:
                run(name)
        for future in waiting:
            future.result()
    print(json.dumps(document, indent=2))
    return 1 if document["broken_off"] or _unsafe(document) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./updraft bench delivery", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document, as without it")
    parser.add_argument("--parts", help="some of them, with commas between; all by default")
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
