"""The rotation trick against autodiff of the dense matrix in float64, and where it is undefined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq


def pairs(seed, num, dim, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, dim)).astype(dtype), 2 * rng.normal(size=(num, dim)).astype(dtype)


def dense(v, q):
    """|q| / |v| R with R = I - 2 r r^T + 2 q^ v^^T, as a matrix."""
    norm = jnp.linalg.norm
    v_unit, q_unit = v / norm(v), q / norm(q)
    r = (v_unit + q_unit) / norm(v_unit + q_unit)
    rotation = jnp.eye(len(v)) - 2 * jnp.outer(r, r) + 2 * jnp.outer(q_unit, v_unit)
    return norm(q) / norm(v) * rotation


jacobian = jax.jit(jax.vmap(jax.jacrev(vq.rotation_trick)))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_forward_is_the_code_bit_for_bit(dtype):
    v, q = pairs(0, 100, 7)
    v, q = jnp.asarray(1e4 * v, dtype), jnp.asarray(q, dtype)
    for function in (vq.rotation_trick, jax.jit(vq.rotation_trick)):
        out = function(v, q)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, q)
    gradient = jax.jit(jax.grad(lambda v, q: vq.rotation_trick(v, q).astype(jnp.float32).sum()))
    found, wide = gradient(v, q), gradient(v.astype(jnp.float32), q.astype(jnp.float32))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wide.astype(dtype))  # rounded once


@pytest.mark.many_cases
@pytest.mark.parametrize("dim", [2, 3, 8, 64])
def test_jacobian_is_that_of_the_dense_matrix(dim):
    v, q = pairs(1, 20, dim, np.float64)
    with jax.enable_x64(True):
        stopped = lambda v, q: jax.lax.stop_gradient(dense(v, q)) @ v
        np.testing.assert_allclose(jax.jit(jax.vmap(stopped))(v, q), q, rtol=1e-12)
        want = jax.jit(jax.vmap(jax.jacrev(stopped)))(v, q)
        np.testing.assert_allclose(jacobian(v, q), want, rtol=1e-10, atol=1e-12)
        forward = jax.jit(jax.vmap(jax.jacfwd(vq.rotation_trick)))(v, q)
        np.testing.assert_allclose(forward, want, rtol=1e-10, atol=1e-12)
    narrow = jacobian(v.astype(np.float32), q.astype(np.float32))
    lengths = np.linalg.norm(v, axis=-1)[:, None], np.linalg.norm(q, axis=-1)[:, None]
    scale = (lengths[1] / lengths[0])[..., None]
    # The bisector of nearly opposite vectors has the digits of their sum.
    size = np.linalg.norm(v / lengths[0] + q / lengths[1], axis=-1)
    errors = np.abs(narrow - want) / scale
    assert np.all(errors < (1e-6 / np.minimum(size, 1))[:, None, None])


def test_an_isometry_that_takes_the_vector_to_the_code_at_any_angle():
    # v^ + q^ shrinks through the digits of float32, down to nothing.
    v, side = pairs(2, 60, 5)
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    side -= (side * v).sum(-1, keepdims=True) * v
    angle = np.logspace(0, -9, 60)[:, None]
    for sign in (1, -1):
        q = (3 * (sign * v + angle * side)).astype(np.float32)
        matrix = np.asarray(jacobian(v, q), np.float64)
        scale = np.linalg.norm(q.astype(np.float64), axis=-1)  # v has length 1
        gram = matrix.swapaxes(1, 2) @ matrix / scale[:, None, None] ** 2
        np.testing.assert_allclose(gram, np.broadcast_to(np.eye(5), gram.shape), atol=3e-6)
        mapped = np.einsum("nij,nj->ni", matrix, v)
        # Half the digits where v^ and q^ are nearly opposite, nearly all elsewhere.
        np.testing.assert_allclose(mapped, q, atol=3e-3 if sign < 0 else 1e-5)
        far = np.linalg.norm(q / scale[:, None] + v, axis=-1) > 0.1
        np.testing.assert_allclose(mapped[far], q[far], atol=3e-5)


def test_opposite_vectors_are_reflected():
    v = jnp.array([[3.0, 0.0, 4.0], [0.1, -0.7, 0.3], [1e-20, 2e-20, 0.0]])
    for scale in (1.0, 2.5):
        matrix = jacobian(v, -scale * v)
        unit = np.asarray(v, np.float64)
        unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
        want = scale * (np.eye(3) - 2 * unit[:, :, None] * unit[:, None, :])
        np.testing.assert_allclose(matrix, want, atol=2e-6)
    np.testing.assert_array_equal(jacobian(jnp.array([[2.0]]), jnp.array([[-3.0]])), [[[-1.5]]])
    np.testing.assert_array_equal(jacobian(jnp.array([[2.0]]), jnp.array([[3.0]])), [[[1.5]]])


def test_vectors_without_direction():
    v, q = pairs(3, 4, 3)
    zeros = np.zeros_like(v)
    identity = np.broadcast_to(np.eye(3), (4, 3, 3))
    np.testing.assert_array_equal(jacobian(zeros, q), identity)
    np.testing.assert_array_equal(jacobian(zeros, zeros), identity)
    np.testing.assert_array_equal(jacobian(1e-9 * v, q), identity)  # |q| / |v| beyond the digits
    np.testing.assert_array_equal(jacobian(v, zeros), 0 * identity)
    np.testing.assert_array_equal(vq.rotation_trick(zeros, q), q)
    # Not the length but the ratio counts; squares would underflow and overflow.
    for scale in (1e-25, 1e25):
        found = jacobian(np.float32(scale) * v, np.float32(scale) * q)
        np.testing.assert_allclose(found, jacobian(v, q), rtol=1e-4, atol=1e-5)
    assert jnp.all(jnp.isnan(jacobian(v * np.float32(np.nan), q)))


def test_constant_in_everything_but_the_vector_it_multiplies():
    v, q = (jnp.asarray(x) for x in pairs(4, 3, 4))
    weights = jnp.arange(12.0).reshape(3, 4)
    loss = lambda v, q: jnp.sum(weights * vq.rotation_trick(v, q))
    np.testing.assert_array_equal(jax.jit(jax.grad(loss, 1))(v, q), 0)
    hessian = jax.jit(jax.hessian(loss, (0, 1)))(v, q)
    assert all(np.all(x == 0) for x in jax.tree.leaves(hessian))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"must have one shape, got \(4, 3\) and \(3, 3\)"):
        vq.rotation_trick(jnp.ones((4, 3)), jnp.ones((3, 3)))
