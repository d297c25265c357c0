"""Which layers give way when a net exceeds its error budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from fastcnn.engine.plan import tune as tuning
from fastcnn.engine.plan.build import Built
from fastcnn.engine.plan.error_budget import keep_budget
from fastcnn.engine.plan.probes import Probes
from fastcnn.engine.plan.slots import Candidate
from tests.engine.nets import Maker, compiled, inputs_for, native

LAYERS = 4


class Case:
    """Four Winograd layers, and the net's true error."""

    def __init__(self) -> None:
        make = Maker(2, (1, 16, 18, 18))
        x = "x0"
        for _ in range(LAYERS):
            x = make.op("relu", make.conv(x, 16, 16))
        net = compiled(make.graph(x), "scalar")
        self.built: Built = native(net)
        drafts = self.built.lowered.drafts
        self.layers = [i for i, d in enumerate(drafts) if len(d.candidates) > 1]
        self.built.choose(tuning.exact_choice(self.built.lowered))
        self.probes = Probes(self.built, inputs_for(net.graph))
        self.fast: list[Candidate] = [next((c for c in d.candidates if not c.exact), d.candidates[0]) for d in drafts]
        self.built.choose(self.fast)

    @property
    def error(self) -> float:
        return self.probes.error(self.built)

    def seconds(self, costs: Sequence[float]) -> list[dict[str, float]]:
        """One second for the fast kernel of each layer, and so many more for any other."""
        known: list[dict[str, float]] = [{} for _ in self.fast]
        for i, cost in zip(self.layers, costs, strict=True):
            draft = self.built.lowered.drafts[i]
            known[i] = {c.label: 1.0 if c == self.fast[i] else 1.0 + cost for c in draft.candidates}
        return known

    def order(self, own: Sequence[float], seconds: list[dict[str, float]] | None, budget: float = 0.0) -> list[int]:
        """Layers in the order in which they step down."""
        known = dict(zip(self.layers, own, strict=True))
        _, notes = keep_budget(self.built, self.probes, budget, lambda i, c: 0.0 if c.exact else known[i], seconds)
        names = [self.built.lowered.drafts[i].name for i in self.layers]
        return [names.index(note.partition(":")[0]) for note in notes]


def test_within_the_budget_nothing_changes() -> None:
    case = Case()
    assert 0 < case.error < 1e-4
    assert case.order([1e-6] * LAYERS, None, 1e-3) == []


def test_those_go_first_that_cost_least_time_for_their_error() -> None:
    # The second layer has nine times the square: at four times the time it is the cheapest.
    case = Case()
    assert case.order((1e-6, 3e-6, 1e-6, 1e-6), case.seconds([1.0, 4.0, 2.0, 0.9])) == [1, 3, 0, 2]


def test_without_times_the_least_accurate_go_first() -> None:
    assert Case().order((2e-6, 1e-6, 3e-6, 4e-6), None) == [3, 2, 0, 1]


def test_what_was_not_timed_is_free_to_go() -> None:
    """As after weight_memory: a kernel without a time does not outstay those that have one."""
    case = Case()
    seconds = case.seconds([1.0] * LAYERS)
    seconds[case.layers[3]] = {}
    assert case.order((1e-6, 2e-6, 3e-6, 1e-6), seconds) == [3, 2, 1, 0]


def test_no_more_give_way_than_are_needed() -> None:
    case = Case()
    budget = 0.8 * case.error
    assert 1 <= len(case.order((1e-6,) * LAYERS, case.seconds([1.0, 2.0, 3.0, 4.0]), budget)) < LAYERS
    assert case.error <= budget


@pytest.mark.parametrize("own", [0.0, math.inf, math.nan])
@pytest.mark.parametrize("timed", [False, True])
def test_it_ends_whatever_the_layers_say_of_themselves(own: float, timed: bool) -> None:
    case = Case()
    case.order((own,) * LAYERS, case.seconds([1.0] * LAYERS) if timed else None)
    assert [case.built.chosen[i] == case.fast[i] for i in case.layers] == [False] * LAYERS
    assert case.error == 0


def test_what_weighs_little_in_the_net_is_given_back() -> None:
    """The layers say they are alike; the net knows better. What costs most is asked first."""
    case = Case()
    fast = list(case.built.chosen)
    exact = tuning.exact_choice(case.built.lowered)
    case.built.choose([fast[i] if i == case.layers[0] else c for i, c in enumerate(exact)])
    budget = case.error
    case.built.choose(fast)
    # Room for the first one, not for all; its time is worth most, and the rest are worth nothing.
    assert budget < case.error
    case.order((1e-6,) * LAYERS, case.seconds([100.0, 1e-9, 1e-9, 1e-9]), budget)
    assert case.built.chosen[case.layers[0]] == fast[case.layers[0]]
    assert case.error <= budget
