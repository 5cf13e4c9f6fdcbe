"""The train step: pure, the same in a scan, and the same for several seeds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dvae.train import state

DATA = jnp.arange(40.0).reshape(20, 2) / 40


def init_fn(key, data):
    return {"w": jax.random.normal(key, (2,))}, jnp.zeros(())


def loss_fn(params, model_state, batch, key, step):
    noise = jax.random.normal(key, batch.shape)
    loss = jnp.mean((batch + 0.1 * noise - params["w"][None]) ** 2)
    return loss, (model_state + 1, {"seen": step, "noise": noise.mean()})


def draw_fn(key, data, step):
    return data[jax.random.randint(jax.random.fold_in(key, step), (4,), 0, len(data))]


OPTIMIZER = optax.adam(1e-2)
STEP = state.make_step(loss_fn, draw_fn, OPTIMIZER)


def initial(seed):
    return state.init(init_fn, OPTIMIZER, jax.random.key(seed), DATA)


def run(num_steps, seed=0):
    train_state, metrics = initial(seed), []
    for _ in range(num_steps):
        train_state, out = jax.jit(STEP)(train_state, DATA, jax.random.key(seed + 100))
        metrics.append(out)
    return train_state, metrics


def test_step_updates_everything_once() -> None:
    before = initial(0)
    after, metrics = STEP(before, DATA, jax.random.key(1))
    assert int(after.step) == 1
    assert int(after.model_state) == 1
    assert not np.array_equal(after.params["w"], before.params["w"])
    assert set(metrics) == {"loss", "grad_norm", "seen", "noise"}


@pytest.mark.parametrize("result", [0.0, (0.0, {}), (0.0, ((), 1.0)), (0.0, (), {})])
def test_a_loss_function_that_returns_anything_else(result) -> None:
    of_params = lambda params, *rest: jax.tree.map(lambda x: x + params["w"].sum(), result)
    step = state.make_step(of_params, draw_fn, OPTIMIZER)
    with pytest.raises(ValueError, match=r"must return \(loss, \(model_state, metrics\)\), got"):
        step(initial(0), DATA, jax.random.key(1))


@pytest.mark.parametrize(
    ("result", "got"),
    [
        ({"enc": 0.0, "dec": 0.0}, "got a dict"),
        ({"w": 0.0}, "got a dict"),
        ([0.0, 0.0], "got a list"),
        ((0.0,), "got a tuple of 1"),
        ((0.0, (), ()), "got a tuple of 3"),
    ],
)
def test_an_initialization_that_returns_anything_else(result, got) -> None:
    with pytest.raises(ValueError, match=r"init_fn must return \(params, model_state\), got") as e:
        state.init(lambda key, data: result, OPTIMIZER, jax.random.key(0), DATA)
    assert got in str(e.value)
    assert str(e.value).endswith("without a state: (params, ())")


@pytest.mark.parametrize(
    ("loss", "metrics", "message"),
    [
        (jnp.zeros(8), {}, r"a scalar loss, got shape \(8,\): take its mean over the batch"),
        (0.0, {"a": 0.0, "kl": jnp.zeros((8, 3))}, r"scalars, got kl \(8, 3\): take their means"),
    ],
)
def test_losses_and_metrics_are_scalars(loss, metrics, message) -> None:
    of_params = lambda params, *rest: (params["w"].sum() + loss, ((), metrics))
    step = state.make_step(of_params, draw_fn, OPTIMIZER)
    with pytest.raises(ValueError, match=message):
        step(initial(0), DATA, jax.random.key(1))


def test_randomness_depends_on_the_step_only_through_the_key() -> None:
    _, metrics = run(3)
    noises = [float(m["noise"]) for m in metrics]
    assert len(set(noises)) == 3
    assert [int(m["seen"]) for m in metrics] == [0, 1, 2]
    assert [float(m["noise"]) for m in run(3)[1]] == noises


def test_scan_equals_single_steps() -> None:
    expected, metrics = run(6)
    scanned = state.scan_steps(STEP, 3)
    train_state = initial(0)
    losses = []
    for _ in range(2):
        train_state, out = jax.jit(scanned)(train_state, DATA, jax.random.key(100))
        losses += out["loss"].tolist()
    np.testing.assert_allclose(train_state.params["w"], expected.params["w"], rtol=1e-6)
    np.testing.assert_allclose(losses, [m["loss"] for m in metrics], rtol=1e-6)
    assert int(train_state.step) == 6


def test_metrics_of_the_last_step_only() -> None:
    """The state and all other metrics are those of a call that computes them at each step."""
    key = jax.random.key(100)
    expected, of_each = jax.jit(state.scan_steps(STEP, 4))(initial(0), DATA, key)
    last_only = ("grad_norm",)
    after, found = jax.jit(state.scan_steps(STEP, 4, last_only=last_only))(initial(0), DATA, key)
    assert set(found) == set(of_each)
    assert found["grad_norm"].shape == (1,)
    of_each["grad_norm"] = of_each["grad_norm"][-1:]
    chex.assert_trees_all_close((after, found), (expected, of_each), rtol=1e-6)


def test_rows_of_data_with_metrics_of_the_last_step_only() -> None:
    rows, key = jnp.stack([DATA, 2 * DATA, 3 * DATA]), jax.random.key(100)
    expected, of_each = jax.jit(state.scan_batches(STEP, 3))(initial(0), rows, key)
    scan = state.scan_batches(STEP, 3, last_only=("grad_norm", "noise"))
    after, found = jax.jit(scan)(initial(0), rows, key)
    for name in ("grad_norm", "noise"):
        of_each[name] = of_each[name][-1:]
    chex.assert_trees_all_close((after, found), (expected, of_each), rtol=1e-6)


@pytest.mark.parametrize("num_seeds", [3])
def test_vmapped_seeds_equal_single_ones(num_seeds) -> None:
    step = jax.jit(state.vmap_seeds(STEP))
    stack = lambda first: jax.vmap(jax.random.key)(jnp.arange(first, first + num_seeds))
    many = jax.jit(jax.vmap(lambda key: state.init(init_fn, OPTIMIZER, key, DATA)))(stack(0))
    keys = stack(100)
    for _ in range(4):
        many, _ = step(many, DATA, keys)
    for seed in range(num_seeds):
        single, _ = run(4, seed)
        np.testing.assert_allclose(many.params["w"][seed], single.params["w"], rtol=1e-6)
