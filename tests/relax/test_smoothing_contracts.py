"""What every smoothing promises of arrays: jit, vmap, shapes, dtypes, further derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoothing_oracles import (
    DENSE,
    EACH,
    SIZE,
    icdf_with_gradients,
    points,
)

from dvae import relax


@pytest.mark.thorough
@pytest.mark.many_cases
@EACH
def test_jit_equals_eager_and_vmap_equals_the_whole(name):
    icdf = relax.SMOOTHINGS[name].icdf
    rho, logits, beta = points(seed=9)
    args = rho, logits, np.minimum(beta, 8)  # sharper cliffs amplify the last digit
    jitted, gradients = icdf_with_gradients(name)(*args)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(icdf(*(jnp.asarray(x) for x in args)), jitted)
    one_by_one = jax.jit(jax.vmap(jax.value_and_grad(icdf, 1)))(*args)
    close(one_by_one[0], jitted)
    np.testing.assert_allclose(one_by_one[1], gradients[1], rtol=1e-3, atol=1e-6)


@pytest.mark.many_cases
@EACH
def test_arguments_broadcast(name):
    args = [np.float32([[0.2], [0.3], [0.7]]), np.float32([-1, 0, 1, 2])]
    args.append(np.linspace(1, 9, 6, dtype=np.float32).reshape(2, 3, 1))

    @jax.jit
    def both(*args):
        zeta, pullback = jax.vjp(relax.SMOOTHINGS[name].icdf, *args)
        return zeta, pullback(jnp.ones_like(zeta))

    zeta, gradients = both(*args)
    padded = (np.resize(x, SIZE) for x in np.broadcast_arrays(*args))
    expected, slopes = icdf_with_gradients(name)(*padded)
    np.testing.assert_allclose(zeta, expected[:24].reshape(2, 3, 4), rtol=1e-5, atol=1e-6)
    for x, slope, axes in zip(gradients, slopes, [(0, 2), (0, 1), 2], strict=True):
        total = slope[:24].reshape(2, 3, 4).sum(axes)
        np.testing.assert_allclose(x.ravel(), total.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.many_cases
@EACH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtypes_are_kept(name, dtype):
    module = relax.SMOOTHINGS[name]

    def everything(rho, logits, beta):
        zeta = module.icdf(rho, logits, beta)
        outputs = [zeta, module.icdf(rho, logits, 3.0), module.cdf(zeta, logits, beta)]
        outputs.append(module.sample(jax.random.key(0), logits, beta))
        outputs.append(jax.grad(lambda x: module.icdf(rho, x, beta).sum())(logits))
        if name in DENSE:
            outputs += [module.log_prob(zeta, logits, beta), module.log_prob_0(zeta, beta)]
            outputs += [module.posterior_logits(zeta, logits, beta), module.log_ratio(zeta, beta)]
            outputs.append(module.ancestral_sample(jax.random.key(1), logits, beta))
        return outputs

    outputs = jax.eval_shape(everything, *(jnp.ones(3, t) for t in (dtype, dtype, jnp.float32)))
    assert {x.dtype for x in outputs} == {jnp.dtype(dtype)}


@pytest.mark.thorough
@EACH
def test_half_precision_is_rounded_once_at_the_end(name):
    rho, logits, beta = points(seed=11)
    rho, logits = jnp.asarray(rho, jnp.float16), jnp.asarray(logits, jnp.bfloat16)
    rho = jnp.clip(rho, 0.01, 0.99).astype(jnp.bfloat16)
    ours = jax.jit(relax.SMOOTHINGS[name].icdf)(rho, logits, beta)
    args = (np.asarray(rho, np.float32), np.asarray(logits, np.float32), beta)
    exact, _ = icdf_with_gradients(name)(*args)
    np.testing.assert_allclose(np.float32(ours), exact, rtol=2.0**-8)


@pytest.mark.many_cases
@EACH
def test_forward_and_second_order_differentiation(name):
    icdf = relax.SMOOTHINGS[name].icdf
    args = np.float32(0.8), np.float32(0.3), np.float32(3.0)

    @jax.jit
    def forward_and_second(*args):
        forward = jax.jacfwd(icdf, (0, 1, 2))(*args)
        return forward, jax.grad(lambda *xs: jax.grad(icdf, 1)(*xs), (0, 1, 2))(*args)

    def reverse(*args):
        _, gradients = icdf_with_gradients(name)(*(np.full(SIZE, x, np.float32) for x in args))
        return np.stack(gradients)[:, 0]

    forward, second = forward_and_second(*args)
    np.testing.assert_allclose(forward, reverse(*args), rtol=1e-5)
    for i, step in enumerate(1e-2 * np.eye(3)):
        ends = [reverse(*(args + sign * step))[1] for sign in (-1, 1)]
        np.testing.assert_allclose(second[i], (ends[1] - ends[0]) / 2e-2, rtol=2e-2, atol=2e-3)
