"""A worker leaves only when it is not needed, holds no task, and none can arrive any more."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.departure import SETTLE_SECONDS, Action, Departure, Order

TICK_SECONDS = 1.0
# A message that the broker has given out before it heard of the cancellation arrives this late at most.
LATEST_ARRIVAL_SECONDS = SETTLE_SECONDS - TICK_SECONDS


class Broker:
    """One queue and one worker with `slots`, in steps of a quarter second; messages take time to arrive."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.slots = self.chance.randint(1, 8)
        self.queue: deque[int] = deque()
        self.flying: list[float] = []
        self.running: list[float] = []
        self.consuming = True
        self.sent = self.finished = 0
        self.left = False

    def step(self, now: float) -> None:
        if self.chance.random() < 0.15:
            self.queue.append(self.sent)
            self.sent += 1
        landed = [moment for moment in self.flying if moment <= now]
        self.flying = [moment for moment in self.flying if moment > now]
        assert not (landed and self.left), "a task arrived at a worker that had left"
        self.running += [now + self.chance.choice((0.5, 3.0, 30.0)) for _ in landed]
        self.finished += sum(end <= now for end in self.running)
        self.running = [end for end in self.running if end > now]
        while self.consuming and self.queue and len(self.running) + len(self.flying) < self.slots:
            self.queue.popleft()
            self.flying.append(now + self.chance.uniform(0, LATEST_ARRIVAL_SECONDS))

    def apply(self, action: Action) -> None:
        if action is Action.LEAVE:
            self.left = True
            assert not self.running, "a busy worker left"
            assert not self.flying, "a task was on its way to a worker that left"
        elif self.chance.random() < 0.9:
            # A broker that doesn't answer leaves things as they are, and is asked again.
            self.consuming = action is Action.CONSUME


@pytest.mark.parametrize("block", range(10))
def test_no_interleaving_loses_or_kills_a_task(block: int) -> None:
    left = 0
    for seed in range(block * 300, block * 300 + 300):
        broker = Broker(seed)
        departure = Departure(idle_seconds=10, now=0.0)
        order = Order.STAY
        for quarter in range(4 * 240):
            now = quarter / 4
            if broker.chance.random() < 0.02:
                order = broker.chance.choice(list(Order))
            broker.step(now)
            if quarter % 4 == 0 and not broker.left:
                broker.apply(
                    departure.tick(
                        order=order, busy_slots=len(broker.running), consuming=broker.consuming, now=now
                    )
                )
        left += broker.left
        assert broker.sent == broker.finished + len(broker.running) + len(broker.flying) + len(broker.queue)
    assert left > 30, "hardly any worker left: the interleavings show nothing"


orders = st.sampled_from(list(Order))


@given(
    seen=st.lists(st.tuples(orders, st.integers(0, 3), st.booleans(), st.floats(0.1, 20.0)), max_size=60),
    idle_seconds=st.floats(1, 60),
)
def test_rules_hold_in_every_sequence(
    seen: list[tuple[Order, int, bool, float]], idle_seconds: float
) -> None:
    departure, now, stayed_at = Departure(idle_seconds=idle_seconds, now=0.0), 0.0, 0.0
    for order, busy_slots, consuming, pause in seen:
        now += pause
        action = departure.tick(order=order, busy_slots=busy_slots, consuming=consuming, now=now)
        stayed_at = now if order is Order.STAY else stayed_at
        if action is Action.LEAVE:
            assert not busy_slots
            assert not consuming
        if order is Order.STAY or (order is Order.SPARE and now - stayed_at < idle_seconds):
            assert action is Action.CONSUME
        if order is Order.CLOSE:
            assert action is not Action.CONSUME


def test_spare_idle_worker_leaves_after_idle_and_settling_time() -> None:
    departure = Departure(idle_seconds=60, now=0.0)
    consuming, actions = True, []
    for second in range(70):
        action = departure.tick(order=Order.SPARE, busy_slots=0, consuming=consuming, now=float(second))
        consuming = action is Action.CONSUME
        actions.append(action)
    assert actions.index(Action.HOLD) == 60
    assert actions.index(Action.LEAVE) == 61 + SETTLE_SECONDS


def test_task_that_arrives_while_it_leaves_is_finished_first() -> None:
    departure = Departure(idle_seconds=10, now=0.0)
    busy = {11: 1, 12: 1, 13: 1}
    actions = [
        departure.tick(
            order=Order.CLOSE, busy_slots=busy.get(second, 0), consuming=second < 1, now=float(second)
        )
        for second in range(20)
    ]
    assert actions.index(Action.LEAVE) == 1 + SETTLE_SECONDS
    held = Departure(idle_seconds=10, now=0.0)
    for second in range(100):
        assert held.tick(order=Order.CLOSE, busy_slots=1, consuming=False, now=second) is Action.HOLD


def test_worker_that_is_wanted_again_comes_back() -> None:
    departure = Departure(idle_seconds=0, now=0.0)
    assert departure.tick(order=Order.SPARE, busy_slots=0, consuming=True, now=1.0) is Action.HOLD
    assert departure.tick(order=Order.STAY, busy_slots=0, consuming=False, now=2.0) is Action.CONSUME
