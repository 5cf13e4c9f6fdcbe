"""What a run says of its training: the gradient's variance against NumPy's, the training ELBO."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from test_binary_objectives import NUM_PIXELS, TINY, X, make

from dvae import data
from dvae.train import metrics, sharding
from dvae.train.state import TrainState
from experiments.binary_vae import gradient_noise, names, task, training
from experiments.binary_vae.config import Config
from experiments.common import evaluation

DRAWS = 7


def gradients(config, params, state, key):
    """Those of the encoder under the keys of the draws, [DRAWS, P]."""
    loss = task.loss_fn(config, NUM_PIXELS)

    def one(key):
        grads = jax.grad(lambda p: loss(p, state, X, key, jnp.int32(0))[0])(params)
        return ravel_pytree(grads["network"]["encoders_0"])[0]

    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(DRAWS))
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


@pytest.mark.thorough
def test_the_variance_is_that_of_the_encoders_gradients_of_each_seed():
    config = Config(**{**TINY, "estimator": names.DISARM}, gradient_draws=DRAWS, num_seeds=2)
    params, state = make(config)
    others = jax.tree.map(lambda x: x + 0.5, params)
    stack = lambda a, b: jax.tree.map(lambda *x: jnp.stack(x), a, b)
    train_state = TrainState(
        jnp.zeros(2, jnp.int32), stack(params, others), stack(state, state), ()
    )
    mesh = sharding.make_mesh(1)
    pixels = X.astype(np.uint8)[:, None, None]
    images = data.Dataset("bits", pixels, pixels, pixels, "static")
    measure = gradient_noise.measure_fn(config, images, mesh)
    found = measure(train_state)[gradient_noise.METRIC]
    assert found.shape == (2,)
    keys = [jax.random.fold_in(k, gradient_noise.DRAWS) for k in evaluation.seed_keys(config)]
    for value, of_seed, key in zip(found, (params, others), keys, strict=True):
        expected = gradients(config, of_seed, state, key).var(0, ddof=1).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_the_variance_is_that_of_numpy_for_a_known_gradient(monkeypatch):
    """The encoder's gradient is one normal draw a key, and the decoder's is none of it."""

    def slopes(key):
        a, b = jax.random.normal(key, (2, 4))
        return {"bias": a, "kernel": jnp.stack([b, a * b])}

    def loss_fn(config, num_pixels, *, condition):
        def loss(params, model_state, x, key, step):
            network = params["network"]
            products = jax.tree.map(lambda w, s: (w * s).sum(), network["encoders_0"], slopes(key))
            return sum(jax.tree.leaves(products)) + 7 * network["decoder"].sum(), None

        return loss

    monkeypatch.setattr(task, "loss_fn", loss_fn)
    variance = gradient_noise.variance_fn(Config(**TINY, gradient_draws=3), NUM_PIXELS)
    encoder = {"bias": jnp.zeros(4), "kernel": jnp.zeros((2, 4))}
    params = {"network": {"encoders_0": encoder, "decoder": jnp.ones(5)}}
    key = jax.random.key(5)
    draw = jax.jit(lambda key, i: ravel_pytree(slopes(jax.random.fold_in(key, i)))[0])
    drawn = [draw(jax.random.clone(key), i) for i in range(3)]
    expected = np.asarray(drawn, np.float64).var(0, ddof=1).sum()
    found = jax.jit(variance)(params, {}, X, key, jnp.int32(0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_training_elbo_is_of_the_last_step_on_evenly_spaced_images(tmp_path):
    """Grey levels are sampled once, and evaluated with one sample each."""
    levels = np.zeros((9, 1, 1, NUM_PIXELS), np.uint8)
    levels[::4] = 255
    images = data.Dataset("grey", levels, levels[:1], levels[:1], "dynamic")
    calls = []

    def evaluate(params, model_state, pixels, *, num_samples):
        calls.append((params, model_state, pixels, num_samples))
        return SimpleNamespace(elbo=np.array([[-1.0, -2.0, -6.0]], np.float32))

    config = Config(**TINY, num_training_images=3)
    state = TrainState(np.int32(10), "params", "state", ())
    evaluator = SimpleNamespace(evaluate=evaluate)
    record = training.of_run(config, evaluator, state, images, tmp_path)
    ((params, model_state, pixels, num_samples),) = calls
    assert (params, model_state, num_samples) == ("params", "state", 1)
    np.testing.assert_array_equal(pixels, np.ones((3, 1, 1, NUM_PIXELS)))
    found = record["training"]
    assert (found["step"], found["num_images"], found["elbo_nats"]) == (10, 3, -3.0)
    assert "gradient_variance" not in record
    assert training.of_run(Config(**TINY), evaluator, state, images, tmp_path) == {}


def test_a_run_that_was_cut_has_the_curve_of_a_whole_one(tmp_path):
    """Validations at the end of a time limit, or of an export, are not among its points."""
    config = Config(**{**TINY, "eval_interval": 4}, gradient_draws=2)
    state = TrainState(np.int32(10), "params", "state", ())
    found = {}
    for name, steps in (("whole", (4, 8, 10)), ("cut", (3, 4, 7, 8, 10))):
        (tmp_path / name).mkdir()
        writer = metrics.MetricsWriter(tmp_path / name, 0)
        for step in steps:
            writer.write(step, {f"validation/{gradient_noise.METRIC}": 0.5 * step})
        writer.close()
        found[name] = training.of_run(config, None, state, None, tmp_path / name)
    assert found["whole"]["gradient_variance"]["steps"] == [4, 8, 10]
    assert found["whole"]["gradient_variance"]["encoder"] == [2.0, 4.0, 5.0]
    assert found["cut"] == found["whole"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(gradient_draws=1), "--gradient_draws=1 has no variance; use 0"),
        (dict(num_training_images=1), "--num_training_images=1 has no standard error"),
        (dict(num_training_images=9, coordinator="auto"), "use --num_training_images=0"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**TINY, **settings)
