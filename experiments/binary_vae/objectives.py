"""What every training objective of `binary_vae` takes and returns.

An objective is a function of

  key: typed PRNG key;
  model: the networks at their parameters, on B images;
  auxiliary: what the estimator has beside the model (a Boltzmann prior in its place, see
    `boltzmann_objectives`);
  batch: the images, the step and the KL's weight w in (0, 1];
  config: the settings;

and returns `Terms`, in nats an image. It maximizes a lower bound of log p(x), or its relaxation.
z are bits, zeta relaxed ones, of one or more groups; q is the posterior, of logits l, and p the
prior.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, estimators
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.models import mlp
from dvae.models.binary import Networks
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.common import schedules

PyTree = Any
SURROGATE_UNITS = 16  # of the network of two scalars that rodeo takes
BASELINE_UNITS = 100  # of the networks that predict a signal (nvil, muprop) or control it (relax)


class Batch(NamedTuple):
    """What an objective is evaluated at."""

    x: jax.Array  # float32 [B, D], pixels less their training mean
    step: jax.Array  # int32 []
    kl_weight: jax.Array  # float32 [], w
    labels: jax.Array | None = None  # int [B], where a Boltzmann prior is given them


class Auxiliary(NamedTuple):
    """What an estimator has beside the model."""

    params: PyTree  # see `init_auxiliary`; with those of the networks
    signal: PyTree  # running moments: an NvilState where a baseline is learned, else ()
    networks: Callable[[PyTree], Networks]  # the model at other parameters


class OneGroup(NamedTuple):
    """A single group of bits, f(z) = log p(x|z): the bound is E_q[f(z)] - w KL(q, p)."""

    f: Callable[[jax.Array], jax.Array]  # [..., B, n] -> [..., B]
    logits: jax.Array  # [B, n] of q
    kl: jax.Array  # [B], in closed form

    def terms(self, estimate: estimators.Estimate, batch: Batch) -> "Terms":
        """Returns the objective, given an estimate of E_q[f(z)]."""
        bound = lambda value: bounds.elbo(value, self.kl, kl_weight=batch.kl_weight)
        value, surrogate = estimate
        return Terms(bound(value), bound(surrogate), -value, self.kl.mean()[None])


def one_group(model: Networks) -> OneGroup:
    """Returns the bits of a model with one group."""
    logits = model.posterior_logits([])
    prior = jnp.broadcast_to(model.prior_logits([]), logits.shape)
    f = lambda z: model.log_likelihood([z])
    return OneGroup(f, logits, bernoulli.kl(logits, prior).sum(-1))


class Terms(NamedTuple):
    """An objective at one batch, in nats; B is the number of images."""

    objective: jax.Array  # [B] what is maximized
    surrogate: jax.Array  # [B] its gradient is the estimate of the objective's
    distortion: jax.Array  # [B] -log p(x|z) at the sample
    kl: jax.Array  # [groups] mean over images
    auxiliary_loss: jax.Array | float = 0.0  # [] of baselines and control variates; minimized
    state: PyTree = ()  # by name, what changes in the model's state; (): nothing
    metrics: PyTree = ()  # by name, what is logged beside; (): nothing


Objective = Callable[[jax.Array, Networks, Auxiliary, Batch, Config], Terms]


def beta_at(config: Config, step: jax.Array) -> jax.Array:
    """Returns the inverse temperature of a step."""
    steps = config.beta_steps if config.beta_final else 0
    last = config.beta_final or config.beta
    return schedules.linear(config.beta, last, step, steps or config.num_steps)


def init_auxiliary(key: jax.Array, config: Config, num_pixels: int, network: PyTree) -> PyTree:
    """Makes the parameters of a baseline or control variate; empty for the other estimators.

    Args:
      key: typed PRNG key.
      config: names the estimator.
      num_pixels: of an image.
      network: the model's parameters, of which each may have a weight.
    """
    if config.estimator in names.LEARNED_BASELINE:
        scales: PyTree = {}
        if config.estimator == names.MUPROP and config.muprop_scales == names.LEARNED:
            scales = {"scales": jnp.zeros(2)}  # see `weight`
        return {"baseline": _init_predictor(key, num_pixels), **scales}
    if config.estimator not in names.LEARNED_CONTROL:
        return {}
    if config.estimator == names.DOUBLE_CV:
        return {"control": {"scale": jnp.ones(())}}
    if config.estimator == names.RODEO:
        return {"control": _init_at_zero(_SURROGATES, key, 2)}
    control: PyTree = {
        "log_temperature": jnp.log(jnp.asarray(config.temperature, jnp.float32)),
        "eta": jnp.ones(()),
    }
    if config.estimator == names.REBAR:
        if config.rebar_eta == names.VARIABLES:
            control["eta"] = jax.tree.map(lambda _: jnp.zeros(()), network)  # see `weight`
        if config.rebar_baseline == names.LEARNED:
            control["baseline"] = _init_predictor(key, num_pixels)
        return {"control": control}
    return {"control": {**control, "free": _init_predictor(key, config.num_latents)}}


_PREDICTOR = mlp.Mlp((BASELINE_UNITS,), 1)
_SURROGATES = mlp.Mlp((SURROGATE_UNITS,), 2)


def _init_predictor(key: jax.Array, num_inputs: int) -> PyTree:
    return _init_at_zero(_PREDICTOR, key, num_inputs)


def _init_at_zero(network: mlp.Mlp, key: jax.Array, num_inputs: int) -> PyTree:
    params = network.init(key, jnp.zeros((1, num_inputs)))["params"]
    # Starts at zero everywhere: no control rather than a random one.
    params["output"]["kernel"] = jnp.zeros_like(params["output"]["kernel"])
    return params


def weight(x: jax.Array) -> jax.Array:
    """Returns a weight in (0, 2) of an unbounded parameter, 1 at 0."""
    return 2 * jax.nn.sigmoid(x)


def predict(params: PyTree, x: jax.Array) -> jax.Array:
    """Evaluates the network of a baseline or control variate, float [..., I] to [...]."""
    return binary_model.apply(_PREDICTOR, params, mlp.Mlp.__call__, x)[..., 0]


def surrogates(params: PyTree, values: jax.Array, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Evaluates rodeo's two functions, H = s (1 + h) and G = s (1/2 + g), at (f(z_j), s) [...].

    h and g are outputs of a network of the two numbers, compressed by asinh; they start at zero.
    """
    inputs = jnp.stack(jnp.broadcast_arrays(jnp.arcsinh(values), jnp.arcsinh(slopes)))
    # A column a point: on a CPU nearly twice as fast as the module's rows.
    affine = lambda layer, x: layer["kernel"].T @ x + layer["bias"][:, None]
    hidden = jnp.tanh(affine(params["hidden_0"], inputs.reshape(2, -1)))
    h, g = affine(params["output"], hidden).reshape(inputs.shape)
    return slopes * (1 + h), slopes * (0.5 + g)
