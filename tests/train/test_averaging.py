"""The average beside the parameters: what it is, and that training does not notice it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dvae.train import averaging, state

DATA = jnp.arange(12.0).reshape(6, 2) / 12
OPTIMIZER = optax.adam(1e-1)
DECAY = 0.6


def init_fn(key, data):
    return {"w": jax.random.normal(key, (2,))}, {"seen": jnp.zeros(2), "count": jnp.zeros((), int)}


def loss_fn(params, model_state, batch, key, step):
    moved = {"seen": 0.5 * model_state["seen"] + batch[0], "count": model_state["count"] + 1}
    return jnp.mean((batch - params["w"][None]) ** 2), (moved, {})


def draw_fn(key, data, step):
    return data[jax.random.randint(jax.random.fold_in(key, step), (4,), 0, len(data))]


def of(params, model_state):
    return {"w": params["w"], "seen": model_state["seen"]}


PLAIN = state.make_step(loss_fn, draw_fn, OPTIMIZER)
STEP = averaging.average(PLAIN, of=of, decay=DECAY)


def initial(seed=0):
    return state.init(init_fn, OPTIMIZER, jax.random.key(seed), DATA)


def test_average_is_that_of_its_recursion_and_training_the_same_as_without() -> None:
    plain, wrapped = initial(), averaging.start(initial(), of=of)
    expected = jax.tree.map(np.asarray, of(plain.params, plain.model_state))
    np.testing.assert_array_equal(averaging.averaged(wrapped)["w"], expected["w"])
    key = jax.random.key(3)
    for t in range(1, 16):
        plain, metrics = jax.jit(PLAIN)(plain, DATA, key)
        wrapped, same = jax.jit(STEP)(wrapped, DATA, key)
        d = min(DECAY, (t + 1) / (t + 10))
        now = of(plain.params, plain.model_state)
        expected = {name: d * expected[name] + (1 - d) * np.asarray(now[name]) for name in now}
        assert metrics["loss"] == same["loss"]
    trained = wrapped._replace(opt_state=wrapped.opt_state.opt_state)
    jax.tree.map(np.testing.assert_array_equal, trained, plain)
    for name, value in averaging.averaged(wrapped).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)


@pytest.mark.thorough
def test_seeds_have_averages_of_their_own() -> None:
    one = [averaging.start(initial(seed), of=of) for seed in (0, 1)]
    both = jax.tree.map(lambda *x: jnp.stack(x), *one)
    keys = jax.random.split(jax.random.key(0))
    after, _ = state.vmap_seeds(STEP)(both, DATA, keys)
    for seed in (0, 1):
        alone, _ = STEP(one[seed], DATA, keys[seed])
        for a, b in zip(
            jax.tree.leaves(averaging.averaged(after)),
            jax.tree.leaves(averaging.averaged(alone)),
            strict=True,
        ):
            np.testing.assert_allclose(a[seed], b, rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_out_of_range_is_refused(decay) -> None:
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
        averaging.average(PLAIN, of=of, decay=decay)
