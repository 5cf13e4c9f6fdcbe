"""The release of JAX that is installed computes what the library needs of it."""

import warnings

import jax
import jaxlib
import numpy as np
import pytest

from dvae import _jax_release, estimators


@pytest.mark.parametrize("shape", [(400, 100), (100, 784), (9000, 5)])
def test_sums_of_products_are_right(shape) -> None:
    """Not in jaxlib 0.10.2: rows behind element 32,768."""
    rng = np.random.default_rng(0)
    v, x = rng.normal(size=shape[-1]), rng.normal(size=shape)
    found = jax.jit(lambda v, x: (v[None] * x).sum(-1, keepdims=True) * x)(
        np.float32(v), np.float32(x)
    )
    np.testing.assert_allclose(found, (v * x).sum(-1, keepdims=True) * x, atol=2e-4)


def test_gradients_of_reinforce_at_that_size() -> None:
    rng = np.random.default_rng(0)
    w, logits = np.float32(rng.normal(size=100)), np.float32(rng.normal(size=(400, 100)))
    f = lambda z: (w[None] * z).sum(-1)
    loss = lambda x: estimators.reinforce(jax.random.key(0), f, x).surrogate.sum()
    found = jax.jit(jax.grad(loss))(logits)
    with jax.disable_jit():
        expected = jax.grad(loss)(logits)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_wrong_release_is_warned_of(monkeypatch) -> None:
    monkeypatch.setattr(jaxlib, "__version__", "0.10.2")
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.warns(RuntimeWarning, match=r"jaxlib 0.10.2 .*pip install 'jax!=0.10.2'"):
        _jax_release.warn()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _jax_release.warn()
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jaxlib, "__version__", "0.11.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _jax_release.warn()
