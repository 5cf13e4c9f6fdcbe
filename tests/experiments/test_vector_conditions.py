"""Models that are given real vectors: bytes in rows, the bound by enumeration, and whole runs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_binary_objectives import MEAN, NUM_PIXELS, TINY, X
from test_conditions import CLASSES, CONFIG, NUM_LABELS, enumerated, noisy_start

import dvae
from dvae import data
from dvae.train import loop, sharding
from experiments import encode
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import classes, conditions, evaluation, optimizers, task
from experiments.binary_vae.config import Config

VECTORS = conditions.Condition(NUM_LABELS, one_hot=False)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 2, (40, 4, 5), dtype=np.uint8)
INK = np.stack([IMAGES.mean((1, 2)), RNG.normal(size=len(IMAGES))], 1)  # [40, 2]
SETTINGS = {**TINY, "num_steps": 8, "eval_interval": 4, "checkpoint_interval": 4, "batch_size": 8}
SETTINGS |= {"test_samples": 5, "eval_samples": 5, "condition": "labels"}


def bits_of(x):
    return np.asarray(x).view(np.uint32)


def test_vectors_go_through_rows_bit_by_bit():
    tiny, largest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    edges = [0.0, -0.0, tiny, -tiny, largest, -largest, 1 / 3, 1e-40]
    patterns = RNG.integers(0, 2**32, 4_000, dtype=np.uint32).view(np.float32)
    finite = patterns[np.isfinite(patterns)][:3_000]
    vectors = np.concatenate([np.array(edges, np.float32), finite, finite[:1]]).reshape(-1, 3)
    pixels = RNG.integers(0, 256, (len(vectors), 2, 3), dtype=np.uint8)
    rows = conditions.rows(pixels, vectors)
    assert (rows.dtype, rows.shape) == (np.uint8, (len(vectors), 6 + 12))
    # As they are stored, as a step sees them, and of images in another type.
    split = jax.jit(lambda x: conditions.split(x, VECTORS))
    for seen in (rows, rows.astype(np.float32), conditions.rows(pixels.astype(float), vectors)):
        x, labels = split(jnp.asarray(seen))
        np.testing.assert_array_equal(x, pixels.reshape(len(pixels), -1))
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(bits_of(labels), bits_of(vectors))
    # Other orders of axes and bytes, and double precision.
    for other in (vectors.astype(">f4"), np.asfortranarray(vectors), vectors.astype(np.float64)):
        np.testing.assert_array_equal(conditions.rows(pixels, other), rows)


def test_a_batch_has_the_pixels_that_it_has_without_vectors_and_each_its_vector():
    images = data.load("digits")
    levels = images.train.reshape(len(images.train), -1)
    vectors = RNG.normal(size=(len(levels), 2)).astype(np.float32)
    config, mesh = Config(**TINY, batch_size=16), sharding.make_mesh(1)
    batches = []
    for labels, condition in (
        (None, conditions.NOTHING),
        (vectors, conditions.Condition(2, False)),
    ):
        rows = conditions.rows(images.train, labels)
        draw = task.draw_fn(config, True, mesh, len(rows), condition)
        batches.append(jax.jit(draw)(jax.random.key(0), rows, jnp.int32(5)))
    pixels, drawn = conditions.split(batches[1], condition)
    np.testing.assert_array_equal(batches[0], pixels)
    for seen, vector in zip(np.asarray(pixels), np.asarray(drawn), strict=True):
        (index,) = np.nonzero((vectors == vector).all(1))[0]
        assert np.where(seen == 1, levels[index] > 0, levels[index] < 255).all()


def test_one_hot_vectors_train_like_the_labels_that_they_stand_for():
    params, state = noisy_start(CLASSES)
    with_bias = {**params, "network": {**params["network"], "prior_bias": jnp.zeros(3)}}
    labels = np.array([2, 0])
    results = []
    for own, condition, given in (
        (params, CLASSES, labels),
        (with_bias, VECTORS, np.eye(NUM_LABELS, dtype=np.float32)[labels]),
    ):
        loss = jax.jit(
            jax.value_and_grad(task.loss_fn(CONFIG, NUM_PIXELS, None, condition), has_aux=True)
        )
        rows = jnp.asarray(conditions.rows(X, given))
        results.append(loss(own, state, rows, jax.random.key(0), jnp.int32(0)))
    ((value, _), gradients), ((expected, _), of_vectors) = results[0], results[1]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    of_bias = of_vectors["network"].pop("prior_bias")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, of_vectors, gradients)
    close(of_bias, gradients["network"]["prior_logits"].sum(0))
    assert np.abs(of_bias).max() > 0.01


def test_the_bound_of_real_vectors_is_that_of_enumeration():
    params, state = noisy_start(VECTORS)
    network = jax.tree.map(lambda x: np.asarray(x, np.float64), params["network"])
    assert network["prior_bias"].shape == (CONFIG.num_latents,)
    loss = jax.jit(task.loss_fn(CONFIG, NUM_PIXELS, condition=VECTORS))
    values = []
    for y in (np.zeros(NUM_LABELS), np.array([-1.5, 0.25, 2.0]), np.array([0.5, 1.0, -3.0])):
        rows = conditions.rows(X, np.tile(y, (len(X), 1)))
        value, _ = loss(params, state, jnp.asarray(rows), jax.random.key(0), jnp.int32(0))
        np.testing.assert_allclose(
            -value, np.mean([enumerated(network, x, y) for x in X]), rtol=1e-5
        )
        values.append(float(value))
    assert np.ptp(values) > 0.1


def test_the_prior_without_effect_of_vectors_learns_a_bias():
    """At its start p(z | y) is uniform, and moves at y = 0, too."""
    config = dataclasses.replace(CONFIG, prior_learning_rate=0.5)
    params, state = jax.jit(task.init_fn(config, MEAN, VECTORS))(jax.random.key(3), X)
    rows = jnp.asarray(conditions.rows(X, np.zeros((len(X), NUM_LABELS), np.float32)))
    loss = task.loss_fn(config, NUM_PIXELS, None, VECTORS)
    gradients = jax.jit(jax.grad(loss, has_aux=True))(
        params, state, rows, jax.random.key(0), jnp.int32(0)
    )[0]
    optimizer = optimizers.optimizer(config)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # By plain descent, as the flag says.
    of_bias, gradient = (tree["network"]["prior_bias"] for tree in (updates, gradients))
    np.testing.assert_allclose(of_bias, -0.5 * gradient, rtol=1e-6)
    assert np.abs(of_bias).max() > 1e-3
    assert not np.any(updates["network"]["prior_logits"])


def own(**changed):
    arrays = {"train": IMAGES, "test": IMAGES[:9], "train_labels": INK, "test_labels": INK[:9]}
    return data.from_arrays(**{**arrays, **changed}, name="own", binarization="static")


def test_the_kind_of_labels_decides():
    assert conditions.condition_of(CONFIG, own()) == conditions.Condition(2, one_hot=False)
    assert conditions.condition_of(Config(**TINY), own()) == conditions.NOTHING
    integers = dict(train_labels=np.arange(40) % 4, test_labels=np.arange(9) % 4)
    assert conditions.condition_of(CONFIG, own(**integers)) == conditions.Condition(4)
    with pytest.raises(ValueError, match="all training images of own have one label"):
        conditions.condition_of(CONFIG, own(train_labels=0 * INK + [1.0, 2.0]))
    with pytest.raises(ValueError, match="--condition=labels: own has no labels"):
        conditions.condition_of(CONFIG, own(test_labels=None))
    for prior in ("rbm", "boltzmann"):
        with pytest.raises(ValueError, match=f"--prior={prior} takes no real vectors .* bins of"):
            conditions.check_prior(VECTORS, prior)
        conditions.check_prior(CLASSES, prior)
    conditions.check_prior(VECTORS, "directed")


def test_nothing_is_said_of_classes_where_there_are_none():
    config, mesh = Config(**SETTINGS), sharding.make_mesh(1)
    evaluator = evaluation.Evaluator(config, own(), mesh)
    assert classes.of_run(config, evaluator, {}, {}, own()) == {}
    assert classes.picture(config, evaluator, {}, {}, own()) == {}
    with pytest.raises(ValueError, match=r"labels must be real numbers \[3, 2\], got int64 \(3,\)"):
        evaluator.sample_prior({}, {}, 3, labels=np.arange(3))


@pytest.fixture(name="archive")
def write_archive(tmp_path):
    np.savez(
        tmp_path / "own.npz", train=IMAGES, test=IMAGES[:9], train_labels=INK, test_labels=INK[:9]
    )
    return str(tmp_path / "own.npz")


@pytest.mark.thorough
@pytest.mark.usefixtures("one_device")
def test_a_run_on_vectors_leaves_a_model_that_takes_them(tmp_path, archive):
    config = Config(**SETTINGS | {"dataset": archive}, workdir=str(tmp_path / "run"))
    summary = binary_vae.run(config)
    assert "classes" not in summary
    assert "classes.png" not in summary["files"]
    model = dvae.load(tmp_path / "run")
    assert model.functions.network.real_labels
    key = jax.random.key(0)
    batch = jax.random.fold_in(key, 2), jax.random.fold_in(jax.random.fold_in(key, 2), 0)
    images, labels = IMAGES[:9, ..., None], INK[:9]
    elbo = model.elbo(batch[1], images, labels=labels)
    np.testing.assert_allclose(elbo.mean(), summary["test"]["elbo_nats"], atol=1e-4)
    # Double precision is rounded, and nothing else is done to it.
    samples = model.sample(key, 3, labels=INK[:3])
    assert samples.shape == (3, 4, 5, 1)
    rounded = INK[:3].astype(np.float32)
    np.testing.assert_array_equal(samples, model.sample(jax.random.key(0), 3, labels=rounded))
    assert not np.array_equal(
        samples, model.sample(jax.random.key(0), 3, labels=50 - 100 * rounded)
    )
    settings = encode.Config(batch_size=4)  # the last is padded
    arrays = encode.encode(settings, *encode.prepare(settings, tmp_path / "run", archive))
    np.testing.assert_array_equal(arrays["test"], model.encode(None, images, labels=labels))
    np.testing.assert_array_equal(arrays["test_labels"], labels.astype(np.float32))
    # The flag is as it was, and so are records.
    assert json.loads((tmp_path / "run" / "config.json").read_text())["condition"] == "labels"


@pytest.mark.thorough
@pytest.mark.usefixtures("one_device")
def test_a_stopped_run_on_vectors_goes_on_bit_by_bit(tmp_path, archive):
    mesh, states = sharding.make_mesh(1), {}
    for name, parts, place in (
        ("whole", (8,), "device"),
        ("cut", (4, 8), "device"),
        ("host", (4, 8), "host"),
    ):
        config = Config(**SETTINGS | {"dataset": archive}, num_seeds=2, data_on=place)
        todo = binary_vae.make_task(config, task.prepare(config), mesh)
        values = {todo.monitor: np.zeros(2, np.float32)}
        for num_steps in parts:
            lengths = dataclasses.replace(config.loop(), num_steps=num_steps, eval_interval=0)
            fit = todo._replace(evaluate=lambda _, values=values: values)
            result = loop.fit(fit, lengths, tmp_path / name, mesh)
        states[name] = jax.device_get(result.state.params)
    for name in ("cut", "host"):
        jax.tree.map(np.testing.assert_array_equal, states[name], states["whole"])
    network = states["whole"]["network"]
    assert network["prior_logits"].shape == (2, 2, 3)
    assert np.abs(network["prior_bias"]).min() > 0
