"""The public functions of the library, and the ranges that their arrays may come from.

Keys of `CASES` are `module.function`, with a variant after a comma.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, estimators, relax
from dvae.distributions import bernoulli, categorical, discretized_logistic, normal

SHAPE = (4, 3)  # of all arrays: a function is compiled once

LOGIT = (-80.0, 80.0)
UNIT = (1e-6, 1 - 1e-6)
POINT = (0.0, 1.0)
BETA = (0.5, 100.0)
TEMPERATURE = (0.1, 10.0)
NATS = (-1e6, 1e6)
KL = (0.0, 1e6)
REAL = (-1e3, 1e3)
LOG_SCALE = (-15.0, 15.0)
GUMBEL = (-5.0, 90.0)  # all that float32 uniforms give lies inside
MIXTURE = (-30.0, 30.0)


class Case(NamedTuple):
    """A function of float arrays of one shape, and the ranges of their values."""

    function: Callable[..., Any]  # returns an array, or a tree of them
    ranges: tuple[tuple[float, float], ...]
    # Of half precision: True, it comes back; False, float32 does; None, some of either.
    keeps_dtype: bool | None = True
    differentiable: bool = True


def key(seed):
    """Makes it where it is used: a key that jit closes over is used at each call."""
    return jax.random.key(seed)


def keyed(function, *first, **settings):
    """Gives a random function the same key at each call."""
    return lambda *arrays: function(jax.random.key(0), *first, *arrays, **settings)


def smoothing_cases() -> Iterator[tuple[str, Case]]:
    for name, module in relax.SMOOTHINGS.items():
        if name == "step":
            continue
        yield f"{name}.icdf", Case(module.icdf, (POINT, LOGIT, BETA))
        yield f"{name}.sample", Case(keyed(module.sample), (LOGIT, BETA))
        # The power family's density, its derivative, is infinite at the ends.
        inside = UNIT if name == "power" else POINT
        yield f"{name}.cdf", Case(module.cdf, (inside, LOGIT, BETA))
        if hasattr(module, "log_prob"):
            yield f"{name}.ancestral_sample", Case(keyed(module.ancestral_sample), (LOGIT, BETA))
            yield f"{name}.log_prob", Case(module.log_prob, (POINT, LOGIT, BETA))
            yield f"{name}.log_prob_0", Case(module.log_prob_0, (inside, BETA))
            yield f"{name}.log_ratio", Case(module.log_ratio, (UNIT, BETA))
            yield f"{name}.posterior_logits", Case(module.posterior_logits, (UNIT, LOGIT, BETA))


def concrete_cases() -> Iterator[tuple[str, Case]]:
    module = relax.binary_concrete
    for name, function, ranges in (
        ("icdf", module.icdf, (POINT, LOGIT, TEMPERATURE)),
        ("icdf_logit", module.icdf_logit, (POINT, LOGIT, TEMPERATURE)),
        ("sample", keyed(module.sample), (LOGIT, TEMPERATURE)),
        ("sample_logit", keyed(module.sample_logit), (LOGIT, TEMPERATURE)),
        ("cdf", module.cdf, (UNIT, LOGIT, TEMPERATURE)),
        ("log_prob", module.log_prob, (UNIT, LOGIT, TEMPERATURE)),
        ("log_prob_of_logit", module.log_prob_of_logit, (REAL, LOGIT, TEMPERATURE)),
    ):
        yield f"binary_concrete.{name}", Case(function, ranges)


def gumbel_cases() -> Iterator[tuple[str, Case]]:
    module = relax.gumbel_softmax
    for name, function, ranges in (
        ("sample", keyed(module.sample, temperature=0.5), (LOGIT,)),
        ("sample, hard", keyed(module.sample, temperature=0.5, hard=True), (LOGIT,)),
        ("transform", functools.partial(module.transform, temperature=0.5), (GUMBEL, LOGIT)),
        ("transform_hard", lambda g, x: module.transform_hard(g, x, 0.5), (GUMBEL, LOGIT)),
        ("log_prob", lambda y, logits: module.log_prob(y, logits, 0.5), (POINT, LOGIT)),
        (
            "log_prob_of_log",
            lambda log_y, logits: module.log_prob_of_log(log_y, logits, 0.5),
            ((-1e3, 0.0), LOGIT),
        ),
    ):
        yield f"gumbel_softmax.{name}", Case(function, ranges)


def surrogate_cases() -> Iterator[tuple[str, Case]]:
    for family in ("bernoulli", "categorical"):
        for module in (relax.straight_through, relax.reinmax):
            name = f"{module.__name__.rsplit('.', 1)[1]}.{family}"
            yield name, Case(keyed(getattr(module, family)), (LOGIT,))
        function = getattr(relax.gumbel_rao, family)
        sample = keyed(function, temperature=0.5, num_samples=3)
        yield f"gumbel_rao.{family}", Case(sample, (LOGIT,))


def estimator_cases() -> Iterator[tuple[str, Case]]:
    f = lambda z: jnp.square(z.sum(-1) - 0.5)
    control = lambda z: jax.nn.sigmoid(z).sum(-1)
    state = estimators.nvil_init()
    of_logits = {
        "reinforce": keyed(estimators.reinforce, f),
        "reinforce_loo": keyed(estimators.reinforce_loo, f, num_samples=3),
        "nvil": lambda x: estimators.nvil(jax.random.key(0), f, x, state)[0],
        "vimco": keyed(estimators.vimco, f, num_samples=3),
        "muprop": keyed(estimators.muprop, f),
        "muprop_residual": keyed(estimators.muprop_residual, f),
        "pathwise": keyed(estimators.pathwise, f, sample=relax.straight_through.bernoulli),
        "rebar": keyed(estimators.rebar, f, temperature=0.5, eta=1.0),
        "rebar_variance": keyed(estimators.rebar_variance, f, temperature=0.5, eta=1.0),
        "relax": keyed(estimators.relax, f, control_variate=control),
        "relax_variance": keyed(estimators.relax_variance, f, control_variate=control),
        "disarm": keyed(estimators.disarm, f),
        "local_disarm": keyed(estimators.local_disarm, f, num_samples=3),
        "coupled": keyed(
            lambda key, f, x: estimators.coupled(key, lambda z: f(z[..., 0]), x[..., None]), f
        ),
        "arms": keyed(estimators.arms, f, num_samples=3),
        "double_cv": keyed(estimators.double_cv, f, num_samples=3),
        "double_cv_variance": keyed(estimators.double_cv_variance, f, num_samples=3, scale=1.0),
        "rodeo": keyed(estimators.rodeo, f, num_samples=3),
        "rodeo_variance": keyed(
            estimators.rodeo_variance, f, num_samples=3, surrogates=lambda v, s: (s, s / 2)
        ),
        "exact": functools.partial(estimators.exact, f),
    }
    for name, estimate in of_logits.items():
        surrogate = lambda logits, e=estimate: getattr(e(logits), "surrogate", e(logits))
        # What is squared or summed comes in float32 at least.
        keeps = None if name.endswith("variance") else name != "muprop_residual"
        yield f"estimators.{name}", Case(surrogate, (LOGIT,), keeps_dtype=keeps)
    parts = lambda x: estimators.rebar_gradients(
        jax.random.key(0), lambda p: p, lambda _, z: f(z), x, temperature=0.5
    )
    yield "estimators.rebar_gradients", Case(parts, (LOGIT,))
    of_values = {
        "reinforce_surrogate": estimators.reinforce_surrogate,
        "reinforce_loo_surrogate": estimators.reinforce_loo_surrogate,
        "vimco_surrogate": estimators.vimco_surrogate,
        "nvil_surrogate": lambda v, q: estimators.nvil_surrogate(v, q, state)[0],
    }
    for name, surrogate in of_values.items():
        function = lambda v, q, s=surrogate: s(v, q).surrogate
        yield f"estimators.{name}", Case(function, (REAL, (-1e3, 0.0)))
    yield (
        "estimators.nvil_baseline_loss",
        Case(
            lambda v, b: estimators.nvil_baseline_loss(v, b, state), (REAL, REAL), keeps_dtype=None
        ),
    )
    update = lambda v: estimators.nvil_update(v, state)
    yield (
        "estimators.nvil_update",
        Case(update, (NATS,), keeps_dtype=False, differentiable=False),
    )


def distribution_cases() -> Iterator[tuple[str, Case]]:
    codes = jnp.array([0, 2, 1, 0])
    pixels = jnp.full((4, 1, 1), 128, jnp.uint8)
    mixtures = lambda f: lambda params: f(params[:, None])  # of one channel: logits, means, scales
    yield from {
        "bernoulli.sample": Case(keyed(bernoulli.sample), (LOGIT,)),
        "bernoulli.log_prob": Case(bernoulli.log_prob, (POINT, LOGIT)),
        "bernoulli.entropy": Case(bernoulli.entropy, (LOGIT,)),
        "bernoulli.kl": Case(bernoulli.kl, (LOGIT, LOGIT)),
        "categorical.sample": Case(keyed(categorical.sample), (LOGIT,)),
        "categorical.sample_codes": Case(
            keyed(categorical.sample_codes), (LOGIT,), differentiable=False
        ),
        "categorical.log_prob": Case(categorical.log_prob, (POINT, LOGIT)),
        "categorical.log_prob_of_codes": Case(
            lambda logits: categorical.log_prob_of_codes(codes, logits), (LOGIT,), keeps_dtype=False
        ),
        "categorical.entropy": Case(categorical.entropy, (LOGIT,)),
        "categorical.kl": Case(categorical.kl, (LOGIT, LOGIT)),
        "normal.sample": Case(keyed(normal.sample), (REAL, LOG_SCALE)),
        "normal.log_prob": Case(normal.log_prob, (REAL, REAL, LOG_SCALE)),
        "normal.entropy": Case(normal.entropy, (LOG_SCALE,)),
        "normal.kl": Case(normal.kl, (REAL, LOG_SCALE, REAL, LOG_SCALE)),
        "discretized_logistic.split": Case(
            mixtures(functools.partial(discretized_logistic.split, num_channels=1)),
            (MIXTURE,),
            keeps_dtype=False,
        ),
        "discretized_logistic.log_prob": Case(
            mixtures(functools.partial(discretized_logistic.log_prob, pixels)),
            (MIXTURE,),
            keeps_dtype=False,
        ),
        "discretized_logistic.sample": Case(
            mixtures(keyed(discretized_logistic.sample, num_channels=1)),
            (MIXTURE,),
            differentiable=False,
        ),
    }.items()


def bound_cases() -> Iterator[tuple[str, Case]]:
    log_weight = lambda x, z: lambda key: bernoulli.log_prob(bernoulli.sample(key, z), x).sum(-1)
    yield from {
        "bounds.iwae": Case(bounds.iwae, (NATS,)),
        "bounds.dreg": Case(bounds.dreg, (NATS,)),
        "bounds.elbo": Case(
            lambda x, kl: bounds.elbo(x[:, 0], kl[:, 0], kl_weight=0.5), (NATS, KL)
        ),
        "bounds.joint_elbo": Case(
            lambda x, q, p: bounds.joint_elbo(x[:, 0], [q], [p]), (NATS, LOGIT, LOGIT)
        ),
        "bounds.marginal_elbo": Case(
            lambda x, q, p: bounds.marginal_elbo(x[:, 0], [q], [p]), (NATS, REAL, REAL)
        ),
        "bounds.sum_per_example": Case(bounds.sum_per_example, (NATS,)),
        "bounds.balancing_coefficients": Case(
            lambda kl: bounds.balancing_coefficients(kl[0], (1, 20, 300)), (KL,)
        ),
        "bounds.balanced_kl": Case(
            lambda kl: bounds.balanced_kl(kl[0], (1, 20, 300), kl_weight=0.3), (KL,)
        ),
        "bounds.free_bits": Case(lambda kl: bounds.free_bits(kl[0], min_nats=0.5), (KL,)),
        "bounds.bits_per_dim": Case(lambda nats: bounds.bits_per_dim(nats, 3072), (NATS,)),
        "bounds.linear_warmup": Case(
            lambda step: bounds.linear_warmup(step[0, 0], 100), (KL,), keeps_dtype=None
        ),
        "bounds.capacity_schedule": Case(
            lambda step: bounds.capacity_schedule(step[0, 0], final=5.0, num_steps=100),
            (KL,),
            keeps_dtype=None,
        ),
        "bounds.capacity_penalty": Case(
            lambda kl: bounds.capacity_penalty(kl[:, 0], 5.0, gamma=30.0), (KL,)
        ),
        "bounds.log_likelihood": Case(
            lambda x, z: bounds.log_likelihood(
                jax.random.key(0), log_weight(x, z), num_samples=4, chunk_size=2
            ),
            (LOGIT, LOGIT),
            keeps_dtype=None,
            differentiable=False,
        ),
        "bounds.mean_and_standard_error": Case(
            lambda x: bounds.mean_and_standard_error(x[:, 0]),
            (NATS,),
            keeps_dtype=None,
            differentiable=False,
        ),
    }.items()


CASES: dict[str, Case] = {
    **dict(smoothing_cases()),
    **dict(concrete_cases()),
    **dict(gumbel_cases()),
    **dict(surrogate_cases()),
    **dict(estimator_cases()),
    **dict(distribution_cases()),
    **dict(bound_cases()),
}
