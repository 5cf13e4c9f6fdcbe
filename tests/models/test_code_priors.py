"""Autoregressive priors of codes: they are distributions, causal, and sampled as they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import categorical
from dvae.models import code_prior

NETWORKS = (code_prior.GATED, code_prior.TRANSFORMER)
GRID, NUM_LATENTS, SIZE = (2, 3), 2, 3
LENGTH = GRID[0] * GRID[1] * NUM_LATENTS


@functools.cache
def make(network, grid=GRID, num_latents=NUM_LATENTS, size=SIZE):
    """A network with parameters that were not left at their first values."""
    config = code_prior.CodePriorConfig(
        grid, num_latents, size, network, features=8, num_layers=2, num_heads=2, dropout=0.5
    )
    module = code_prior.make(config)
    codes = jnp.zeros((1, *grid, num_latents), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(0), codes)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.4 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return module, jax.tree.unflatten(tree, moved)


@functools.cache
def logits_of(network):
    """The network, compiled."""
    module, params = make(network)
    return jax.jit(lambda codes: module.apply({"params": params}, codes))


def random_codes(count):
    return np.random.default_rng(0).integers(0, SIZE, (count, *GRID, NUM_LATENTS), np.int32)


@pytest.mark.thorough
@pytest.mark.parametrize("network", NETWORKS)
def test_all_codes_have_a_probability_of_one(network) -> None:
    grid, num_latents, size = (2, 2), 2, 2
    module, params = make(network, grid, num_latents, size)
    count = grid[0] * grid[1] * num_latents
    codes = categorical.all_codes(count, size).reshape(-1, *grid, num_latents)
    log_p = jax.jit(lambda codes: code_prior.log_prob(module, params, codes))(codes)
    log_p = np.asarray(log_p, np.float64)
    assert len(log_p) == size**count
    assert np.exp(log_p).std() > 0.1 * np.exp(log_p).mean()
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_depend_on_the_codes_before_and_on_all_of_them(network) -> None:
    """A change of code t changes no logits up to t, not by a bit, and all later ones."""
    first = random_codes(1)
    others = np.repeat(first, LENGTH, 0).reshape(LENGTH, LENGTH)
    others[np.arange(LENGTH), np.arange(LENGTH)] = (others.diagonal() + 1) % SIZE
    codes = np.concatenate([first.reshape(1, -1), others]).reshape(-1, *GRID, NUM_LATENTS)
    logits = np.asarray(logits_of(network)(codes)).reshape(-1, LENGTH, SIZE)
    differ = (logits[1:] != logits[:1]).any(-1)  # [changed, read]
    np.testing.assert_array_equal(differ, ~np.tri(LENGTH, dtype=bool))


@pytest.mark.thorough
@pytest.mark.parametrize("network", NETWORKS)
def test_sampling_from_a_cache_is_plain_sampling(network) -> None:
    """The codes of the sampler that evaluates the whole network for each, at the same key."""
    module, params = make(network)
    key, count = jax.random.key(5), 64
    codes = jnp.zeros((count, LENGTH), jnp.int32)
    draw = jax.jit(categorical.sample_codes)
    for t in range(LENGTH):
        logits = logits_of(network)(codes.reshape(count, *GRID, NUM_LATENTS))
        drawn = draw(jax.random.fold_in(key, t), logits.reshape(count, LENGTH, SIZE)[:, t])
        codes = codes.at[:, t].set(drawn)
    sample = jax.jit(functools.partial(code_prior.sample, module, num_samples=count))
    sampled = sample(params, jax.random.clone(key))
    np.testing.assert_array_equal(sampled.reshape(count, LENGTH), codes)
    assert len(np.unique(codes, axis=0)) > count // 2
    # Position by position, as a program does that shows how far it is.
    step = jax.jit(functools.partial(code_prior.advance, module))
    cache = code_prior.start(module, params, count)
    for position in range(GRID[0] * GRID[1]):
        cache = step(params, cache, jax.random.clone(key), position)
    np.testing.assert_array_equal(cache.codes, sampled)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("network", NETWORKS)
def test_it_starts_at_a_factorial_prior_and_drops_in_training_alone(network) -> None:
    module, moved = make(network)
    codes = random_codes(4)
    init = jax.jit(module.init)(jax.random.key(0), codes)["params"]
    bias = np.random.default_rng(1).normal(size=(NUM_LATENTS, SIZE)).astype(np.float32)
    init["logits"]["bias"] = jnp.asarray(bias)
    evaluate = jax.jit(functools.partial(code_prior.log_prob, module))
    log_p = np.asarray(jax.nn.log_softmax(bias))
    expected = log_p[np.arange(NUM_LATENTS), codes].sum((1, 2, 3))
    np.testing.assert_allclose(evaluate(init, codes), expected, rtol=1e-5)
    drop = jax.jit(lambda codes, key: code_prior.log_prob(module, moved, codes, key=key))
    one, two = (drop(codes, jax.random.key(i)) for i in (0, 1))
    assert (np.asarray(one) != np.asarray(two)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(grid=(2,)), r"grid must be rows and columns, got \(2,\)"),
        (dict(grid=(0, 2)), "rows must be at least 1, got 0"),
        (dict(network="gru"), "network must be gated or transformer, got gru"),
        (dict(network="transformer", features=6), "a multiple of num_heads=4, got 6"),
        (dict(dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sizes_that_make_no_prior(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        code_prior.CodePriorConfig(
            **{"grid": GRID, "num_latents": 2, "codebook_size": 3, **changes}
        )


def test_codes_that_do_not_fit() -> None:
    module, params = make(code_prior.TRANSFORMER)
    for codes, message in (
        (np.zeros((1, 3, 2, 2), np.int32), r"shape \[B, 2, 3, 2\]"),
        (np.full((1, *GRID, 2), 3, np.int32), "integers in 0 .. 2, the codes of this codebook"),
    ):
        with pytest.raises(ValueError, match=message):
            code_prior.log_prob(module, params, codes)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        code_prior.sample(module, params, jax.random.key(0), num_samples=0)


@pytest.mark.thorough
@pytest.mark.parametrize("network", ["gated", "transformer"])
def test_samples_where_doubles_are_enabled(network) -> None:
    config = code_prior.CodePriorConfig(
        (2, 2), 1, 3, network=network, features=2, num_layers=1, num_heads=1
    )
    module = code_prior.make(config)
    with jax.enable_x64(True):
        params = module.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1), jnp.int32))["params"]
        codes = code_prior.sample(module, params, jax.random.key(1), num_samples=2)
    assert codes.shape == (2, 2, 2, 1)
