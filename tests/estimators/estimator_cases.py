"""The estimators as functions of (key, f, logits), and those of evaluated arrays."""

import jax.numpy as jnp

from dvae import estimators

TEMPERATURES = {"temperature": 0.5, "eta": 1.0}


def smooth(z):
    return jnp.tanh(z).sum(-1)


ESTIMATORS = {
    "reinforce": estimators.reinforce,
    "reinforce_loo": lambda *args, **kw: estimators.reinforce_loo(*args, num_samples=2, **kw),
    "vimco": lambda *args, **kw: estimators.vimco(*args, num_samples=2, **kw),
    "nvil": lambda *args, **kw: estimators.nvil(*args, estimators.nvil_init(), **kw)[0],
    "muprop": estimators.muprop,
    "rebar": lambda *args: estimators.rebar(*args, **TEMPERATURES),
    "relax": lambda *args: estimators.relax(*args, control_variate=smooth),
    "disarm": estimators.disarm,
    "local_disarm": lambda *args: estimators.local_disarm(*args, num_samples=2),
    "arms": lambda *args: estimators.arms(*args, num_samples=2),
    "double_cv": lambda *args: estimators.double_cv(*args, num_samples=2),
    "rodeo": lambda *args: estimators.rodeo(*args, num_samples=2),
}
OTHERS = {
    "exact": lambda key, f, logits, **kw: estimators.exact(f, logits, **kw),
    "muprop_residual": estimators.muprop_residual,
    "rebar_variance": lambda *args: estimators.rebar_variance(*args, **TEMPERATURES),
    "relax_variance": lambda *args: estimators.relax_variance(*args, control_variate=smooth),
    "double_cv_variance": lambda *args: estimators.double_cv_variance(
        *args, num_samples=2, scale=1.0
    ),
    "rodeo_variance": lambda *args: estimators.rodeo_variance(
        *args, num_samples=2, surrogates=lambda values, slopes: (slopes, slopes)
    ),
}
ALL = {**ESTIMATORS, **OTHERS}
SURROGATES = {
    "reinforce": estimators.reinforce_surrogate,
    "reinforce_loo": estimators.reinforce_loo_surrogate,
    "vimco": estimators.vimco_surrogate,
    "nvil": lambda values, log_q: estimators.nvil_surrogate(values, log_q, estimators.nvil_init())[
        0
    ],
}
