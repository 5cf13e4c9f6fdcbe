"""The networks of DVAE++: shapes, what sees what, and what makes no model."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import dvaepp, dvaepp_latents, se_resnet
from dvae.models.multiscale import MultiscaleConfig

CONFIG = dvaepp.DVAEPPConfig(
    MultiscaleConfig(image_size=12, features=1, num_blocks=0),
    global_sizes=(3, 2),
    local_groups=3,
    local_size=2,
    hidden=(4,),
)


def draw(key, q, p):
    """Something of both that is alike for all groups."""
    h = (p if q is None else p + q)[..., :2] + jax.random.normal(key, (*p.shape[:-1], 2))
    return h, h.sum((1, 2, 3))


@pytest.fixture(name="model", scope="module")
def make_model():
    module = dvaepp.DVAEPP(CONFIG)
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 12, 12, 1)).astype(jnp.uint8)
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]
    # Heads that start at zero would hide what they depend on.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, [a + b for a, b in zip(leaves, noise, strict=True)])
    return module, params, x


def call(model, method, *args):
    module, params, _ = model
    return module.apply({"params": params}, *args, method=method)


@pytest.mark.thorough
def test_shapes(model) -> None:
    features = call(model, "encode", model[2])
    assert features.local.shape == (2, 3, 3, CONFIG.features)
    first = call(model, "global_posterior", features, [])
    second = call(model, "global_posterior", features, [first])
    assert (first.shape, second.shape) == ((2, 3), (2, 2))
    context = call(model, "expand", [first, second])
    assert context.shape == (2, 3, 3, CONFIG.features)
    context, divergences = call(model, "local_groups", jax.random.key(0), context, features, draw)
    assert divergences.shape == (3, 2)
    assert call(model, "log_likelihood", context, model[2]).shape == (2,)
    assert call(model, "generate", jax.random.key(0), context).shape == model[2].shape


@pytest.mark.thorough
def test_groups_have_parameters_of_their_own_and_see_the_ones_before(model) -> None:
    module, params, x = model
    kernel = params["group"]["embed"]["kernel"]
    assert kernel.shape[0] == 3
    assert not np.allclose(kernel[0], kernel[1])
    features = call(model, "encode", x)
    context = call(model, "expand", [jnp.ones((2, 3)), jnp.ones((2, 2))])

    def run(params):
        return module.apply(
            {"params": params}, jax.random.key(0), context, features, draw, method="local_groups"
        )

    _, before = run(params)
    moved = {**params, "group": jax.tree.map(lambda w: w.at[1].add(0.5), params["group"])}
    _, after = run(moved)
    # The first group is not touched by the second one's parameters, the third sees its sample.
    np.testing.assert_allclose(before[0], after[0], rtol=1e-6)
    assert not np.allclose(before[1], after[1])
    assert not np.allclose(before[2], after[2])


@pytest.mark.thorough
def test_the_prior_path_does_not_see_the_image(model) -> None:
    context = call(model, "expand", [jnp.ones((2, 3)), jnp.ones((2, 2))])
    drawn, _ = call(model, "local_groups", jax.random.key(0), context, None, draw)
    np.testing.assert_array_equal(drawn[0].shape, drawn[1].shape)
    features = call(model, "encode", model[2])
    other, _ = call(model, "local_groups", jax.random.key(0), context, features, draw)
    assert not np.allclose(drawn, other)


@pytest.mark.thorough
def test_remat_changes_nothing(model) -> None:
    module, params, x = model
    features = call(model, "encode", x)
    context = call(model, "expand", [jnp.ones((2, 3)), jnp.ones((2, 2))])

    def loss(params, module):
        inputs = (jax.random.key(0), context, features, draw)
        out, _ = module.apply({"params": params}, *inputs, method="local_groups")
        return (out**2).sum()

    kept = dvaepp.DVAEPP(dvaepp.DVAEPPConfig(**{**vars(CONFIG), "remat": False}))
    one, other = (jax.jit(jax.grad(lambda p, m=m: loss(p, m)))(params) for m in (module, kept))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.abs(a).max()))


def test_scales_are_bounded_after_they_are_added_up() -> None:
    q, p = np.array([[0.5, 4.0]]), np.array([[0.25, 3.0]])
    (mean, log_scale), (mean_p, log_scale_p) = dvaepp_latents.split_pair(q, p)
    assert (mean, mean_p) == (0.75, 0.25)
    np.testing.assert_allclose(log_scale, [[5 * np.tanh(7 / 5)]], rtol=1e-6)
    np.testing.assert_allclose(log_scale_p, [[5 * np.tanh(3 / 5)]], rtol=1e-6)
    (mean, log_scale), prior = dvaepp_latents.split_pair(None, p)
    assert (mean, log_scale) == prior == (mean_p, log_scale_p)


def test_groups_are_drawn_with_keys_of_their_own() -> None:
    module = dvaepp.DVAEPP(dvaepp.DVAEPPConfig(**{**vars(CONFIG), "remat": False}))
    context = jnp.zeros((2, 3, 3, CONFIG.features))

    def noise(key, q, p):
        return jnp.zeros((*p.shape[:-1], 2)), jax.random.normal(key, (2,))

    def run(key):
        inputs = (key, context, None, noise)
        return module.init_with_output(jax.random.key(1), *inputs, method="local_groups")[0][1]

    drawn = jax.jit(run)(jax.random.key(0))
    assert len(np.unique(drawn)) == drawn.size == 6


def test_no_groups_is_a_model_too() -> None:
    config = dvaepp.DVAEPPConfig(**{**vars(CONFIG), "local_groups": 0})
    module = dvaepp.DVAEPP(config)
    x = jnp.zeros((2, 12, 12, 1), jnp.uint8)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert "group" not in params


@pytest.mark.thorough
def test_a_residual_block_starts_as_the_identity() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    block = se_resnet.SEResidualBlock(4)
    params = block.init(jax.random.key(1), x)
    np.testing.assert_array_equal(block.apply(params, x), x)


def numpy_block(params, x):
    """The residual block of the docstring in float64, images [B, H, W, I]."""
    conv_names = iter(f"Conv_{i}" for i in range(3))
    elu = lambda y: np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
    dense = lambda name, y: y @ params[name]["kernel"] + params[name]["bias"]

    def norm(name, y):
        y = y - y.mean(-1, keepdims=True)
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)
        return y * params[name]["scale"] + params[name]["bias"]

    def conv(y):
        kernel, bias = operator.itemgetter("kernel", "bias")(params[next(conv_names)])
        side = len(kernel)
        padded = np.pad(y, [(0, 0), *[(side // 2, side // 2)] * 2, (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
        return np.einsum("bhwcij,ijcf->bhwf", windows, kernel) + bias

    y = conv(elu(norm("LayerNorm_0", x)))
    y = conv(elu(norm("LayerNorm_1", y)))
    squeezed = np.maximum(dense("Dense_0", y.mean((1, 2))), 0)
    gates = 1 / (1 + np.exp(-dense("Dense_1", squeezed)))
    return conv(x) + y * gates[:, None, None]


@pytest.mark.parametrize("width", [4, 5])
@pytest.mark.parametrize("features", [8, 20])
def test_a_residual_block_against_its_definition(width, features) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, width, 3))
    block = se_resnet.SEResidualBlock(features)
    as_float32 = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
    shapes = jax.eval_shape(block.init, jax.random.key(0), as_float32(x))["params"]
    params = jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)
    found = jax.jit(lambda p, x: block.apply({"params": p}, x))(*as_float32((params, x)))
    np.testing.assert_allclose(found, numpy_block(params, x), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_gates_are_squeezed_over_positions() -> None:
    """One pixel's change reaches all positions through the gates alone."""
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 4))
    block = se_resnet.SEResidualBlock(4)
    leaves, tree = jax.tree.flatten(block.init(jax.random.key(1), x))
    params = jax.tree.unflatten(tree, [leaf + 0.1 for leaf in leaves])
    out, moved = (block.apply(params, y) for y in (x, x.at[0, 0, 0, 0].add(3.0)))
    assert np.abs(out - moved)[0, 8, 8].max() > 1e-5


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("sides", "halves"), [((7, 8), (4, 4)), ((8, 3), (4, 2)), ((1, 1), (1, 1))]
)
def test_down_rounds_up_and_up_cuts(sides, halves) -> None:
    x = jnp.ones((1, *sides, 2))
    down, up = se_resnet.Down(3, 0), se_resnet.Up(2, 0, sides)
    y, _ = down.init_with_output(jax.random.key(0), x)
    assert y.shape == (1, *halves, 3)
    z, _ = up.init_with_output(jax.random.key(0), y)
    assert z.shape == (1, *sides, 2)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(decoder=MultiscaleConfig(image_size=30)), "multiple of 4"),
        (dict(global_sizes=()), "at least one layer"),
        (dict(global_sizes=(3, 0)), "at least 1 variable"),
        (dict(local_groups=-1), "at least 0"),
    ],
)
def test_sizes_that_make_no_model(sizes, message) -> None:
    with pytest.raises(ValueError, match=message):
        dvaepp.DVAEPPConfig(**{**vars(CONFIG), **sizes})
