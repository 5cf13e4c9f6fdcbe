"""Training objectives of `binary_vae`: one function a kind of estimator, all returning `Terms`.

Each maximizes a lower bound of log p(x), or its relaxation, in nats an image. The relaxed and the
straight-through kinds differentiate a sample; the score-function kinds hand the decoder's
log-likelihood (one group: its divergence stays analytic) or the log-weight (several groups, or
several samples) to `dvae.estimators`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, estimators, relax
from dvae.distributions import bernoulli
from dvae.models import mlp
from experiments.binary_vae import model as binary_model
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.model import Networks

PyTree = Any
BASELINE_UNITS = 100  # of the networks that predict a signal (nvil, muprop) or control it (relax)


class Terms(NamedTuple):
    """An objective at one batch, in nats; B is the number of images."""

    objective: jax.Array  # [B] what is maximized
    surrogate: jax.Array  # [B] its gradient is the estimate of the objective's
    distortion: jax.Array  # [B] -log p(x|z) at the sample
    kl: jax.Array  # [groups] mean over images
    auxiliary_loss: jax.Array  # [] of baselines and control variates; minimized
    state: PyTree  # running moments of the signal (nvil, muprop)
    metrics: dict[str, jax.Array]


def beta_at(config: Config, step: jax.Array) -> jax.Array:
    """Returns the inverse temperature of a step."""
    steps = config.beta_steps if config.beta_final else 0
    progress = jnp.minimum(step / (steps or config.num_steps), 1.0)
    change = (config.beta_final or config.beta) - config.beta
    return (config.beta + change * progress).astype(jnp.float32)


def reparametrized(
    key: jax.Array, model: Networks, config: Config, *, step: jax.Array, kl_weight: jax.Array
) -> Terms:
    """Smoothings, Concrete and the straight-through kind: differentiates through a sample."""
    beta = beta_at(config, step) if config.estimator in names.SMOOTHINGS else None
    sample = _sampler(config, beta)
    groups: list[jax.Array] = []
    logits_q: list[jax.Array] = []
    logits_p: list[jax.Array] = []
    log_q: list[jax.Array] = []
    log_p: list[jax.Array] = []
    for key_group in jax.random.split(key, config.num_groups):
        logits_q.append(model.posterior_logits(groups))
        logits_p.append(jnp.broadcast_to(model.prior_logits(groups), logits_q[-1].shape))
        zeta, densities = sample(key_group, logits_q[-1], logits_p[-1])
        groups.append(zeta)
        log_q.append(densities[0])
        log_p.append(densities[1])
    log_likelihood = model.log_likelihood(groups)
    if config.bound == names.MARGINAL:
        bound = bounds.marginal_elbo(log_likelihood, log_q, log_p, kl_weight=kl_weight)
        kl = [(q - p).sum(-1).mean() for q, p in zip(log_q, log_p, strict=True)]
    else:
        bound = bounds.joint_elbo(log_likelihood, logits_q, logits_p, kl_weight=kl_weight)
        kl = [bernoulli.kl(q, p).sum(-1).mean() for q, p in zip(logits_q, logits_p, strict=True)]
    metrics = {} if beta is None else {"beta": beta}
    return Terms(bound, bound, -log_likelihood, jnp.stack(kl), jnp.zeros(()), (), metrics)


def _sampler(config: Config, beta: jax.Array | None) -> Callable[..., Any]:
    """Returns (key, logits_q, logits_p) -> (sample, (log q(sample), log p(sample)))."""
    name = config.estimator
    if name == names.CONCRETE:
        temperature = config.temperature
        # The densities are those of logit(zeta), whose ratio is that of zeta and never underflows.
        concrete = relax.binary_concrete

        def sample_concrete(key: jax.Array, q: jax.Array, p: jax.Array) -> Any:
            y = concrete.sample_logit(key, q, temperature)
            log_prob = lambda logits: concrete.log_prob_of_logit(y, logits, temperature)
            return jax.nn.sigmoid(y), (log_prob(q), log_prob(p))

        return sample_concrete
    if beta is not None:
        smoothing = relax.SMOOTHINGS[name]

        def sample_smoothing(key: jax.Array, q: jax.Array, p: jax.Array) -> Any:
            zeta = smoothing.sample(key, q, beta)
            if config.bound == names.JOINT:
                return zeta, (zeta, zeta)
            return zeta, (smoothing.log_prob(zeta, q, beta), smoothing.log_prob(zeta, p, beta))

        return sample_smoothing
    draw = {
        names.STRAIGHT_THROUGH: lambda key, q: relax.straight_through.bernoulli(key, q),
        names.REINMAX: lambda key, q: relax.reinmax.bernoulli(key, q),
        names.GUMBEL_RAO: lambda key, q: relax.gumbel_rao.bernoulli(
            key, q, config.temperature, num_samples=config.num_samples
        ),
    }[name]
    return lambda key, q, p: (draw(key, q), (q, p))


def score_function(
    key: jax.Array,
    model: Networks,
    config: Config,
    *,
    fixed_model: Networks,
    auxiliary: PyTree,
    state: PyTree,
    x: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """One group: the estimator sees log p(x|z), the divergence is added in closed form.

    `fixed_model` is the model at parameters without gradient: relax's control variate contains f,
    and descending its variance must not move the decoder.
    """
    logits = model.posterior_logits([])
    prior = jnp.broadcast_to(model.prior_logits([]), logits.shape)
    kl = bernoulli.kl(logits, prior).sum(-1)
    f = lambda z: model.log_likelihood([z])
    auxiliary_loss, metrics = jnp.zeros(()), {}
    name = config.estimator
    if name == names.EXACT:
        value = estimators.exact(f, logits)
        estimate = estimators.Estimate(value, value)
    elif name == names.REINFORCE:
        estimate = estimators.reinforce(key, f, logits)
    elif name == names.REINFORCE_LOO:
        estimate = estimators.reinforce_loo(key, f, logits, num_samples=config.num_samples)
    elif name == names.MUPROP:
        # The residual is centered like NVIL's signal, but not rescaled: the divergence is apart.
        predicted = predict(auxiliary["baseline"], x)
        estimate = estimators.muprop(key, f, logits, baseline=predicted + state.mean)
        residual = estimators.muprop_residual(jax.random.clone(key), f, logits)
        auxiliary_loss = estimators.nvil_baseline_loss(residual, predicted, state).mean()
        state = estimators.nvil_update(residual, state, baseline=predicted)
    elif name == names.DISARM:
        estimate = estimators.disarm(key, f, logits)
    elif name == names.REBAR:
        control = auxiliary["control"]
        temperature, eta = jnp.exp(control["log_temperature"]), control["eta"]
        fixed = jax.lax.stop_gradient((temperature, eta))
        estimate = estimators.rebar(key, f, logits, temperature=fixed[0], eta=fixed[1])
        auxiliary_loss = estimators.rebar_variance(
            jax.random.clone(key), f, logits, temperature=temperature, eta=eta
        ).mean()
        metrics = {"temperature": temperature, "eta": eta}
    elif name == names.RELAX:
        control = auxiliary["control"]

        def control_variate(control: PyTree) -> Callable[[jax.Array], jax.Array]:
            temperature = jnp.exp(control["log_temperature"])
            return lambda z: (
                control["eta"] * fixed_model.log_likelihood([jax.nn.sigmoid(z / temperature)])
                + predict(control["free"], z)
            )

        fixed = jax.lax.stop_gradient(control)
        estimate = estimators.relax(key, f, logits, control_variate=control_variate(fixed))
        auxiliary_loss = estimators.relax_variance(
            jax.random.clone(key), f, logits, control_variate=control_variate(control)
        ).mean()
        metrics = {"temperature": jnp.exp(control["log_temperature"]), "eta": control["eta"]}
    else:
        raise ValueError(f"{name} is no score-function estimator of one group")
    return Terms(
        bounds.elbo(estimate.value, kl, kl_weight=kl_weight),
        bounds.elbo(estimate.surrogate, kl, kl_weight=kl_weight),
        -estimate.value,
        kl.mean()[None],
        auxiliary_loss,
        state,
        metrics,
    )


def log_weight_estimate(
    key: jax.Array,
    model: Networks,
    config: Config,
    *,
    auxiliary: PyTree,
    state: PyTree,
    x: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """Several groups, VIMCO, NVIL: the estimator sees log p(x, z) - log q(z|x) of hard samples.

    NVIL rescales its signal, which must therefore hold the divergence too.
    """
    several = config.estimator in names.MULTI_SAMPLE
    lead = (config.num_samples,) if several else ()
    draw = binary_model.ancestral(key, model, config.num_groups, lead)
    log_weights = draw.log_likelihood - kl_weight * draw.log_ratios.sum(0)
    if config.estimator != names.VIMCO:
        # grad log q(z|x) has mean zero here, and would only add noise; VIMCO weighs its samples.
        log_weights += kl_weight * (draw.log_q - jax.lax.stop_gradient(draw.log_q))
    auxiliary_loss = jnp.zeros(())
    if config.estimator == names.VIMCO:
        estimate = estimators.vimco_surrogate(log_weights, draw.log_q)
    elif config.estimator == names.REINFORCE_LOO:
        estimate = estimators.reinforce_loo_surrogate(log_weights, draw.log_q)
    elif config.estimator == names.NVIL:
        baseline = predict(auxiliary["baseline"], x)
        estimate, new_state = estimators.nvil_surrogate(
            log_weights, draw.log_q, state, baseline=baseline
        )
        auxiliary_loss = estimators.nvil_baseline_loss(log_weights, baseline, state).mean()
        state = new_state
    elif config.estimator == names.REINFORCE:
        estimate = estimators.reinforce_surrogate(log_weights, draw.log_q)
    else:
        raise ValueError(f"{config.estimator} is no estimator of log-weights")
    per_image = lambda v: v.mean(0) if several else v
    return Terms(
        estimate.value,
        estimate.surrogate,
        -per_image(draw.log_likelihood),
        draw.log_ratios.reshape(config.num_groups, -1).mean(-1),
        auxiliary_loss,
        state,
        {},
    )


def init_auxiliary(key: jax.Array, config: Config, num_pixels: int) -> PyTree:
    """Makes the parameters of a baseline or control variate; empty for the other estimators."""
    if config.estimator in names.LEARNED_BASELINE:
        return {"baseline": _init_predictor(key, num_pixels)}
    if config.estimator not in names.LEARNED_CONTROL:
        return {}
    control: PyTree = {
        "log_temperature": jnp.log(jnp.asarray(config.temperature, jnp.float32)),
        "eta": jnp.ones(()),
    }
    if config.estimator == names.REBAR:
        return {"control": control}
    return {"control": {**control, "free": _init_predictor(key, config.num_latents)}}


_PREDICTOR = mlp.Mlp((BASELINE_UNITS,), 1)


def _init_predictor(key: jax.Array, num_inputs: int) -> PyTree:
    params = _PREDICTOR.init(key, jnp.zeros((1, num_inputs)))["params"]
    # Starts at zero everywhere: no control rather than a random one.
    params["output"]["kernel"] = jnp.zeros_like(params["output"]["kernel"])
    return params


def predict(params: PyTree, x: jax.Array) -> jax.Array:
    """One number for each row: [..., D] to [...]."""
    return binary_model.apply(_PREDICTOR, params, mlp.Mlp.__call__, x)[..., 0]
