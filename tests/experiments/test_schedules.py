"""Courses of the learning rate, the temperature and hard samples along a run."""

import numpy as np
import pytest

from experiments.common import schedules


@pytest.mark.parametrize("share", [1.0, 0.4, 1e-9])
def test_falling_rates_are_constant_before_and_zero_at_the_end(share) -> None:
    steps, falling = 50, max(1, round(50 * share))
    t = np.clip((np.arange(steps + 1) - (steps - falling)) / falling, 0, 1)
    expected = {schedules.LINEAR: 1 - t, schedules.COSINE: (1 + np.cos(np.pi * t)) / 2}
    for name, values in expected.items():
        rate = schedules.learning_rates(name, 2.0, steps, share=share)
        rates = [float(rate(step)) for step in range(steps + 1)]
        np.testing.assert_allclose(rates, 2 * values, rtol=1e-5, atol=1e-6)


def test_geometric_course() -> None:
    values = [schedules.geometric(0.5, 0.1, np.int32(step), 4) for step in range(6)]
    np.testing.assert_allclose(values, 0.5 * 0.2 ** np.array([0, 0.25, 0.5, 0.75, 1, 1]), rtol=1e-6)


@pytest.mark.parametrize(("share", "first"), [(0.25, 6), (1.0, 0), (0.0, 8)])
def test_last_share_of_a_run(share, first) -> None:
    last = [bool(schedules.in_last_share(share, np.int32(step), 8)) for step in range(8)]
    assert last == [step >= first for step in range(8)]
