"""Images by scales: every pixel once, probabilities that sum to one, sampling alike."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import multiscale

TINY = dict(image_size=4, features=1, num_blocks=0)


def make(seed=0, context_side=2, **sizes):
    """A decoder whose parameters are all random, and a context [1, h, w, 4]."""
    module = multiscale.MultiscaleDecoder(multiscale.MultiscaleConfig(**{**TINY, **sizes}))
    c = module.config
    height, width = c.sides
    context_sides = context_side, context_side * width // height
    context = jax.random.normal(jax.random.key(seed), (1, *context_sides, 4))
    images = jnp.zeros((1, height, width, c.channels), jnp.uint8)
    method = multiscale.MultiscaleDecoder.log_likelihood
    params = jax.jit(lambda k: module.init(k, context, images, method=method))(jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [
        leaf + 0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return module, jax.tree.unflatten(tree, moved), context


@pytest.mark.parametrize(
    ("size", "num_scales"), [(4, 1), (4, 3), (28, 3), (32, 4), (12, 2), ((4, 12), 3)]
)
def test_the_scales_partition_the_image(size, num_scales) -> None:
    config = multiscale.MultiscaleConfig(image_size=size, num_scales=num_scales)
    scored = np.zeros(config.sides, int)
    for scale in range(num_scales):
        step = config.step(scale)
        sides = (side // step for side in config.sides)
        scored[::step, ::step] += multiscale.new_pixels(*sides, first=scale == 0)
    np.testing.assert_array_equal(scored, 1)


def test_networks_see_pixels_from_minus_one_to_one() -> None:
    bits, levels = np.array([0, 1], np.uint8), np.array([0, 51, 255], np.uint8)
    np.testing.assert_array_equal(multiscale.center(bits, 0), [-1, 1])
    np.testing.assert_allclose(multiscale.center(levels, 2), [-1, -0.6, 1], rtol=1e-6)
    assert multiscale.center(levels, 2).dtype == jnp.float32


@pytest.mark.parametrize("num_mixtures", [0, 2])
def test_scales_are_drawn_with_keys_of_their_own(monkeypatch, num_mixtures) -> None:
    module = multiscale.MultiscaleDecoder(
        multiscale.MultiscaleConfig(**TINY, num_scales=3, num_mixtures=num_mixtures)
    )
    context, images = jnp.zeros((1, 1, 1, 4)), jnp.zeros((1, 4, 4, 1), jnp.uint8)
    init = lambda key: module.init(key, context, images, method="log_likelihood")
    shapes = jax.eval_shape(init, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    used = []

    def sample(key, params, **options):
        used.append(jax.random.key_data(key))
        return jnp.zeros((*params.shape[:-1], 1))

    monkeypatch.setattr(multiscale.bernoulli, "sample", sample)
    monkeypatch.setattr(multiscale.discretized_logistic, "sample", sample)

    def keys_of(method):
        used.clear()
        module.apply(params, jax.random.key(1), context, method=method)
        return jnp.stack(used)

    keys = np.asarray(jax.jit(lambda: keys_of("generate"))())
    assert len(np.unique(keys, axis=0)) == len(keys) == 3
    if not num_mixtures:
        before = jax.jit(lambda: keys_of("generate_mean"))()
        np.testing.assert_array_equal(before, keys[:2])


@pytest.mark.many_cases
@pytest.mark.parametrize("num_scales", [1, 3])
def test_probabilities_of_all_4x4_images_sum_to_one(num_scales) -> None:
    module, params, context = make(num_scales=num_scales)
    bits = np.array(list(itertools.product((0, 1), repeat=16)), np.uint8)
    images = bits.reshape(-1, 4, 4, 1)
    spread = jnp.broadcast_to(context, (len(images), *context.shape[1:]))
    log_p = jax.jit(lambda c, x: module.apply(params, c, x, method="log_likelihood"))
    values = np.asarray(log_p(spread, images), np.float64)
    np.testing.assert_allclose(np.exp(values).sum(), 1, rtol=1e-5)
    # Coarser pixels matter to finer ones, so that the law is no product over pixels.
    p = np.exp(values)
    on = p @ bits
    pairs = np.einsum("b,bi,bj->ij", p, bits, bits) - on[:, None] * on[None, :]
    largest = np.abs(pairs - np.diag(np.diag(pairs))).max()
    assert (largest > 1e-4) == (num_scales > 1)


@pytest.mark.thorough
def test_probabilities_of_all_images_that_are_not_square_sum_to_one() -> None:
    module, params, context = make(num_scales=2, context_side=1, image_size=(2, 4))
    images = np.array(list(itertools.product((0, 1), repeat=8)), np.uint8).reshape(-1, 2, 4, 1)
    spread = jnp.broadcast_to(context, (len(images), *context.shape[1:]))
    log_p = jax.jit(lambda c, x: module.apply(params, c, x, method="log_likelihood"))
    np.testing.assert_allclose(np.exp(log_p(spread, images)).sum(), 1, rtol=1e-5)
    assert module.apply(params, jax.random.key(0), context, method="generate").shape == (1, 2, 4, 1)
    with pytest.raises(ValueError, match=r"doubles or halves to the coarsest scale's 1x2, got"):
        module.apply(params, jnp.ones((1, 2, 2, 4)), images[:1], method="log_likelihood")


@pytest.mark.thorough
def test_samples_have_the_probabilities() -> None:
    module, params, context = make(num_scales=3)
    spread = jnp.broadcast_to(context, (20_000, *context.shape[1:]))
    generate = jax.jit(lambda k, c: module.apply(params, k, c, method="generate"))
    images = generate(jax.random.key(3), spread)
    assert images.dtype == jnp.uint8
    assert set(np.unique(images)) == {0, 1}
    bits = np.array(list(itertools.product((0, 1), repeat=16)), np.uint8)
    every = jnp.broadcast_to(context, (len(bits), *context.shape[1:]))
    log_p = jax.jit(lambda c, x: module.apply(params, c, x, method="log_likelihood"))
    p = np.exp(np.asarray(log_p(every, bits.reshape(-1, 4, 4, 1)), np.float64))
    products = lambda b: np.concatenate([b, b * np.roll(b, 1, 1), b * np.roll(b, 5, 1)], 1)
    expected = p @ products(bits)
    found = products(np.asarray(images).reshape(-1, 16))
    error = np.sqrt(expected * (1 - expected) / len(found)) + 1e-9
    assert (np.abs(found.mean(0) - expected) < 5 * error).all()


@pytest.mark.thorough
def test_mean_of_the_last_scale_given_the_same_coarser_pixels() -> None:
    module, params, context = make(num_scales=2)
    generate = jax.jit(lambda k: module.apply(params, k, context, method="generate"))
    means = jax.jit(lambda k: module.apply(params, k, context, method="generate_mean"))
    key = jax.random.key(4)
    image, mean = np.asarray(generate(key)), np.asarray(means(key))
    np.testing.assert_array_equal(mean[:, ::2, ::2], image[:, ::2, ::2])
    rest = multiscale.new_pixels(4, 4, first=False)
    assert ((mean[0, rest] > 0) & (mean[0, rest] < 1)).all()


@pytest.mark.thorough
def test_levels_of_a_pixel_sum_to_one_and_are_drawn_in_color() -> None:
    module, params, context = make(num_mixtures=2, channels=1, num_scales=2, image_size=4)
    generate = jax.jit(lambda k: module.apply(params, k, context, method="generate"))
    image = generate(jax.random.key(5))
    # One pixel of the last scale takes all levels, everything else stays.
    images = jnp.repeat(image, 256, 0).at[:, 1, 2, 0].set(jnp.arange(256, dtype=jnp.uint8))
    spread = jnp.broadcast_to(context, (256, *context.shape[1:]))
    log_p = jax.jit(lambda c, x: module.apply(params, c, x, method="log_likelihood"))
    values = log_p(spread, images)
    others = jax.nn.logsumexp(values)
    # p(all others) is at most 1; given them the levels' probabilities sum to one.
    direct = jax.jit(lambda x: module.apply(params, context, x, method="log_likelihood"))(image)
    level = int(image[0, 1, 2, 0])
    np.testing.assert_allclose(values[level], direct[0], rtol=1e-5)
    assert float(others) < 0
    np.testing.assert_allclose(jnp.exp(values - others).sum(), 1, rtol=1e-5)

    module, params, context = make(num_mixtures=2, channels=3)
    colors = module.apply(params, jax.random.key(6), context, method="generate")
    assert colors.shape == (1, 4, 4, 3)
    with pytest.raises(ValueError, match="use generate"):
        module.apply(params, jax.random.key(6), context, method="generate_mean")


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("context_side", [2, 8])
def test_contexts_of_other_sizes_are_brought_to_the_first_scale(context_side) -> None:
    module, params, context = make(num_scales=2, context_side=context_side, image_size=8)
    image = module.apply(params, jax.random.key(0), context, method="generate")
    assert image.shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("size", "num_scales", "most"),
    [(28, 4, 3), (28, 0, 3), (32, 7, 6), (7, 2, 1), ((8, 12), 4, 3), (0, 1, 0)],
)
def test_scales_that_an_image_does_not_have(size, num_scales, most) -> None:
    with pytest.raises(ValueError, match=re.escape(f"1 to {most} at image_size={size}")):
        multiscale.MultiscaleConfig(image_size=size, num_scales=num_scales)
