"""Residual quantization against a loop in float64; dropped stages; what each stage learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

residual = vq.residual
quantize, losses = jax.jit(residual.quantize), jax.jit(residual.losses)


def draw(seed, num=40, stages=3, codes=6, dim=4):
    rng = np.random.default_rng(seed)
    scale = 0.5 ** np.arange(stages)[:, None, None]
    codebooks = scale * rng.normal(size=(stages, codes, dim))
    return rng.normal(size=(num, dim)).astype(np.float32), codebooks.astype(np.float32)


def loop(v, codebooks):
    """Codes [N, R], and what every stage starts from, in float64."""
    rest, codes, inputs = np.asarray(v, np.float64), [], []
    for codebook in codebooks:
        inputs.append(rest)
        codes.append(np.square(rest[:, None, :] - codebook).sum(-1).argmin(-1))
        rest = rest - codebook[codes[-1]]
    return np.stack(codes, axis=-1), np.stack(inputs, axis=1), v - rest


def test_stages_quantize_what_is_left():
    v, codebooks = draw(0)
    codes, inputs, q = loop(v, codebooks)
    found = quantize(v, codebooks)
    assert found.codes.dtype == jnp.int32
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.q, q, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(residual.lookup(found.codes, codebooks), found.q)
    np.testing.assert_allclose(
        residual.stage_inputs(v, codes, codebooks), inputs, rtol=1e-5, atol=1e-6
    )
    # A prefix of the codes is the code of fewer stages.
    np.testing.assert_array_equal(quantize(v, codebooks[:2]).codes, codes[:, :2])


@pytest.mark.thorough
def test_stages_of_different_sizes_and_one_stage():
    v, codebooks = draw(1)
    stages = (codebooks[0], codebooks[1][:1], codebooks[2][:4])
    codes, _, q = loop(v, stages)
    found = quantize(v, stages)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.q, q, rtol=1e-5, atol=1e-6)
    integers = vq.pack_digits(found.codes, (6, 1, 4))
    np.testing.assert_array_equal(vq.unpack_codes(integers, (6, 1, 4)), codes)
    one = quantize(v, codebooks[:1])
    np.testing.assert_array_equal(one.codes[:, 0], vq.nearest_code(v, codebooks[0]))
    np.testing.assert_array_equal(one.q, codebooks[0][one.codes[:, 0]])


@pytest.mark.thorough
def test_distortion_falls_with_every_stage():
    v = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    fit = jax.jit(lambda key, v: residual.kmeans(key, v, num_stages=5, num_codes=4, num_iters=5))
    codebooks, codes = fit(jax.random.key(0), v)
    assert codebooks.shape == (5, 4, 4)
    found = quantize(v, codebooks)
    np.testing.assert_array_equal(found.codes, codes)
    distortions = [
        float(np.square(v - residual.lookup(codes[:, :r], codebooks[:r])).sum(-1).mean())
        for r in range(1, 6)
    ]
    assert np.all(np.diff(distortions) < 0)
    assert distortions[-1] < 0.25 * distortions[0]
    # At each stage what `quantize` itself leaves with fewer of them.
    for r, distortion in enumerate(distortions, 1):
        q = quantize(v, codebooks, depth=r).q
        np.testing.assert_allclose(np.square(v - q).sum(-1).mean(), distortion, rtol=1e-5)


@pytest.mark.thorough
def test_dropped_stages():
    v, codebooks = draw(3)
    depth = residual.draw_depth(jax.random.key(1), 3, (40,))
    assert set(np.unique(depth)) == {1, 2, 3}
    full = quantize(v, codebooks).codes
    found = quantize(v, codebooks, depth=depth)
    used = np.arange(3) < np.asarray(depth)[:, None]
    np.testing.assert_array_equal(found.codes, np.where(used, full, -1))
    for r in (1, 2, 3):
        rows = np.asarray(depth) == r
        np.testing.assert_array_equal(found.q[rows], quantize(v, codebooks[:r]).q[rows])
        same = quantize(v, codebooks, depth=jnp.int32(r))
        np.testing.assert_array_equal(same.codes[:, r:], -1)
        np.testing.assert_array_equal(same.codes[:, :r], full[:, :r])
    np.testing.assert_array_equal(residual.lookup(found.codes, codebooks), found.q)
    # They have no loss, no gradient and no usage.
    value = losses(v, found.codes, codebooks)
    _, inputs, _ = loop(v, codebooks)
    rows = np.stack([codebooks[r][full[:, r]] for r in range(3)], axis=1)
    squares = np.where(used, np.square(inputs - rows).sum(-1), 0)
    for loss in value:
        np.testing.assert_allclose(loss, squares.mean(0), rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda m: losses(v, found.codes, m).codebook.sum()))(codebooks)
    for r in range(3):
        counts = vq.usage(found.codes[:, r], 6)
        np.testing.assert_array_equal(counts, np.bincount(full[used[:, r], r], minlength=6))
        np.testing.assert_array_equal(np.any(gradient[r] != 0, axis=-1), counts > 0)


@pytest.mark.thorough
def test_depth_of_every_example_broadcasts_over_its_positions():
    v, codebooks = draw(4)
    v = v.reshape(5, 8, 4)
    depth = np.array([1, 2, 3, 1, 2])
    found = quantize(v, codebooks, depth=depth[:, None])
    for i, r in enumerate(depth):
        np.testing.assert_array_equal(found.q[i], quantize(v[i], codebooks[:r]).q)


def test_draw_depth_is_uniform():
    depth = residual.draw_depth(jax.random.key(0), 4, (8000,), min_stages=2)
    counts = np.bincount(depth, minlength=5)
    assert counts[:2].sum() == 0
    assert len(counts) == 5
    assert np.all(np.abs(counts[2:] - 8000 / 3) < 5 * np.sqrt(8000 * 2 / 9))
    assert residual.draw_depth(jax.random.key(0), 1) == 1


def test_each_codebook_learns_from_its_own_stage_and_the_vector_from_all():
    v, codebooks = draw(5)
    codes, inputs, _ = loop(v, codebooks)
    rows = np.stack([codebooks[r][codes[:, r]] for r in range(3)], axis=1)
    difference = np.swapaxes(inputs - rows, 0, 1)  # [R, N, D]
    value = losses(v, codes, codebooks)
    jacobian = jax.jit(jax.jacrev(residual.losses, (0, 2)))(v, codes, codebooks)
    for loss in value:
        assert loss.shape == (3,)
        np.testing.assert_allclose(loss, np.square(difference).sum(-1).mean(-1), rtol=1e-4)
    np.testing.assert_array_equal(jacobian.codebook[0], 0)
    np.testing.assert_array_equal(jacobian.commitment[1], 0)
    np.testing.assert_allclose(jacobian.commitment[0], 2 * difference / 40, rtol=1e-4, atol=1e-6)
    for s in range(3):
        for r in range(3):
            want = np.zeros_like(codebooks[r], np.float64)
            if s == r:
                np.add.at(want, codes[:, r], -2 * difference[r] / 40)
            np.testing.assert_allclose(jacobian.codebook[1][s, r], want, rtol=1e-4, atol=1e-6)
    gradients = jax.jit(jax.grad(lambda v, m: residual.quantize(v, m).q.sum(), (0, 1)))(
        v, codebooks
    )
    np.testing.assert_array_equal(gradients[0], 1)
    np.testing.assert_array_equal(gradients[1], 0)


def test_moving_averages_of_every_stage():
    v, codebooks = draw(6)
    codes = quantize(v, codebooks).codes
    inputs = residual.stage_inputs(v, codes, codebooks)
    update = jax.jit(jax.vmap(lambda s, x, c: vq.ema_update(s, x, c, decay=0.5), in_axes=(0, 1, 1)))
    state = update(jax.vmap(vq.ema_init)(codebooks), inputs, codes)
    assert state.codebook.shape == codebooks.shape
    np.testing.assert_allclose(state.counts.sum(-1), [0.5 * 6 + 0.5 * 40] * 3, rtol=1e-6)


@pytest.mark.thorough
def test_masked_positions_count_nowhere():
    v, codebooks = draw(7)
    v = v.reshape(8, 5, 4)
    mask = np.random.default_rng(0).random((8, 5)) < 0.5
    padded = np.where(mask[..., None], v, np.float32(np.nan))
    codes = quantize(padded, codebooks).codes
    assert np.all(codes[~mask] == 6)
    total = lambda v, m, codes, mask: sum(x.sum() for x in residual.losses(v, codes, m, mask=mask))
    both = jax.jit(jax.value_and_grad(total, (0, 1)))
    value, gradients = both(padded, codebooks, codes, mask)
    rest = both(v[mask], codebooks, codes[mask], np.ones(mask.sum(), bool))
    np.testing.assert_allclose(value, rest[0], rtol=1e-5)
    np.testing.assert_allclose(gradients[0][mask], rest[1][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients[1], rest[1][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(gradients[0][~mask], 0)
    none, gradients = both(padded, codebooks, codes, np.zeros_like(mask))
    assert none == 0
    assert all(np.all(x == 0) for x in gradients)


@pytest.mark.thorough
def test_half_precision_residuals_are_float32():
    v, codebooks = draw(8, num=200)
    v, half = v.astype(jnp.bfloat16), codebooks.astype(jnp.bfloat16)
    found = quantize(v, half)
    wide = quantize(v.astype(np.float32), half.astype(np.float32))
    assert found.q.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.codes, wide.codes)
    np.testing.assert_array_equal(found.q, wide.q.astype(jnp.bfloat16))
    assert quantize(v, codebooks).q.dtype == jnp.float32


def test_codes_out_of_range_are_nan():
    _, codebooks = draw(9)
    for bad in (6, 10**9, -2):
        q = residual.lookup(np.array([[0, bad, 0], [1, -1, 0]]), codebooks)
        np.testing.assert_array_equal(jnp.isnan(q).all(-1), [True, False])


def test_bad_input_is_refused():
    v, codebooks = draw(10)
    for bad in (
        codebooks[:0],
        (),
        codebooks[:, :0],
        codebooks[0],
        [codebooks[0], codebooks[0, :, :3]],
    ):
        with pytest.raises(ValueError, match=r"codebooks must be \[R, C, D\].*a stage and a code"):
            residual.quantize(v, bad)
    for call in (
        lambda v: residual.quantize(v, codebooks),
        lambda v: residual.losses(v, np.zeros((40, 3), int), codebooks),
        lambda v: residual.stage_inputs(v, np.zeros((40, 3), int), codebooks),
    ):
        with pytest.raises(ValueError, match="must share D"):
            call(v[:, :3])
    for function in (residual.losses, residual.stage_inputs):
        with pytest.raises(ValueError, match=r"codes must be \(40, 3\), those of v, got \(40, 2\)"):
            function(v, np.zeros((40, 2), int), codebooks)
    with pytest.raises(
        ValueError, match=r"codes must be \[\.\.\., R\], R = 3 stages, got \(40, 2\)"
    ):
        residual.lookup(np.zeros((40, 2), int), codebooks)
    with pytest.raises(ValueError, match=r"mask must be boolean \(40,\)"):
        residual.losses(v, np.zeros((40, 3), int), codebooks, mask=np.ones((40, 3), bool))
    for depth in (0, 4):
        with pytest.raises(ValueError, match=rf"depth must be in 1 \.\. 3.* got {depth}"):
            residual.quantize(v, codebooks, depth=depth)
    for depth in (np.full(40, 4), jnp.zeros((1,), int), [0] * 40):
        with pytest.raises(ValueError, match=r"depth must be in 1 \.\. 3.* got [04]$"):
            residual.quantize(v, codebooks, depth=depth)
    with pytest.raises(TypeError, match="depth must be integers, got float64"):
        residual.quantize(v, codebooks, depth=1.5)
    for depth in (np.ones(39, int), np.ones((40, 1), int)):
        with pytest.raises(ValueError, match=r"depth must be a scalar or broadcast to \(40,\)"):
            residual.quantize(v, codebooks, depth=depth)
    with pytest.raises(ValueError, match=r"min_stages must be in 1 \.\. num_stages, got 4, 3"):
        residual.draw_depth(jax.random.key(0), 3, min_stages=4)
    with pytest.raises(ValueError, match="num_stages must be at least 1, got 0"):
        residual.kmeans(jax.random.key(0), v, num_stages=0, num_codes=2, num_iters=1)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 .*keep the digits on the last axis"):
        vq.pack_digits(np.zeros((4, 8), int), (1024,) * 8)
