"""Arena offsets: what is alive together lies apart, and planning asks each storage for its size a few times only."""

from __future__ import annotations

import random

import pytest

from fastcnn.engine.plan.memory import lower_bound, plan_memory
from fastcnn.engine.plan.slots import Storage


def storages(seed: int, count: int, steps: int) -> list[Storage]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        storage = Storage((1, rng.randrange(1, 40), rng.randrange(1, 9), rng.randrange(1, 9)), True, 8)
        if rng.random() < 0.95:  # the others are never used
            storage.first = rng.randrange(steps)
            storage.last = storage.first + rng.randrange(6)
        made.append(storage)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_what_is_alive_together_lies_apart(seed: int) -> None:
    made = storages(seed, 40, 30)
    total = plan_memory(made)
    alive = [s for s in made if s.first is not None]
    for i, a in enumerate(alive):
        assert a.offset % 16 == 0
        assert a.offset + a.floats() <= total
        for b in alive[:i]:
            if (a.first or 0) <= b.last and (b.first or 0) <= a.last:
                assert a.offset + a.floats() <= b.offset or b.offset + b.floats() <= a.offset
    busiest = max(sum(s.floats() for s in alive if (s.first or 0) <= step <= s.last) for step in range(40))
    assert lower_bound(made) == busiest <= total


@pytest.mark.parametrize("seed", range(10))
def test_steps_that_run_together_count_as_one(seed: int) -> None:
    """What one of them reads stays until the last is done, what one writes is there from the first on."""
    together = [(3, 5), (6, 7), (15, 18)]

    def widened(storage: Storage) -> tuple[int, int]:
        spans = [(a, b) for a, b in together for step in (storage.first, storage.last) if a <= (step or 0) <= b]
        return min([storage.first or 0, *(a for a, _ in spans)]), max([storage.last, *(b for _, b in spans)])

    made = storages(seed, 40, 30)
    total = plan_memory(made, together)
    alive = [s for s in made if s.first is not None]
    for i, a in enumerate(alive):
        for b in alive[:i]:
            (a0, a1), (b0, b1) = widened(a), widened(b)
            if a0 <= b1 and b0 <= a1:
                assert a.offset + a.floats() <= b.offset or b.offset + b.floats() <= a.offset
    busiest = max(sum(s.floats() for s in alive if widened(s)[0] <= step <= widened(s)[1]) for step in range(40))
    assert lower_bound(made, together) == busiest <= total


def test_no_storages() -> None:
    assert plan_memory([]) == lower_bound([]) == 0


def test_long_nets_do_not_ask_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may hold 100,000 nodes: sizes are worked out per storage, not per pair of storages."""
    made = storages(1, 3000, 3000)
    asked = 0
    size = Storage.floats

    def counted(self: Storage) -> int:
        nonlocal asked
        asked += 1
        return size(self)

    monkeypatch.setattr(Storage, "floats", counted)
    plan_memory(made)
    lower_bound(made)
    assert asked <= 4 * len(made)
