"""The clairvoyant optimum: the least that a fleet within the same bounds could have billed without any wait for it.

Every task begins as if `max` workers always stood ready; tasks are packed anew at every moment, which no real fleet
can do. The k-th worker bills while more than k - 1 workers' slots are needed, pays its start time each time it
starts, and stays over a gap when that is cheaper. So this is a lower bound.
"""

from __future__ import annotations

import math

from benchmarks.autoscaling.simulation import Fleet, Simulation
from benchmarks.autoscaling.traces import Trace


class _AlwaysReady:
    name = "always ready"
    period_seconds = 86_400.0

    def step(self, sim: Simulation) -> None:
        """Nothing changes."""


def optimal_worker_seconds(trace: Trace, fleet: Fleet) -> float:
    """Worker-seconds billed by the optimum."""
    standing = Fleet(fleet.slots, fleet.max, fleet.max, fleet.start_seconds, spot_percent=0)
    ideal = Simulation(trace, standing, _AlwaysReady(), seed=0).simulate()
    changes = sorted([(begin, 1) for begin, _ in ideal.intervals] + [(end, -1) for _, end in ideal.intervals])
    billed = fleet.min * ideal.end
    # For each worker above the minimum, when its latest stretch of need ended.
    ended: dict[int, float] = {}
    load, before, workers = 0, 0.0, 0
    for moment, change in changes:
        above = max(0, workers - fleet.min)
        billed += above * (moment - before)
        load, before = load + change, moment
        needed = math.ceil(load / fleet.slots)
        for level in range(max(workers, fleet.min) + 1, needed + 1):
            gap = moment - ended.get(level, -math.inf)
            billed += min(gap, fleet.start_seconds)
        for level in range(max(needed, fleet.min) + 1, workers + 1):
            ended[level] = moment
        workers = needed
    return billed
