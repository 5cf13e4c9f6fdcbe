"""The schedule of a run against one that counts steps, for many lengths, from every step on."""

import itertools

import pytest

from dvae.train._schedule import Due, LoopConfig, Schedule

NUM_CALLS = 7


def simulated(config: LoopConfig, monitored: bool) -> dict[int, Due]:
    """What is due after each call, by counters that are wound up again when they have run down."""
    intervals = (config.log_interval, config.eval_interval, config.checkpoint_interval)
    left = list(intervals)
    found = {0: Due(config.steps_per_call, False, False, False, False)}
    for step in range(1, config.num_steps + 1):
        rings = [False] * 3
        for i, interval in enumerate(intervals):
            left[i] -= 1
            if left[i] == 0:
                rings[i], left[i] = True, interval
        if step % config.steps_per_call:
            assert not any(rings), "nothing may fall inside of a call"
            continue
        logs, validates, saves = rings
        found[step] = Due(config.steps_per_call, logs, validates, validates, saves)
    end = found[config.num_steps]
    at_end = end.validate or (monitored and config.eval_interval > 0)
    found[config.num_steps] = end._replace(call=0, validate=at_end, save=True)
    return found


def follow(schedule: Schedule, start: int) -> dict[int, Due]:
    """What a run that begins at a step meets on its way."""
    met = {start: schedule.at(start)}
    while call := met[start].call:
        start += call
        met[start] = schedule.at(start)
    return met


# In calls: an interval of each length, of none, of the whole run and of more than it.
EVERY = (0, 1, 2, 3, NUM_CALLS, NUM_CALLS + 1)


@pytest.mark.parametrize("monitored", [False, True])
@pytest.mark.parametrize("steps_per_call", [1, 2, 5])
def test_it_is_what_counting_gives_from_every_step_on(steps_per_call, monitored) -> None:
    for num_calls in range(1, NUM_CALLS + 1):
        for lengths in itertools.product(EVERY[1:], EVERY, EVERY):
            log, evaluate, checkpoint = (steps_per_call * length for length in lengths)
            num_steps = steps_per_call * num_calls
            config = LoopConfig(num_steps, steps_per_call, log, evaluate, checkpoint)
            schedule = Schedule(config, monitored)
            expected = simulated(config, monitored)
            for start in expected:
                later = {step: due for step, due in expected.items() if step >= start}
                assert follow(schedule, start) == later, (config, start)


def test_a_longer_run_does_what_lasts_of_a_shorter_one() -> None:
    for evaluate, checkpoint in itertools.product(EVERY, EVERY):
        lengths = dict(eval_interval=evaluate, checkpoint_interval=checkpoint)
        short = Schedule(LoopConfig(6, **lengths), monitored=True)
        long = Schedule(LoopConfig(12, **lengths), monitored=True)
        for step in range(7):
            assert short.at(step).lasting == long.at(step).validate == long.at(step).lasting
            assert step == 6 or short.at(step) == long.at(step)


@pytest.mark.parametrize("lengths", [*itertools.product([1, 4], [0, 4], [0, 4])])
def test_a_signal_saves_and_leaves_the_validation(lengths) -> None:
    schedule = Schedule(LoopConfig(8, 1, *lengths), monitored=True)
    for step in range(1, 9):
        due = schedule.at(step)
        assert due.record == (due.log or due.validate or due.save)
        short = due.cut_short()
        assert short == Due(0, due.log, False, False, True)
        assert short.record


@pytest.mark.parametrize("lengths", [*itertools.product([1, 4], [0, 4], [0, 4])])
def test_the_end_of_the_time_saves_and_validates_what_may_be_best(lengths) -> None:
    schedule = Schedule(LoopConfig(8, 1, *lengths), monitored=True)
    for step in range(1, 9):
        due = schedule.at(step)
        assert due.cut_off(monitored=True) == Due(0, due.log, True, due.lasting, True)
        assert due.cut_off(monitored=False) == Due(0, due.log, due.validate, due.lasting, True)


@pytest.mark.parametrize(("step", "seen"), [(-2, 0), (1, 0), (3, 2), (14, 12)])
def test_steps_that_the_loop_never_sees_are_refused(step, seen) -> None:
    message = f"step={step} must be a multiple of steps_per_call=2 .*; take step={seen}$"
    with pytest.raises(ValueError, match=message):
        Schedule(LoopConfig(12, 2, 2)).at(step)


REMEDIES = {
    "a short run": (dict(num_steps=200, steps_per_call=500, log_interval=500), (500, 100)),
    "by one interval more": (
        dict(num_steps=1_200, steps_per_call=500, log_interval=500, eval_interval=50),
        (1_500, 50),
    ),
    "of nothing in common": (dict(num_steps=7, steps_per_call=5, log_interval=5), (10, 1)),
    "rounded down, for steps are int32": (
        dict(num_steps=2**31 - 1, steps_per_call=10, log_interval=10),
        (2**31 - 8, 1),
    ),
    "of an interval": (dict(num_steps=12, steps_per_call=4, log_interval=6), (8, 2)),
}


@pytest.mark.parametrize(("lengths", "remedy"), REMEDIES.values(), ids=REMEDIES)
def test_lengths_that_do_not_fit_are_named_with_some_that_do(lengths, remedy) -> None:
    name = "log_interval" if lengths["num_steps"] == 12 else "num_steps"
    length, call = remedy
    with pytest.raises(ValueError, match=f"; take {name}={length} or steps_per_call={call}$"):
        LoopConfig(**lengths)
    LoopConfig(**{**lengths, "steps_per_call": call})
    LoopConfig(**{**lengths, name: length, "eval_interval": 0})


def test_other_lengths_that_calls_cannot_keep() -> None:
    with pytest.raises(ValueError, match=r"; take eval_interval=0$"):
        LoopConfig(12, eval_interval=-1)
    with pytest.raises(ValueError, match=r"num_steps=5 .*; take steps_per_call=1$"):
        LoopConfig(5, steps_per_call=2**32, log_interval=5)
