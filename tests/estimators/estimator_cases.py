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
}
OTHERS = {
    "exact": lambda key, f, logits, **kw: estimators.exact(f, logits, **kw),
    "muprop_residual": estimators.muprop_residual,
    "rebar_variance": lambda *args: estimators.rebar_variance(*args, **TEMPERATURES),
    "relax_variance": lambda *args: estimators.relax_variance(*args, control_variate=smooth),
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
