"""Estimates of arrays that are sharded over devices are those of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimator_cases import ESTIMATORS, SURROGATES, smooth
from jax.sharding import AxisType


@pytest.mark.many_cases
@pytest.mark.parametrize("name", ESTIMATORS)
def test_batches_sharded_over_a_mesh(name):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    rng = np.random.default_rng(0)
    logits, level = np.float32(rng.normal(size=(4, 3))), np.float32(rng.normal(size=4))

    @jax.jit
    def run(logits, level):
        def total(logits):
            f = lambda z: smooth(z) ** 2 + jnp.broadcast_to(level, z.shape[:-1])
            estimate = ESTIMATORS[name](jax.random.key(2), f, logits)
            return estimate.surrogate.sum(), estimate

        return jax.grad(total, has_aux=True)(logits)

    expected = jax.tree.leaves(run(logits, level))
    with jax.set_mesh(mesh):
        ours = jax.tree.leaves(run(*(jax.device_put(x, jax.P("batch")) for x in (logits, level))))
        assert all(x.sharding.spec[0] == "batch" for x in ours)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.many_cases
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [jax.P(None, "batch"), jax.P("batch", None)])
@pytest.mark.parametrize("name", SURROGATES)
def test_samples_sharded_over_a_mesh(name, spec, axis_type):
    """Along their own axis too, where XLA mixes up the neutral elements of cumulative sums."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(axis_type,))
    rng = np.random.default_rng(0)
    values, log_q = (np.float32(rng.normal(size=(6, 4))) for _ in range(2))

    @jax.jit
    def run(values, log_q):
        return jax.grad(lambda *x: SURROGATES[name](*x).surrogate.sum(), (0, 1))(values, log_q)

    expected = run(values, log_q)
    sharding = jax.NamedSharding(mesh, spec)
    with jax.set_mesh(mesh):
        ours = run(*(jax.device_put(x, sharding) for x in (values, log_q)))
    if axis_type == AxisType.Explicit:  # else XLA chooses
        assert all(x.sharding.is_equivalent_to(sharding, 2) for x in ours)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
