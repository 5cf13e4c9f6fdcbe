"""The inverse CDFs and their gradients in float32, against values of 50 digits.

`reference.npz` has one array per family (uniform_exp with eps = 0.05), with rows
[logit, beta, rho, zeta, dzeta/dlogit, f(zeta)]; logit, beta and rho are exact float32 numbers. The
rest was computed without any closed form, in 50-digit decimal arithmetic: zeta by bisection on the
mixture's CDF, the derivative from the implicit function at that root.
"""

import pathlib

import jax
import numpy as np
import pytest

from dvae import relax

with np.load(pathlib.Path(__file__).with_name("reference.npz")) as file:
    REFERENCE = {name: file[name] for name in file.files}


@pytest.mark.many_cases
@pytest.mark.parametrize("name", REFERENCE)
def test_icdf_and_its_gradient_agree_with_the_reference(name):
    rows = REFERENCE[name]
    logits, beta, rho = rows[:, :3].astype(np.float32).T
    zeta, slope, density = rows[:, 3:].T
    assert rows.shape == (405, 6)  # 9 logits, 5 betas, 9 rhos

    @jax.jit
    def both(rho, logits, beta):
        value, pullback = jax.vjp(relax.SMOOTHINGS[name].icdf, rho, logits, beta)
        return value, pullback(jax.numpy.ones_like(rho))

    value, gradients = both(rho, logits, beta)
    assert value.dtype == np.float32
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(g)) for g in gradients)
    if name not in ("gaussian", "logistic"):
        assert np.all((value >= 0) & (value <= 1))

    # One rounding of rho moves a root by 1e-7 / f: on the cliffs of sharp mixtures no float32
    # answer can be right. Elsewhere:
    room = 1e-6 / density
    steep = room > 0.05
    error = np.abs(np.float64(value) - zeta)
    assert np.all((error <= 2e-6 + room) | steep), (error / (2e-6 + room))[~steep].max()
    checked = room < 1e-4 / (1 + beta)
    error = np.abs(np.float64(gradients[1]) - slope)
    assert np.sum(checked) > 200
    assert np.all((error <= 1e-5) | (error <= 2e-3 * np.abs(slope)) | ~checked)
