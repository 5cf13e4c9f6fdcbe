"""Codes by angle, and the codes of a learned matrix, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

cosine, simvq = vq.cosine, vq.simvq


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def unit(v):
    v = np.asarray(v, np.float64)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def test_nearest_by_angle_whatever_the_lengths():
    v, codebook = draw(0, (40, 5), (7, 5))
    want = (unit(v) @ unit(codebook).T).argmax(-1)
    quantize = jax.jit(cosine.quantize)
    lengths = np.exp(np.random.default_rng(1).uniform(-60, 60, (40, 1))).astype(np.float32)
    for vectors, codes in ((v, codebook), (v * lengths, codebook * lengths[:7])):
        q, found = quantize(vectors, codes)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, want)
        np.testing.assert_allclose(np.linalg.norm(q.astype(np.float64), axis=-1), 1, rtol=3e-7)
        np.testing.assert_allclose(q, unit(codebook)[want], atol=3e-7)
        np.testing.assert_array_equal(q, jax.jit(cosine.lookup)(found, codes))


@pytest.mark.thorough
def test_zero_vectors_and_zero_codes_have_length_one():
    codebook = jnp.array([[0.0, 2.0], [0.0, 0.0], [-3.0, 0.0]])
    q, codes = cosine.quantize(jnp.zeros((1, 2)), codebook)
    np.testing.assert_array_equal(codes, [1])  # both are the first axis
    np.testing.assert_array_equal(q, [[1, 0]])
    np.testing.assert_array_equal(cosine.lookup(np.arange(3), codebook), [[0, 1], [1, 0], [-1, 0]])
    gradient = jax.grad(lambda v: (cosine.quantize(v, codebook).q @ jnp.arange(2.0)).sum())
    np.testing.assert_array_equal(gradient(jnp.zeros((1, 2))), 0)
    gradients = jax.grad(lambda v, m: sum(cosine.losses(v, codes, m)), (0, 1))
    for gradient in gradients(jnp.zeros((1, 2)), codebook):
        np.testing.assert_array_equal(gradient, 0)


def test_gradient_of_the_unit_vector():
    v, codebook, weights = draw(2, (9, 4), (5, 4), (9, 4))
    loss = lambda v, m: jnp.sum(weights * cosine.quantize(v, m).q)
    to_v, to_codebook = jax.jit(jax.grad(loss, (0, 1)))(v, codebook)
    u = unit(v)
    want = weights - u * (u * weights).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        to_v, want / np.linalg.norm(v, axis=-1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(to_codebook, 0)


@pytest.mark.thorough
def test_losses_of_angles_move_their_own_side():
    v, codebook = draw(3, (9, 4), (5, 4))
    codes = cosine.quantize(v, codebook).codes
    cosines = (unit(v) * unit(codebook)[codes]).sum(-1)
    value = jax.jit(cosine.losses)(v, codes, codebook)
    for loss in value:
        assert loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, (2 - 2 * cosines).mean(), rtol=1e-5)
    jacobian = jax.jit(jax.jacrev(cosine.losses, (0, 2)))(v, codes, codebook)
    np.testing.assert_array_equal(jacobian.codebook[0], 0)
    np.testing.assert_array_equal(jacobian.commitment[1], 0)
    dense = lambda v, m: (
        jnp.square(
            v / jnp.linalg.norm(v, axis=-1, keepdims=True)
            - (m / jnp.linalg.norm(m, axis=-1, keepdims=True))[codes]
        )
        .sum(-1)
        .mean()
    )
    want = jax.jit(jax.grad(dense, (0, 1)))(v, codebook)
    np.testing.assert_allclose(jacobian.commitment[0], want[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jacobian.codebook[1], want[1], rtol=1e-4, atol=1e-6)


def test_unit():
    (v,) = draw(4, (3, 5))
    for scale in (1e-30, 1.0, 1e30):
        np.testing.assert_allclose(cosine.unit(np.float32(scale) * v), unit(v), rtol=1e-6)
    assert cosine.unit(jnp.asarray(v, jnp.bfloat16)).dtype == jnp.bfloat16
    bad = jnp.array([[jnp.nan, 1.0], [jnp.inf, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(jnp.isnan(cosine.unit(bad)).any(-1), [True, True, False])


def test_simvq_draws_its_basis():
    params = simvq.init(jax.random.key(0), num_codes=4000, dim=16)
    assert params.basis.shape == (4000, 16)
    squares = np.square(np.asarray(params.basis, np.float64)).sum(-1)
    error = np.sqrt(2 / 16 / 4000)  # of the mean of chi-squares over their degrees of freedom
    assert abs(squares.mean() - 1) < 5 * error
    np.testing.assert_array_equal(simvq.codebook(*params), params.basis)


def test_simvq_is_the_nearest_row_of_the_product():
    v, basis, weights = draw(5, (30, 4), (8, 4), (4, 4))
    rows = basis.astype(np.float64) @ weights
    want = np.square(v[:, None, :] - rows).sum(-1).argmin(-1)
    q, codes = jax.jit(simvq.quantize)(v, basis, weights)
    np.testing.assert_array_equal(codes, want)
    np.testing.assert_allclose(q, rows[want], rtol=1e-5, atol=1e-6)
    book = simvq.codebook(basis, weights)
    np.testing.assert_array_equal(codes, vq.nearest_code(v, book))
    np.testing.assert_allclose(simvq.lookup(codes, basis, weights), q, rtol=1e-6)
    gradients = jax.jit(jax.grad(lambda *x: simvq.quantize(*x).q.sum(), (0, 1, 2)))(
        v, basis, weights
    )
    for gradient, value in zip(gradients, (1, 0, 0), strict=True):
        np.testing.assert_array_equal(gradient, value)


@pytest.mark.thorough
def test_both_losses_of_simvq_reach_the_matrix_and_neither_the_basis():
    v, basis, weights = draw(6, (30, 4), (8, 4), (4, 4))
    codes = simvq.quantize(v, basis, weights).codes
    rows = basis.astype(np.float64)[codes] @ weights
    difference = rows - v
    want = jax.jit(simvq.losses)(v, codes, basis, weights)
    for loss in want:
        np.testing.assert_allclose(loss, np.square(difference).sum(-1).mean(), rtol=1e-5)
    jacobian = jax.jit(jax.jacrev(simvq.losses, (0, 2, 3)))(v, codes, basis, weights)
    to_weights = 2 * basis.astype(np.float64)[codes].T @ difference / len(v)
    for of_loss in jacobian:
        np.testing.assert_array_equal(of_loss[1], 0)
        np.testing.assert_allclose(of_loss[2], to_weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jacobian.codebook[0], 0)
    np.testing.assert_allclose(
        jacobian.commitment[0], -2 * difference / len(v), rtol=1e-4, atol=1e-6
    )
    # One step of gradient descent moves codes that no vector has.
    unused = np.setdiff1d(np.arange(8), codes[:3])
    step = jax.grad(lambda w: simvq.losses(v[:3], codes[:3], basis, w).codebook)(weights)
    moved = simvq.codebook(basis, weights - 0.1 * step) - simvq.codebook(basis, weights)
    assert np.all(np.linalg.norm(moved[unused], axis=-1) > 1e-3)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", ["cosine", "simvq"])
def test_masked_positions_count_nowhere(name):
    v, codebook, weights = draw(7, (4, 5, 3), (6, 3), (3, 3))
    learned = (codebook, weights) if name == "simvq" else (codebook,)
    module = getattr(vq, name)
    mask = np.random.default_rng(0).random((4, 5)) < 0.5
    padded = np.where(mask[..., None], v, np.float32(np.nan))
    codes = module.quantize(padded, *learned).codes
    assert np.all(codes[~mask] == 6)
    total = lambda v, last, codes, mask: sum(
        module.losses(v, codes, *learned[:-1], last, mask=mask)
    )
    both = jax.jit(jax.value_and_grad(total, (0, 1)))
    value, (to_v, to_last) = both(padded, learned[-1], codes, mask)
    rest = both(v[mask], learned[-1], codes[mask], np.ones(mask.sum(), bool))
    np.testing.assert_allclose(value, rest[0], rtol=1e-5)
    np.testing.assert_allclose(to_v[mask], rest[1][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(to_last, rest[1][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(to_v[~mask], 0)
    none, gradients = both(padded, learned[-1], codes, np.zeros_like(mask))
    assert none == 0
    assert all(np.all(x == 0) for x in gradients)


@pytest.mark.thorough
def test_bad_input_is_refused():
    v, codebook, weights = draw(8, (4, 3), (5, 3), (3, 3))
    codes = np.zeros(4, int)
    for call in (
        lambda: cosine.quantize(v, codebook[:, :2]),
        lambda: cosine.quantize(v, codebook[None]),
        lambda: simvq.quantize(v[:, :2], codebook, weights),
    ):
        with pytest.raises(ValueError, match=r"codebook.* \[C, D\]"):
            call()
    for call in (
        lambda: simvq.codebook(codebook, weights[:2]),
        lambda: simvq.codebook(codebook, weights[:, :2]),
        lambda: simvq.quantize(v, codebook[None], weights),
    ):
        with pytest.raises(ValueError, match=r"basis \[C, D\] and weights \[D, D\] must share D"):
            call()
    for losses in (
        lambda *x, **y: cosine.losses(*x, codebook, **y),
        lambda *x, **y: simvq.losses(*x, codebook, weights, **y),
    ):
        with pytest.raises(ValueError, match=r"codes must be \(4,\), those of v, got \(3,\)"):
            losses(v, codes[:3])
        with pytest.raises(ValueError, match=r"mask must be boolean \(4,\)"):
            losses(v, codes, mask=np.ones((4, 3), bool))
        with pytest.raises(ValueError, match="must share D"):
            losses(v[:, :2], codes)
    with pytest.raises(ValueError, match=r"codebook must be \[C, D\]"):
        cosine.lookup(codes, codebook[None])
    with pytest.raises(ValueError, match="num_codes must be at least 1, got 0"):
        simvq.init(jax.random.key(0), num_codes=0, dim=3)


def test_the_wider_dtype_is_that_of_the_code():
    v, rows, weights = draw(9, (3, 2), (4, 2), (2, 2))
    v = v.astype(jnp.bfloat16)
    assert cosine.quantize(v, rows).q.dtype == jnp.float32
    assert simvq.quantize(v, rows, weights).q.dtype == jnp.float32
