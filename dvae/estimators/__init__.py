"""Gradient estimators for E_{z ~ q}[f(z)] and for K-sample bounds, z discrete.

Each but two returns an `Estimate(value, surrogate)`, both [...]: the gradient of mean(surrogate),
in the logits and in whatever f closes over, is the estimate, and its own value is the objective.
`exact` takes no key and returns the expectation itself, an array [...] to be differentiated; `nvil`
takes its running statistics and returns (Estimate, NvilState). So

    def loss(params, key):
        logits = encode(params, x)                                   # [batch, n]
        f = lambda z: log_joint(params, x, z) - log_posterior(z, logits)
        return -jnp.mean(estimators.reinforce_loo(key, f, logits, num_samples=4).surrogate)

    loss, gradient = jax.value_and_grad(loss)(params, key)

is a training step's gradient and reports the bound itself. f maps z [..., n] to [...], in nats; the
estimators with K samples call it on z [K, ..., n]. It may be a black box that counts or compares:
integers and booleans that it returns become floats. `pathwise`, `rebar`, `double_cv` and `rodeo`
alone refuse them: they differentiate f.

    exact           sum over all states; no variance, 2^n evaluations
    reinforce       one sample, a baseline from the caller
    reinforce_loo   K samples of E[f], the mean of the others as baseline
    vimco           K samples of the bound E[log 1/K sum exp log_weight]
    nvil            one sample, a learned baseline and running statistics (state in, state out)
    muprop          one sample, the expansion of f at the mean of q as control variate
    rebar           one sample, eta f(relaxed z) as control variate; tuned by `rebar_variance`
    relax           one sample, any function of relaxed z; trained by `relax_variance`
    disarm          an antithetic pair of samples
    local_disarm    K antithetic pairs, for the bound of K samples
    coupled         the like of `disarm` for categorical z [..., n, C], two coupled samples
    arms            K mutually antithetic samples
    double_cv       K samples, two expansions of f as control variates
    pathwise        one relaxed, smoothed or straight-through sample of `dvae.relax`; biased
    rodeo           K samples, Stein operators on expansions; tuned by `rodeo_variance`

`family=distributions.categorical` takes logits [..., n, C] and one-hot z [..., n, C]. Models that
work with integer codes evaluate f and log q themselves and call the `*_surrogate` functions, which
take arrays: log q there is summed over the units, and must be differentiable in the logits.
"""

from dvae.estimators._estimate import Estimate
from dvae.estimators.arms import arms
from dvae.estimators.coupled import coupled
from dvae.estimators.disarm import disarm
from dvae.estimators.double_cv import double_cv, double_cv_variance
from dvae.estimators.exact import exact
from dvae.estimators.local_disarm import local_disarm
from dvae.estimators.muprop import muprop, muprop_residual
from dvae.estimators.nvil import (
    NvilState,
    nvil,
    nvil_baseline_loss,
    nvil_init,
    nvil_surrogate,
    nvil_update,
)
from dvae.estimators.pathwise import pathwise
from dvae.estimators.rebar import RebarGradients, rebar, rebar_gradients, rebar_variance
from dvae.estimators.reinforce import (
    reinforce,
    reinforce_loo,
    reinforce_loo_surrogate,
    reinforce_surrogate,
)
from dvae.estimators.relax import relax, relax_variance
from dvae.estimators.rodeo import rodeo, rodeo_variance
from dvae.estimators.vimco import vimco, vimco_surrogate

__all__ = [
    "Estimate",
    "NvilState",
    "RebarGradients",
    "arms",
    "coupled",
    "disarm",
    "double_cv",
    "double_cv_variance",
    "exact",
    "local_disarm",
    "muprop",
    "muprop_residual",
    "nvil",
    "nvil_baseline_loss",
    "nvil_init",
    "nvil_surrogate",
    "nvil_update",
    "pathwise",
    "rebar",
    "rebar_gradients",
    "rebar_variance",
    "reinforce",
    "reinforce_loo",
    "reinforce_loo_surrogate",
    "reinforce_surrogate",
    "relax",
    "relax_variance",
    "rodeo",
    "rodeo_variance",
    "vimco",
    "vimco_surrogate",
]
