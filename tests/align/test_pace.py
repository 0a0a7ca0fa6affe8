"""The clock of a method: a simulated machine that slows down and speeds up does not carry it far over its budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.align.pace import Pace


class _Machine:
    """A clock that a step or a row of a look moves on; `speeds` are its seconds a token, one after another."""

    def __init__(self, speeds: list[float]) -> None:
        self.now, self._speeds, self._at = 0.0, speeds, 0

    def work(self, tokens: float) -> float:
        speed = self._speeds[min(self._at, len(self._speeds) - 1)]
        self._at += 1
        self.now += tokens * speed
        return tokens * speed

    def __call__(self) -> float:
        return self.now


def _run(budget: float, machine: _Machine, *, rows: int = 20, row: int = 1000) -> tuple[Pace, int, int]:
    """As the tuner does it; the pace, the tokens learnt from, and the rows of the second look."""
    pace = Pace(budget=budget, num_rows=rows, clock=machine)
    tokens, looked, began_look = 0, 0, False
    while True:
        if pace.measured and not began_look:
            began_look, until = True, pace.look_until()
            while looked < rows and (looked == 0 or pace.gone() < until):
                machine.work(0.4 * row)
                looked += 1
            pace.looked(looked)
        if not pace.another_step():
            break
        pace.stepped(row, machine.work(row))
        tokens += row
    again = 0
    while again < looked and (again == 0 or pace.gone() < budget):
        machine.work(0.4 * row)
        again += 1
    return pace, tokens, again


def test_an_even_machine_uses_its_budget_and_the_plan_is_right() -> None:
    machine = _Machine([0.004])
    pace = Pace(budget=180, num_rows=20, clock=machine)
    for _ in range(2):
        pace.stepped(1000, machine.work(1000))
    planned = 2000 + pace.tokens_left()
    pace, tokens, again = _run(180, _Machine([0.004]))
    assert pace.gone() == pytest.approx(180, rel=0.05)
    assert planned == pytest.approx(tokens, rel=0.1) and again >= 10


@settings(max_examples=200)
@given(st.lists(st.floats(0.001, 0.012), min_size=1, max_size=80), st.floats(60, 400))
def test_a_machine_that_changes_its_mind_stays_near_the_budget(speeds: list[float], budget: float) -> None:
    pace, tokens, again = _run(budget, _Machine(speeds))
    longest_step = 1000 * max(speeds)
    assert tokens > 0 and again > 0
    assert pace.gone() <= budget * 1.1 + 2 * longest_step


def test_a_budget_of_less_than_one_step_takes_one_step() -> None:
    machine = _Machine([1.0])
    pace = Pace(budget=1.0, num_rows=5, clock=machine)
    assert pace.another_step() and not pace.measured
    pace.stepped(100, machine.work(100))
    assert pace.measured and not pace.another_step() and pace.tokens_left() == 0


def test_a_killed_run_goes_on_with_the_time_that_was_left() -> None:
    machine = _Machine([0.01])
    pace = Pace(budget=100, num_rows=5, clock=machine)
    for _ in range(3):
        pace.stepped(1000, machine.work(1000))
    later = _Machine([0.01])
    later.now = 5000.0
    restored = Pace.restored(pace.state(), later)
    assert restored.gone() == pace.gone() == 30
    assert restored.tokens_left() == pace.tokens_left() and restored.tokens_per_second() == 100
