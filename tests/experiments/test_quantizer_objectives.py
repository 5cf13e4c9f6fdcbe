"""The quantizers as training rules: their equations, and training's value as evaluation's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_vq_objectives import ONE, B, C, D, N, W, log_likelihood, make_problem

from dvae import data, trained, vq
from dvae.train import sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import evaluation, names, quantizer_objectives, sizes
from experiments.cifar_vq import model as vq_model
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS

__all__ = ["make_problem"]
TINY = {
    **PRESETS["smoke"],
    "features": 4,
    "code_dim": 4,
    "crop": 8,
    "batch_size": 4,
    "num_eval_images": 4,
    "eval_batch_size": 4,
}


def config_of(estimator, **settings):
    """A tiny run; grids have the dimension of their codes."""
    settings = {"fsq": {"levels": "3,4"}, "residual": {"num_stages": 2}}.get(
        estimator, {}
    ) | settings
    return Config(**{**TINY, "estimator": estimator, **settings})


@pytest.fixture(name="images", scope="module")
def load_images():
    full = data.load("patches")
    return full._replace(
        train=full.train[:64, :8, :8],
        validation=full.validation[:4, :8, :8],
        test=full.test[:4, :8, :8],
        num_train_of_all=64,
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(name, marks=() if name in ("fsq", "residual") else pytest.mark.slow)
        for name in names.QUANTIZERS
    ],
)
def test_training_has_the_value_of_the_evaluation(images, estimator) -> None:
    """One step of the task: every part moves, and its bound is that of the model it leaves."""
    settings = {"crop": 0, "num_residual_blocks": 0, "kl_warmup_steps": 0}
    config, mesh = config_of(estimator, **settings), sharding.make_mesh(1)
    task = cifar_vq.make_task(config, images, mesh)
    state = jax.jit(task.init)(task.key_init, task.data)
    # Codes that differ, so that no bound is that of another prior.
    prior = state.params["network"]["prior_logits"]
    noise = jax.random.normal(jax.random.key(7), prior.shape)
    state.params["network"]["prior_logits"] = noise
    # A vector of zeros, which encoders this small make, has no angle to a code.
    *_, last = state.params["network"]["encoder"].values()
    last["bias"] = 0.1 * jax.random.normal(jax.random.key(8), last["bias"].shape)
    loss = cifar_vq.task.loss_fn(config, images.train.shape[-1])

    def evaluate(params):
        key, step = jax.random.key(0), jnp.int32(0)
        return loss(params, state.model_state, images.test, key, step)

    evaluate = jax.jit(jax.value_and_grad(evaluate, has_aux=True))
    (value, (_, metrics)), gradient = evaluate(state.params)
    if estimator == "fsq":  # which has no penalty: nats per sub-pixel
        np.testing.assert_allclose(value, metrics["bits_per_dim"] * np.log(2), rtol=1e-5)
    found = evaluation.Evaluator(config, images, mesh).evaluate(
        state.params, state.model_state, images.test
    )
    for name, value in found.means().items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    still = {"log_scale"}
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        moved = float(jnp.abs(x).max()) > 0
        assert moved != (name.rpartition("/")[2] in still), name
    # The exported model is what was evaluated, and knows its own settings.
    functions = vq_model.functions(config, images.train.shape[1:])
    arrays = vq_model.arrays(state.params, state.model_state)
    codes = jax.jit(functions.encode)(arrays, None, images.test)
    functions.check_codes(np.asarray(codes))
    rows = functions.quantized(arrays, codes)
    assert rows.shape == (4, 2, 2, config.num_latents, config.vector_dim)
    counts = jax.vmap(lambda k: vq.usage(k, config.num_codes), in_axes=-1)(codes)
    np.testing.assert_array_equal(counts, found.counts[0])


@pytest.mark.many_cases
@pytest.mark.parametrize("estimator", names.QUANTIZERS)
def test_models_of_quantizers_are_read_back(tmp_path, estimator) -> None:
    functions = vq_model.functions(config_of(estimator, num_residual_blocks=0), (8, 8, 1))
    rng = np.random.default_rng(0)
    draw = lambda x: (0.5 * rng.normal(size=x.shape)).astype(x.dtype)
    params = jax.tree.map(draw, functions.abstract_params())
    trained.save(tmp_path / "model", functions, params, trained.Card("noise"))
    model = trained.load(tmp_path)
    assert model.functions == functions
    wrong = dataclasses.asdict(functions) | {"posterior": "levels", "levels": (7, 7)}
    with pytest.raises(ValueError, match=r"stages are of a residual|levels must be of"):
        trained.cifar_vq.Functions(**{**wrong, "network": functions.network})


RULES = {
    "lfq": lambda m, v, c, x, **k: _signs(m, v, x, False, **k),
    "rotation": lambda *a, **k: quantizer_objectives.rotation(*a, commitment_weight=0.25, **k),
    "cosine": lambda *a, **k: quantizer_objectives.cosine(*a, commitment_weight=0.25, **k),
    "residual": lambda m, v, c, x, **k: quantizer_objectives.residual(
        m, v, jnp.stack([c, -c], 1), x, commitment_weight=0.25, **k
    ),
    "simvq": lambda m, v, c, x, **k: quantizer_objectives.simvq(
        m, v, c, jnp.stack([2 * jnp.eye(D)] * N), x, commitment_weight=0.25, **k
    ),
    "fsq": lambda m, v, c, x, **k: quantizer_objectives.fsq(m, v, x, levels=(3,) * D, **k),
    "bsq": lambda m, v, c, x, **k: _signs(m, v, x, True, **k),
}


def _signs(model, vectors, images, on_sphere, **weights):
    return quantizer_objectives.signs(
        model,
        vectors,
        images,
        on_sphere=on_sphere,
        commitment_weight=0.25,
        entropy_weight=0.1,
        inverse_temperature=2.0,
        **weights,
    )


def expected(rule, v, codebook):
    """The codes' vectors and the penalty of an image of W positions, written out in NumPy."""
    normal = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    squares = lambda a, b: ((a - b) ** 2).sum(-1)
    pick = lambda x, m: np.stack(
        [m[n][squares(x[:, n, None], m[n]).argmin(-1)] for n in range(N)], 1
    )
    flat = v.reshape(-1, N, D)
    an_image = lambda x: x.sum() / B
    if rule == "fsq":
        return np.round(1.001 * np.tanh(flat)), 0.0
    if rule in ("lfq", "bsq"):
        scale = D**-0.5 if rule == "bsq" else 1.0
        u = normal(flat) if rule == "bsq" else flat
        q = scale * np.sign(flat)
        entropy = lambda p: -(p * np.log(p) + (1 - p) * np.log1p(-p))
        p = 1 / (1 + np.exp(-4 * 2.0 * scale * u))
        entropies = entropy(p).mean(0).sum() - entropy(p.mean(0)).sum()
        return q, an_image(0.25 * squares(u, q)) / D + W * 0.1 * entropies
    if rule == "cosine":
        q = pick(normal(flat), normal(codebook))
        return q, an_image(1.25 * squares(normal(flat), q)) / D
    if rule == "simvq":
        q = pick(flat, 2 * codebook)
        return q, an_image(1.25 * squares(flat, q)) / D
    q = pick(flat, codebook)
    penalty = 1.25 * squares(flat, q)
    if rule == "residual":
        second = pick(flat - q, -codebook)
        penalty = penalty + 1.25 * squares(flat - q, second)
        q = q + second
    return q, an_image(penalty) / D


@pytest.mark.many_cases(every=4)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_its_equation(problem, rule) -> None:
    model, vectors, codebook, images = problem
    num_codes = {"fsq": 3**D, "lfq": 2**D, "bsq": 2**D}.get(rule, C)
    num_latents = 2 * N if rule == "residual" else N
    log_prior = jax.nn.log_softmax(jax.random.normal(jax.random.key(2), (num_latents, num_codes)))
    model = model._replace(log_prior=log_prior)
    evaluate = jax.jit(lambda v, c: RULES[rule](model, v, c, images, kl_weight=0.5 * ONE))
    terms = evaluate(vectors, codebook)
    q, penalty = expected(rule, np.asarray(vectors, np.float64), np.asarray(codebook, np.float64))
    log_px = log_likelihood(jnp.asarray(q.reshape(vectors.shape), jnp.float32), images)
    np.testing.assert_allclose(-terms.distortion, log_px, rtol=1e-4)
    codes = np.asarray(terms.codes).reshape(B, -1, num_latents)
    rate = -np.asarray(log_prior)[np.arange(num_latents), codes].sum((1, 2))
    np.testing.assert_allclose(terms.rate, rate, rtol=1e-5)
    np.testing.assert_allclose(terms.objective, log_px - rate, rtol=1e-4)
    value = (np.asarray(log_px) - 0.5 * rate).mean() - penalty
    np.testing.assert_allclose(terms.surrogate, value, rtol=1e-4)


def test_an_image_costs_the_stages_that_it_keeps(problem) -> None:
    model, vectors, codebook, images = problem
    books = jnp.stack([codebook, -codebook], 1)
    log_prior = jax.nn.log_softmax(jax.random.normal(jax.random.key(2), (2 * N, C)))

    @jax.jit
    def evaluate(log_prior, books, depth=None):
        of_prior = model._replace(log_prior=log_prior)
        weights = {"commitment_weight": 0.25, "kl_weight": ONE, "depth": depth}
        return quantizer_objectives.residual(of_prior, vectors, books, images, **weights)

    both, one = evaluate(log_prior, books), evaluate(log_prior[::2], books[:, :1])
    depth = (1 + jnp.arange(B) % 2)[:, None, None]
    mixed = evaluate(log_prior, books, depth)
    for name in ("rate", "distortion", "objective"):
        values = (getattr(terms, name) for terms in (mixed, one, both))
        found, *expected = map(np.asarray, values)
        np.testing.assert_allclose(found, np.where(np.arange(B) % 2, *expected[::-1]), rtol=1e-5)
    alone = evaluate(log_prior, books, jnp.ones_like(depth))
    np.testing.assert_allclose(alone.surrogate, one.surrogate, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda *x: evaluate(*x, jnp.ones_like(depth)).surrogate, (0, 1)))
    of_prior, of_books = slope(log_prior, books)
    assert not of_prior[1::2].any()
    assert not of_books[:, 1].any()
    assert np.isfinite(of_prior).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(estimator="fsq", levels="8,1"), "--levels=8,1 must list the levels .* 2 or more"),
        (dict(estimator="fsq", levels="8,,5"), "--levels=8,,5 must list"),
        (
            dict(estimator="fsq", levels="99999,99999"),
            "make 9999800001 codes; they must be at most",
        ),
        (dict(estimator="lfq", codebook_size=240), "power of 2 for lfq.*use 128 or 256"),
        (
            dict(estimator="bsq", codebook_size=2**31),
            "--codebook_size=2147483648 must be at most 1073741824",
        ),
        (
            dict(estimator="lfq", codebook_size=2**30),
            "makes codebooks of 8 x 1073741824 x 30 float32 numbers, 1,031 GB, and 32 GB is",
        ),
        (
            dict(estimator="fsq", levels="1000,1000,1000"),
            "--levels=1000,1000,1000 makes codebooks of 8 x 1000000000 x 3 float32 numbers, 96 GB",
        ),
        (
            dict(codebook_size=2**20, crop=16),
            "--codebook_size=1048576 makes distances to codes of 8192 x 1048576 float32 numbers",
        ),
        (dict(estimator="residual", num_stages=0), "--num_stages=0 must be at least 1"),
    ],
)
def test_sizes_that_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_sizes_of_grids() -> None:
    assert sizes.levels_of("8, 5,5,5") == (8, 5, 5, 5)
    fsq, lfq = Config(estimator="fsq"), Config(estimator="lfq", codebook_size=4_096)
    assert (fsq.num_codes, fsq.vector_dim) == (1_000, 4)
    assert (lfq.num_codes, lfq.vector_dim) == (4_096, 12)
    assert Config(estimator="bsq", codebook_size=2**24).vector_dim == 24, "13 GB are taken"
    assert fsq.default_workdir() == "runs/cifar_vq-cifar10-fsq-C1000-seed0"
