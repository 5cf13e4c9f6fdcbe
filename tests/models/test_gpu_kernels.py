"""The kernels for GPUs against the functions that they replace, interpreted on the CPU."""

import contextlib
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae import relax
from dvae.data import batches
from dvae.distributions import categorical
from dvae.models import _convolution, _gpu, _level_kernel, _soft_codes, _soft_codes_kernel, vq_conv
from dvae.models.pixel_head import PixelHead
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets, task


@pytest.fixture
def kernels(monkeypatch):
    """Puts the interpreted kernels in the place that they have on a GPU."""
    for module in (_soft_codes_kernel, _level_kernel):
        for name in ("forward", "backward"):
            interpreted = functools.partial(getattr(module, name), interpret=True)
            monkeypatch.setattr(module, name, interpreted)
    switch = lambda on: monkeypatch.setattr(_gpu, "has_kernels", lambda: on)
    switch(True)
    return switch


def both(kernels, function, *args):
    """Returns the function's results by the plain operations and by the kernels."""
    found = []
    for on in (False, True):
        kernels(on)
        found.append(function(*args))
    return found


@pytest.mark.parametrize("num_codes", [2, 8, 512, 4096])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_soft_codes(kernels, num_codes, hard, scale) -> None:
    *keys, key = jax.random.split(jax.random.key(0), 5)
    num_rows = max(4, 2 * 4096 // num_codes)  # two blocks
    logits = scale * jax.random.normal(keys[0], (2, num_rows // 2, 1, 3, num_codes))
    prior = jax.random.normal(keys[1], (3, num_codes))
    d_weights = jax.random.normal(keys[2], logits.shape)
    d_kl = jax.random.normal(keys[3], logits.shape[:-1])

    def total(logits, prior):
        log_p = jax.nn.log_softmax(prior)
        outputs = _soft_codes.soft_codes(jax.random.clone(key), logits, log_p, 0.5, hard=hard)
        weights, kl, _ = outputs
        return (weights * d_weights).sum() + (kl * d_kl).sum(), outputs

    gradients = lambda: jax.grad(total, (0, 1), has_aux=True)(logits, prior)
    (plain, expected), (fused, found) = both(kernels, gradients)
    np.testing.assert_array_equal(expected[2], found[2])  # the same noise
    chex.assert_trees_all_close(expected[:2], found[:2], rtol=3e-6, atol=1e-6)
    chex.assert_trees_all_close(plain[0], fused[0], rtol=1e-4, atol=1e-5 * scale)
    chex.assert_trees_all_close(plain[1], fused[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hard", [False, True])
def test_kernels_that_are_compiled_for_another_platform(monkeypatch, hard) -> None:
    """A program traced on a machine with a GPU may be compiled for its CPU."""
    *keys, key = jax.random.split(jax.random.key(0), 4)
    logits = jax.random.normal(keys[0], (16, 3, 512))
    log_p = jax.nn.log_softmax(jax.random.normal(keys[1], (3, 512)))
    y, bias = jax.random.normal(keys[2], (32, 3, 256)), jnp.ones((3, 256))

    def total(logits, log_p, y, bias):
        weights, kl, _ = _soft_codes.soft_codes(
            jax.random.clone(key), logits, log_p, 0.5, hard=hard
        )
        levels = _level_kernel.log_prob(y, bias, jnp.full((32, 3), 7))
        return (weights**2).sum() + (kl**2).sum() + (levels**2).sum()

    found = []
    for interpreted in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(_gpu, "has_kernels", lambda: True)
            for module in (_soft_codes_kernel, _level_kernel) if interpreted else ():
                for name in ("forward", "backward"):
                    function = functools.partial(getattr(module, name), interpret=True)
                    patch.setattr(module, name, function)
            gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2, 3)))
            found.append(gradients(logits, log_p, y, bias))
    chex.assert_trees_all_close(*found, rtol=2e-5, atol=2e-6)


def test_soft_codes_may_turn_hard_within_a_program(kernels) -> None:
    logits = jax.random.normal(jax.random.key(0), (8, 2, 512))
    log_p = jax.nn.log_softmax(jnp.zeros((2, 512)))
    draw = jax.jit(
        lambda hard: _soft_codes.soft_codes(jax.random.key(1), logits, log_p, 0.5, hard=hard)
    )
    soft, hard = draw(False), draw(True)
    np.testing.assert_array_equal(hard[0], jax.nn.one_hot(soft[2], 512))
    assert 0 < soft[0].max() < 1


def test_weights_of_the_kernel_are_rounded_to_the_decoders_dtype(kernels) -> None:
    logits = jax.random.normal(jax.random.key(0), (8, 2, 512))
    log_p = jax.nn.log_softmax(jnp.zeros((2, 512)))
    key = jax.random.key(1)
    weights = _soft_codes.soft_codes(key, logits, log_p, 0.5, dtype=jnp.bfloat16)[0]
    assert weights.dtype == jnp.bfloat16
    soft = relax.gumbel_softmax.sample(jax.random.clone(key), logits, 0.5)
    chex.assert_trees_all_close(weights.astype(jnp.float32), soft, rtol=2**-8)


@pytest.mark.parametrize("shape", [(4, 2, 12), (3, 2, 512), (8, 1, 16384)])
def test_soft_codes_of_other_sizes_are_the_plain_operations(kernels, shape) -> None:
    logits = jax.random.normal(jax.random.key(0), shape)
    log_p = jax.nn.log_softmax(jnp.zeros(shape[1:]))
    draw = lambda: vq_conv.soft_codes(jax.random.key(1), logits, log_p, 0.5)
    chex.assert_trees_all_equal(*both(kernels, draw))


def test_soft_codes_of_other_noise_are_the_plain_operations(kernels) -> None:
    logits = jnp.zeros((8, 2, 512))
    key = jax.random.key(1, impl="rbg")
    log_p = jax.nn.log_softmax(logits[0])
    draw = lambda: vq_conv.soft_codes(jax.random.clone(key), logits, log_p, 0.5)
    chex.assert_trees_all_equal(*both(kernels, draw))


def absent_gpu():
    """Returns a context in which JAX lowers kernels for a GPU that is not there."""
    if jax.__version_info__ < (0, 12):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), (AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("num_codes", [2, 512, 8192])
def test_kernels_are_lowered_for_cuda_alone(monkeypatch, num_codes, x64) -> None:
    monkeypatch.setattr(_gpu, "has_kernels", lambda: True)
    with jax.enable_x64(x64):
        logits = jnp.zeros((4096, 2, num_codes), jnp.float32)
        log_p = jnp.zeros((2, num_codes), jnp.float32)
        y, bias = jnp.zeros((64, 3, 256), jnp.bfloat16), jnp.zeros((3, 256), jnp.float32)
        levels = jnp.zeros((64, 3), jnp.int32)

        def total(logits, log_p, y, bias):
            codes = _soft_codes.soft_codes(jax.random.key(0), logits, log_p, 0.5)
            return codes[0].sum() + codes[1].sum() + _level_kernel.log_prob(y, bias, levels).sum()

        with absent_gpu():
            traced = jax.jit(jax.grad(total, (0, 1, 2, 3))).trace(logits, log_p, y, bias)
            programs = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "cpu")}
    assert programs["cuda"].count("triton") >= 3
    assert "triton" not in programs["cpu"]


def test_bad_arguments_are_refused_before_a_kernel_is_chosen(kernels) -> None:
    key, logits = jax.random.key(0), jnp.zeros((8, 2, 512))
    log_p = jax.nn.log_softmax(logits[0])
    for prior in (log_p[:1], jnp.zeros((3, 512)), log_p[0]):
        with pytest.raises(ValueError, match="log_prior"):
            _soft_codes.soft_codes(key, logits, prior, 0.5)
    with pytest.raises(ValueError, match="temperature"):
        _soft_codes.soft_codes(key, logits, log_p, -1.0)
    with pytest.raises(ValueError, match="single key"):
        _soft_codes.soft_codes(jax.random.split(key), logits, log_p, 0.5)


def test_no_gradient_of_a_kl_that_is_not_used(kernels) -> None:
    """Not even where it is infinite."""
    logits = jax.random.normal(jax.random.key(0), (8, 2, 512))
    log_p = jax.nn.log_softmax(jnp.zeros((2, 512)).at[:, 0].set(-jnp.inf))
    weight = jax.random.normal(jax.random.key(1), logits.shape)

    def total(logits):
        return (weight * _soft_codes.soft_codes(jax.random.key(2), logits, log_p, 0.5)[0]).sum()

    plain, fused = both(kernels, jax.grad(total), logits)
    assert jnp.isfinite(fused).all()
    chex.assert_trees_all_close(plain, fused, rtol=1e-4, atol=1e-6)


def test_empty_batches_double_heads_and_meshes_are_the_plain_operations(
    kernels, monkeypatch
) -> None:
    assert [_gpu.rows_of_block(n, k) for n, k in ((0, 512), (8, 0), (8, 3))] == [0, 0, 0]
    explicit = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Explicit,))
    automatic = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    place = lambda mesh: jax.device_put(jnp.zeros(8), NamedSharding(mesh, PartitionSpec("x")))
    assert not _gpu.uses_kernels(place(explicit))
    assert _gpu.uses_kernels(place(automatic))
    monkeypatch.setattr(_convolution, "use_matmul", lambda: False)
    with jax.enable_x64(True):
        head, x = PixelHead(8, jnp.float64), jnp.ones((4, 4, 4, 8))
        images = jnp.zeros((4, 8, 8, 3), jnp.uint8)
        params = head.init(jax.random.key(0), x, images, method="log_likelihood")
        run = lambda: head.apply(params, x, images, method="log_likelihood")
        chex.assert_trees_all_equal(*both(kernels, run))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_log_prob_of_levels(kernels, dtype) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    y = (3 * jax.random.normal(keys[0], (64, 3, 256))).astype(dtype)
    bias = jax.random.normal(keys[1], (3, 256))
    levels = jax.random.randint(keys[2], (64, 3), 0, 256)
    d_values = jax.random.normal(keys[3], (64, 3))
    plain = lambda y, bias: categorical.log_prob_of_codes(
        levels, y.astype(jnp.float32) + bias[None]
    )
    expected, pull_back = jax.vjp(plain, y, bias)
    found, pull_back_fused = jax.vjp(lambda y, b: _level_kernel.log_prob(y, b, levels), y, bias)
    chex.assert_trees_all_close(expected, found, rtol=1e-6, atol=1e-6)
    rtol = 1e-5 if dtype == jnp.float32 else 2**-7
    chex.assert_trees_all_close(
        pull_back(d_values), pull_back_fused(d_values), rtol=rtol, atol=1e-5
    )


def test_likelihood_of_images(kernels, monkeypatch) -> None:
    monkeypatch.setattr(_convolution, "use_matmul", lambda: False)
    keys = jax.random.split(jax.random.key(0), 3)
    head = PixelHead(8)
    x = jax.random.normal(keys[0], (4, 4, 4, 8))
    images = jax.random.randint(keys[1], (4, 8, 8, 3), 0, 256).astype(jnp.uint8)
    kernels(False)
    params = head.init(keys[2], x, images, method="log_likelihood")
    for method in ("log_likelihood", "total_log_likelihood"):
        apply = lambda params, x, m=method: head.apply(params, x, images, method=m)
        value = lambda params, x, f=apply: jnp.asarray(jax.tree.leaves(f(params, x))[0]).sum()
        gradients = lambda f=value: jax.value_and_grad(f, (0, 1))(params, x)
        chex.assert_trees_all_close(*both(kernels, gradients), rtol=2e-5, atol=2e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["gs_soft", "gs_hard", "vimco", "vq_ema"])
def test_losses_of_cifar_vq(kernels, monkeypatch, estimator) -> None:
    """Loss and gradients of a model whose rows fill whole blocks."""
    monkeypatch.setattr(_convolution, "use_matmul", lambda: False)
    settings = dict(presets.PRESETS["smoke"], estimator=estimator, codebook_size=512)
    config = vq_config.Config(**settings)
    images = jax.random.randint(jax.random.key(0), (8, 16, 16, 3), 0, 256).astype(jnp.uint8)
    kernels(False)
    init = task.init_fn(config, np.zeros((3, 256), np.float32), len(images))
    params, model_state = init(jax.random.key(1), images)

    def gradients():
        loss = task.loss_fn(config)
        step = jnp.zeros((), jnp.int32)
        function = jax.value_and_grad(loss, has_aux=True)
        (value, _), grads = function(params, model_state, images, jax.random.key(2), step)
        return value, grads

    chex.assert_trees_all_close(*both(kernels, gradients), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("size", [200, 997, 45_000, 50_000])
def test_written_out_walks_are_the_same_permutation(monkeypatch, size) -> None:
    positions = jnp.arange(size)
    expected = batches._permute(jax.random.key(3), positions, size)
    monkeypatch.setattr(batches, "_unrolls", lambda: True)
    permute = lambda x: batches._permute(jax.random.key(3), x, size)
    program = str(jax.make_jaxpr(permute)(positions))
    assert "while" not in program
    np.testing.assert_array_equal(expected, batches._permute(jax.random.key(3), positions, size))
    np.testing.assert_array_equal(np.sort(expected), np.arange(size))
