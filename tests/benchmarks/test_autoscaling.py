"""The simulator: it conserves work, is the same twice, and its optimum is a lower bound."""

import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.autoscaling.compare import Comparison, compare, dominating, figures, percentile
from benchmarks.autoscaling.optimum import optimal_worker_seconds
from benchmarks.autoscaling.picture import picture
from benchmarks.autoscaling.rules import RULES, Updraft
from benchmarks.autoscaling.simulation import Fleet, Simulation
from benchmarks.autoscaling.traces import TRACES, HistoryError, Run, Stage, from_history

FLEET = Fleet(slots=4, min=1, max=5, start_seconds=60, spot_percent=0)


def burst(at: float, tasks: int, seconds: float, *, scheduled: bool = False) -> Run:
    return Run(f"dag-{at}", at, scheduled, (Stage((seconds,) * tasks),))


SMALL = [burst(600, 30, 40.0), burst(3600, 8, 20.0, scheduled=True), burst(7200, 3, 900.0, scheduled=True)]


@pytest.mark.parametrize("rule", RULES)
def test_every_task_runs_to_its_end(rule: str) -> None:
    result = Simulation(SMALL, FLEET, RULES[rule](FLEET), seed=1).simulate()
    assert result.unfinished == 0
    assert result.task_seconds == pytest.approx(30 * 40 + 8 * 20 + 3 * 900)
    assert len(result.waits) == 41 + result.killed
    assert result.worker_seconds * FLEET.slots >= result.task_seconds


def test_same_seed_gives_the_same_figures() -> None:
    one, two = (Simulation(SMALL, FLEET, Updraft(FLEET), seed=3).simulate() for _ in range(2))
    assert (one.waits, one.worker_seconds, one.timeline) == (two.waits, two.worker_seconds, two.timeline)


def test_scheduled_tasks_find_their_workers_ready_and_nothing_is_killed() -> None:
    result = Simulation(SMALL, FLEET, Updraft(FLEET), seed=1).simulate()
    assert max(result.waits_first_scheduled) == 0.0
    assert result.killed == 0


def test_fleet_goes_back_to_its_minimum() -> None:
    result = Simulation(SMALL, FLEET, Updraft(FLEET), seed=1).simulate()
    peak = max(workers for _, _, workers in result.timeline)
    assert peak == 5
    assert [workers for moment, _, workers in result.timeline if 1800 < moment < 3000] == [1] * 19


def test_optimum_of_one_task_is_known() -> None:
    from_zero = Fleet(slots=4, min=0, max=5, start_seconds=60)
    assert optimal_worker_seconds([burst(100, 4, 50.0)], from_zero) == pytest.approx(50 + 60)
    # Over a gap shorter than a start it stays, over a longer one it starts again.
    assert optimal_worker_seconds([burst(0, 1, 50.0), burst(80, 1, 50.0)], from_zero) == pytest.approx(
        130 + 60
    )
    assert optimal_worker_seconds([burst(0, 1, 50.0), burst(500, 1, 50.0)], from_zero) == pytest.approx(220)


def test_no_rule_without_wait_is_cheaper_than_the_optimum() -> None:
    comparison = compare(SMALL, FLEET, seed=2, rules=("updraft", "mwaa"))
    assert all(result.worker_seconds >= comparison.optimum * 0.999 for result in comparison.results.values())


def test_spot_interruptions_are_counted_apart_from_kills() -> None:
    fleet = Fleet(slots=4, min=1, max=5, start_seconds=30, spot_percent=100)
    day = [burst(at, 4, 3000.0) for at in range(0, 80_000, 3600)]
    results = [Simulation(day, fleet, Updraft(fleet), seed).simulate() for seed in range(6)]
    assert sum(result.spot_killed for result in results) > 0
    assert not any(result.killed or result.unfinished for result in results)


@pytest.mark.parametrize("name", TRACES)
def test_traces_are_reproducible_days(name: str) -> None:
    one, two = (TRACES[name](random.Random(7)) for _ in range(2))
    assert one == two
    assert all(0 <= run.at < 86_400 for run in one)
    assert all(duration > 0 for run in one for stage in run.stages for duration in stage.durations)


def test_domination_needs_both_cost_and_wait() -> None:
    comparison = compare(SMALL, FLEET, seed=2)
    found = figures([comparison])
    assert set(found) == set(RULES)
    own = found["updraft"] | {
        "worker_hours": 10.0,
        "wait_p95_seconds": 10.0,
        "wait_p95_seconds_scheduled": 0.0,
    }
    cheap = own | {"worker_hours": 9.0}
    better = cheap | {"wait_p95_seconds": 9.0}
    assert dominating({"updraft": own, "cheap": cheap, "better": better}) == ["better"]


def test_picture_is_an_svg_with_a_panel_for_each_rule() -> None:
    comparison: Comparison = compare(SMALL, FLEET, seed=2, rules=("updraft", "mwaa"))
    root = ElementTree.fromstring(picture(comparison.results, FLEET.slots, "a < b"))
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2


def test_percentile() -> None:
    assert percentile([], 0.95) == 0.0
    assert percentile([float(value) for value in range(101)], 0.95) == 95.0


HEAD = "dag_id,run_id,scheduled,queued_at,duration_seconds\n"


def test_history_becomes_stages(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text(
        HEAD + "etl,r1,true,1000,30\netl,r1,true,1002,10\netl,r1,true,1100,5\nml,r2,false,1500,60\n"
    )
    assert from_history(file) == [
        Run("etl", 0.0, True, (Stage((30.0, 10.0)), Stage((5.0,), 70.0))),
        Run("ml", 500.0, False, (Stage((60.0,)),)),
    ]


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("a,b\n", ["no column dag_id, run_id"]),
        (HEAD, ["no tasks in it"]),
        (
            HEAD + "e,r,maybe,1,1\ne,r,true,x,1\ne,r,true,1,-1\n",
            [":2:", "maybe", ":3:", ":4:", "not negative"],
        ),
        (HEAD + "e,r,true,nan,1\n", ["finite"]),
    ],
)
def test_mistakes_of_a_history_are_told_all_at_once(tmp_path: Path, text: str, mistakes: list[str]) -> None:
    file = tmp_path / "history.csv"
    file.write_text(text)
    with pytest.raises(HistoryError) as told:
        from_history(file)
    assert all(mistake in str(told.value) for mistake in mistakes)


def test_missing_and_binary_histories_are_told(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00dag_id")
    for path in (tmp_path / "absent.csv", binary):
        with pytest.raises(HistoryError, match="can't be read"):
            from_history(path)
