"""Kills `./updraft demo` with SIGKILL at random moments and runs it again: it must take over and finish.

Half of the kills hit the command alone, which leaves its CDK CLI and the platform running without a master;
the other half hit every process of the platform at the same moment, as a power cut does.
Prints one JSON document; exits 1 when a second run did not finish.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from local import processes
from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent
UPDRAFT = ROOT / "updraft"
DEMO_SECONDS = 900


def main() -> int:
    """Run the rounds and print what happened in each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest-seconds", type=float, default=150, help="latest moment of a kill")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    rounds = []
    for number in range(arguments.rounds):
        moment_seconds = round(chance.uniform(0.2, arguments.longest_seconds), 1)
        rounds.append(one_round(number, moment_seconds, everything=number % 2 == 1))
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    finished = sum(row["finished"] for row in rounds)
    print(
        json.dumps(
            {"killed": len(rounds), "finished": finished, "seed": arguments.seed, "rounds": rounds}, indent=2
        )
    )
    return 0 if finished == len(rounds) else 1


def one_round(number: int, moment_seconds: float, *, everything: bool) -> dict[str, Any]:
    """Start from a wiped platform, kill one demo, run the next one to its end."""
    subprocess.run([UPDRAFT, "down", "--wipe", "--json"], check=True, capture_output=True)
    demo = subprocess.Popen([UPDRAFT, "demo", "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        demo.wait(moment_seconds)
    except subprocess.TimeoutExpired:
        demo.send_signal(signal.SIGKILL)
        if everything:
            kill_platform()
        demo.wait()
    killed = demo.returncode == -signal.SIGKILL
    started = time.monotonic()
    second = subprocess.run(
        [UPDRAFT, "demo", "--json"], capture_output=True, text=True, check=False, timeout=DEMO_SECONDS
    )
    row: dict[str, Any] = {
        "round": number,
        "killed": killed,
        "everything": everything,
        "moment_seconds": moment_seconds,
        "finished": second.returncode == 0 and json.loads(second.stdout)["dag_run"]["state"] == "success",
        "second_run_seconds": round(time.monotonic() - started, 1),
    }
    if not row["finished"]:
        row["error"] = second.stderr.strip().splitlines()[-5:]
    return row


def kill_platform() -> None:
    """SIGKILL every process that the platform's own records name, at once."""
    for pid in processes.all_pids(LocalPaths(ROOT / ".updraft" / "local")):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    sys.exit(main())
