"""The best parameters by validation: seed by seed, and across an interruption."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resuming import assert_resumes_bitwise, assert_same_end

from dvae.train import best, loop, sharding, state
from dvae.train.metrics import read_metrics

# Of the parameter after 4, 8 and 12 steps; the middle one is best.
VALUES = {4: 2.0, 8: 1.0, 12: 3.0, 14: 0.5, 16: 4.0}


def make_task(stop_at=None):
    optimizer = optax.sgd(0.5)
    init = lambda key, data: state.init(lambda key, data: (jnp.zeros(2), ()), optimizer, key, data)
    loss = lambda params, model_state, batch, key, step: (params.sum(), (model_state, {}))

    def evaluate(train_state):
        if int(train_state.step) == stop_at:
            raise KeyboardInterrupt
        return {"nll": VALUES[int(train_state.step)]}

    draw = lambda key, data, step: data
    return loop.Task(
        init=init,
        step=state.make_step(loss, draw, optimizer),
        evaluate=evaluate,
        data=np.zeros(1, np.float32),
        key_init=jax.random.key(0),
        key_train=jax.random.key(1),
        images_per_step=1,
        monitor="nll",
    )


CONFIG = loop.LoopConfig(num_steps=12, log_interval=4, eval_interval=4, checkpoint_interval=4)


def test_the_best_step_is_kept(tmp_path):
    result = loop.fit(make_task(), CONFIG, tmp_path, sharding.make_mesh(1))
    assert int(result.state.step) == 12
    assert int(result.best.step) == 8
    assert float(result.best.value) == 1.0
    np.testing.assert_allclose(result.best.params, -4.0)
    np.testing.assert_allclose(result.state.params, -6.0)


def test_an_interrupted_run_remembers_it(tmp_path):
    mesh, workdir = sharding.make_mesh(1), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        loop.fit(make_task(stop_at=12), CONFIG, workdir, mesh)
    result, _ = assert_resumes_bitwise(make_task(), CONFIG, workdir, mesh)
    assert int(result.best.step) == 8
    np.testing.assert_allclose(result.best.params, -4.0)
    # Nothing is left to do; the result is still there.
    assert_same_end(loop.fit(make_task(), CONFIG, workdir, mesh), result)


def test_the_last_step_is_a_candidate_whatever_the_interval(tmp_path):
    config = dataclasses.replace(CONFIG, num_steps=14)
    result = loop.fit(make_task(), config, tmp_path, sharding.make_mesh(1))
    assert int(result.best.step) == 14
    assert_same_end(loop.fit(make_task(), config, tmp_path, sharding.make_mesh(1)), result)


def test_a_longer_run_forgets_a_validation_that_it_would_not_have_made(tmp_path):
    mesh = sharding.make_mesh(1)
    loop.fit(make_task(), dataclasses.replace(CONFIG, num_steps=14), tmp_path / "longer", mesh)
    config = dataclasses.replace(CONFIG, num_steps=16)
    longer, _ = assert_resumes_bitwise(make_task(), config, tmp_path / "longer", mesh)
    assert int(longer.best.step) == 8


def test_a_validation_left_by_a_signal_counts_at_every_start(tmp_path):
    # Stopped in step 8, the best one: saved before it was validated.
    mesh = sharding.make_mesh(1)
    task = make_task()
    config = dataclasses.replace(CONFIG, num_steps=8, steps_per_call=4)

    def stop_at_4(train_state):
        if int(train_state.step) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return task.evaluate(train_state)

    with pytest.raises(loop.StoppedError, match="after step 8"):
        loop.fit(task._replace(evaluate=stop_at_4), config, tmp_path, mesh)
    for _ in range(2):  # the second start finds the record that the first one wrote
        result = loop.fit(task, config, tmp_path, mesh)
        assert int(result.best.step) == 8
    steps = [r["step"] for r in read_metrics(tmp_path) if "validation/nll" in r]
    assert steps == [4, 8]


def test_without_validation_nothing_is_best(tmp_path):
    config = loop.LoopConfig(num_steps=4, log_interval=4)
    result = loop.fit(make_task(), config, tmp_path, sharding.make_mesh(1))
    assert result.best is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])  # the last is infinite in float32
def test_a_monitored_value_that_is_not_finite_stops_the_run(tmp_path, value):
    """A NaN at every validation left the initial parameters as the best."""
    mesh, task = sharding.make_mesh(1), make_task()
    diverged = lambda state: {"nll": value if int(state.step) > 4 else 1.0, "elbo": np.nan}
    message = (
        r"nll of the validation at step 8 is (nan|inf), .*checkpoint of step 4 is kept\. .*rate"
    )
    for _ in range(2):  # and so does the second start
        with pytest.raises(loop.NonFiniteError, match=message):
            loop.fit(task._replace(evaluate=diverged), CONFIG, tmp_path, mesh)
    assert [r["step"] for r in read_metrics(tmp_path) if "validation/nll" in r] == [4]
    assert int(loop.fit(task, CONFIG, tmp_path, mesh).best.step) == 8


def seeds_task(*values):
    task, seeds = make_task(), len(values)
    init = jax.vmap(task.init, in_axes=(0, None))
    return task._replace(
        init=init,
        step=state.vmap_seeds(task.step),
        evaluate=lambda train_state: {"nll": np.asarray(values), "elbo": 1.0},
        key_init=jax.random.split(jax.random.key(0), seeds),
        key_train=jax.random.split(jax.random.key(1), seeds),
    )


def test_one_seed_that_is_not_finite_stops_them_all(tmp_path):
    mesh = sharding.make_mesh(1)
    with pytest.raises(loop.NonFiniteError, match=r"step 4 is \[1\.0, nan\], .*no checkpoint"):
        loop.fit(seeds_task(1.0, np.nan), CONFIG, tmp_path / "nan", mesh)
    result = loop.fit(seeds_task(1.0, 2.0), CONFIG, tmp_path / "finite", mesh)
    np.testing.assert_array_equal(result.best.value, [1.0, 2.0])


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["host", "jitted"])
@pytest.mark.parametrize("monitor", [None, "nll"])
def test_a_validation_metric_that_is_no_scalar_is_named(tmp_path, wrap, monitor):
    evaluate = wrap(lambda train_state: {"nll": jnp.zeros(3) + train_state.params.sum()})
    task = make_task()._replace(evaluate=evaluate, monitor=monitor)
    message = r"of evaluate must be scalars, got nll \(3,\): take their means$"
    with pytest.raises(ValueError, match=message):
        loop.fit(task, CONFIG, tmp_path, sharding.make_mesh(1))


def test_of_several_seeds_each_has_one_value(tmp_path):
    message = r"scalars, or have one value for each of 2 seeds, got nll \(2, 3\): take their means"
    with pytest.raises(ValueError, match=message):
        loop.fit(seeds_task([1.0] * 3, [2.0] * 3), CONFIG, tmp_path, sharding.make_mesh(1))


def test_seeds_keep_their_own_best():
    def at(step, params):
        return state.TrainState(jnp.array([step, step]), jnp.array(params), (), ())

    start = best.init(at(0, [[0.0], [0.0]]))
    first = best.update(start, jnp.array([5.0, 5.0]), at(1, [[1.0], [1.0]]))
    second = best.update(first, jnp.array([6.0, 4.0]), at(2, [[2.0], [2.0]]))
    np.testing.assert_array_equal(second.value, [5.0, 4.0])
    np.testing.assert_array_equal(second.step, [1, 2])
    np.testing.assert_array_equal(second.params, [[1.0], [2.0]])


def test_of_equal_values_the_later_is_best():
    """A prior whose log Z is never to be trusted is not evaluated at its first validation."""
    at = lambda step: state.TrainState(jnp.array(step), jnp.array([float(step)]), (), ())
    worst = jnp.float32(np.finfo(np.float32).max)
    so_far = best.init(at(0))
    for step, value in ((1, worst), (2, worst), (3, jnp.inf), (4, jnp.nan)):
        so_far = best.update(so_far, value, at(step))
    assert int(so_far.step) == 2
    np.testing.assert_array_equal(so_far.params, [2.0])
