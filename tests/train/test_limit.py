"""Runs under a time limit: where they stop, and that they go on bit for bit."""

import functools
import time
from types import SimpleNamespace

import numpy as np
import optax
import pytest
from resuming import assert_same_end, walk

from dvae.train import _limit, _timing, loop, sharding, status
from dvae.train._schedule import Due
from dvae.train.checkpoint import Checkpoints
from dvae.train.metrics import read_metrics

OPTIMIZER = optax.adam(optax.linear_schedule(0.1, 0.0, 6))  # a share of the run, not of the time
CONFIG = loop.LoopConfig(num_steps=6, log_interval=2, eval_interval=2, checkpoint_interval=3)
NO_STEP = Due(call=1, log=False, validate=False, lasting=False, save=False)


make_task = functools.partial(walk, OPTIMIZER)


@pytest.mark.thorough
@pytest.mark.parametrize("monitor", [None, "norm"])
def test_a_run_that_is_always_late_ends_like_one_without_a_limit(tmp_path, monitor) -> None:
    mesh, task = sharding.make_mesh(1), make_task(monitor)
    whole = loop.fit(task, CONFIG, tmp_path / "whole", mesh)
    over = loop.TimeLimit(until=-np.inf)
    steps = []
    while not steps or steps[-1] < CONFIG.num_steps:
        result = loop.fit(task, CONFIG, tmp_path / "cut", mesh, over)
        steps.append(int(result.state.step))
        assert Checkpoints(tmp_path / "cut").latest_step == steps[-1]
        if monitor:  # even without a validation of the schedule there is something to evaluate
            assert np.isfinite(result.best.value)
            assert int(result.best.step) <= steps[-1]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert_same_end(result, whole)
    validated = lambda name: [
        r["step"] for r in read_metrics(tmp_path / name) if "validation/norm" in r
    ]
    assert validated("whole") == [2, 4, 6]
    assert validated("cut") == ([1, 2, 3, 4, 5, 6] if monitor else [2, 4, 6])


def test_a_limit_that_is_far_changes_nothing(tmp_path) -> None:
    mesh, task = sharding.make_mesh(1), make_task()
    limit = loop.TimeLimit(until=time.perf_counter() + 3600)
    found = loop.fit(task, CONFIG, tmp_path / "limited", mesh, limit)
    assert_same_end(found, loop.fit(task, CONFIG, tmp_path / "whole", mesh))


@pytest.fixture(name="clock_time")
def make_clock_time(monkeypatch):
    """A clock that a test sets; nothing is ever waited for."""
    now = SimpleNamespace(seconds=0.0)
    for module in (_limit, _timing, status):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def session(num_calls, speed=0.0):
    wait = SimpleNamespace(wait=lambda: None)
    return SimpleNamespace(
        num_calls=num_calls,
        state=(),
        progress=SimpleNamespace(speed=speed),
        checkpoints=wait,
        save=lambda validated: None,
        validate=lambda lasting: None,
    )


def measured_clock(now, limit, *, monitored=True):
    """A clock at 100 s that knows: a call takes 1 s, a validation 4 and a checkpoint 2."""
    clock = _limit.Clock(limit, monitored=monitored)
    one = session(10, speed=5.0)
    one.validate = lambda lasting: setattr(now, "seconds", now.seconds + 4.0)
    clock.validate(one, lasting=True)
    one.save = lambda validated: setattr(now, "seconds", now.seconds + 2.0)
    clock.save(one, validated=True)
    clock.recorded(one, loop.LoopConfig(num_steps=100, steps_per_call=5))
    now.seconds = 100.0
    return clock


def test_it_leaves_what_was_measured_and_a_fifth_of_it(clock_time) -> None:
    # To come: saving 2 and validating 4, evaluating 5 x 4, writing 15, then one call.
    rest = 1.2 * (2 + 4 + 5 * 4 + 15) + 3 + 1
    for margin, late in ((0.5, False), (-0.5, True)):
        limit = loop.TimeLimit(until=100 + rest + margin, evaluations=5.0)
        clock = measured_clock(clock_time, limit)
        assert clock.late(session(10), NO_STEP, ahead=1) == late


@pytest.mark.parametrize("seconds", [0.1, 0.6])
def test_a_validation_that_was_mostly_compiled_is_timed_again(
    clock_time, monkeypatch, seconds
) -> None:
    """0.7 s of tracing, times the thousand of the evaluation, once ended a run of 12 minutes."""
    compiled = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(status, "compile_seconds", lambda: compiled.seconds)
    one, timed = session(10, speed=1.0), []

    def validate(lasting):
        clock_time.seconds += 15.7
        compiled.seconds += 15.0

    def evaluate(state):
        clock_time.seconds += seconds
        timed.append(state)

    one.validate, one.step, one.task = validate, 10, SimpleNamespace(evaluate=evaluate)
    one.progress.skip_time = lambda step: None
    clock = _limit.Clock(loop.TimeLimit(until=1200.0, evaluations=1000.0), monitored=True)
    clock.validate(one, lasting=True)
    assert timed == [one.state]
    clock.recorded(one, loop.LoopConfig(num_steps=100))
    # To come: saving 5 and validating, evaluating a thousand times, compiling twice and writing.
    rest = 1.2 * (5 + seconds + 1000 * seconds + 2 * 15 + 15) + 3 + 1
    for margin, late in ((0.5, False), (-0.5, True)):
        clock_time.seconds = 1200 - rest - margin
        assert clock.late(one, NO_STEP, ahead=1) == late


def test_what_takes_as_long_for_any_images_is_not_multiplied_by_them(clock_time) -> None:
    """10 s of log Z, times the 400 of the evaluation, ended a run after its first validation."""
    one = session(10, speed=1.0)

    def validate(lasting):
        with status.fixed_length():
            clock_time.seconds += 10.0
        clock_time.seconds += 0.5

    one.validate = validate
    clock = _limit.Clock(
        loop.TimeLimit(until=1200.0, evaluations=400.0, rounds=2.0), monitored=True
    )
    clock.validate(one, lasting=True)
    clock.recorded(one, loop.LoopConfig(num_steps=100))
    # To come: saving 5 and validating, log Z twice, images 400 times, writing.
    rest = 1.2 * (5 + 10.5 + 2 * 10 + 400 * 0.5 + 15) + 3 + 1
    for margin, late in ((0.5, False), (-0.5, True)):
        clock_time.seconds = 1200 - rest - margin
        assert clock.late(one, NO_STEP, ahead=1) == late


def test_what_is_due_first_and_an_earlier_session_count(clock_time) -> None:
    limit = loop.TimeLimit(until=100 + 1.2 * (2 + 50) + 3 + 1.5, finishing=50.0)
    clock = measured_clock(clock_time, limit, monitored=False)
    assert not clock.late(session(10), NO_STEP, ahead=1)
    assert clock.late(session(10), NO_STEP._replace(validate=True), ahead=1)
    assert clock.late(session(10), NO_STEP._replace(save=True), ahead=1)
    assert clock.late(session(10), NO_STEP, ahead=2)


def test_calls_that_are_queued_count_until_they_are_over(clock_time) -> None:
    limit = loop.TimeLimit(until=100 + 1.2 * 52 + 3 + 3.5, finishing=50.0)
    clock = measured_clock(clock_time, limit, monitored=False)
    assert not clock.late(session(12), NO_STEP, ahead=1)  # two are queued, 3 s with the next
    assert not clock.late(session(14), NO_STEP, ahead=1)  # four would be too long, but are over
    clock_time.seconds += 3.0
    assert clock.late(session(15), NO_STEP, ahead=1)


def test_who_looks_seldom_knows_no_time_of_a_call_at_first(clock_time) -> None:
    clock_time.seconds = 1e6
    clock = _limit.Clock(loop.TimeLimit(until=1e6 + 1000), monitored=False)
    assert not clock.late(session(50), NO_STEP, ahead=50)
    clock_time.seconds += 50.0
    assert not clock.late(session(100), NO_STEP, ahead=50)
    assert clock.late(session(100), NO_STEP, ahead=900)


def test_before_anything_is_measured_a_fifth_of_the_time_is_left(clock_time) -> None:
    clock = _limit.Clock(loop.TimeLimit(until=1000.0), monitored=False)
    late_from = 1000 - 1.2 * (5 + 200) - 3
    assert not clock.late(session(1), NO_STEP, ahead=1)
    clock_time.seconds = 10.0  # the second call took ten seconds
    assert not clock.late(session(2), NO_STEP, ahead=1)
    clock_time.seconds = late_from - 11.0
    assert not clock.late(session(2), NO_STEP, ahead=1)
    clock_time.seconds = late_from - 9.0
    assert clock.late(session(2), NO_STEP, ahead=1)
