"""What `dvaepp` trains: data, initial state and loss of DVAE++ on images."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dvae import bounds, data
from dvae.models import dvaepp
from dvae.train import loop, state
from experiments.boltzmann import graphs
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import batches, pixels, schedules
from experiments.common import run as runner
from experiments.dvaepp import latents as dvaepp_latents
from experiments.dvaepp.config import BOLTZMANN, Config

PyTree = Any


def bind(module: dvaepp.DVAEPP, params: PyTree) -> Callable[..., Any]:
    """Returns the module's methods at these parameters: (method, *arguments) -> value."""
    return lambda method, *args: module.apply({"params": params}, *args, method=method)


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set, after a look at the machine's graph.

    Raises:
      ValueError: the model's sizes do not fit the images, or a graph's file has changed.
      DataUnavailableError: see `data.load`.
      MissingExtraError: a graph needs dwave-networkx.
    """
    graphs.of(config)
    images = pixels.load(config, config.dataset, config.binarization, keep)
    if config.colored and images.binarization == "static":
        raise ValueError(
            f"the pixels of {images.name} are 0 or 1; --binarization={pixels.THRESHOLD} takes them "
            "as bits"
        )
    config.model(images.train.shape[1:])
    return images


def init_fn(config: Config, module: dvaepp.DVAEPP) -> state.InitFn:
    """Returns the function that makes the parameters, and the chains of a Boltzmann prior."""

    def init(key: jax.Array, images: jax.Array) -> tuple[PyTree, PyTree]:
        key_network, key_chains = jax.random.split(key)
        blank = jnp.zeros((1, *images.shape[1:]), jnp.uint8)
        prior = dvaepp_latents.init_prior(config)
        params = {"network": module.init(key_network, blank)["params"], "prior": prior}
        if config.global_latents not in BOLTZMANN:
            return params, {}
        chains = boltzmann_prior.init_chains(key_chains, config, prior)
        return params, {"chains": chains, "log_z": boltzmann_prior.init_log_z(prior)}

    return init


def group_sizes(config: Config, model: dvaepp.DVAEPPConfig) -> list[int]:
    """Numbers of variables: of all global ones, and of each local group."""
    local = math.prod(model.local_sides) * config.local_size
    return [config.num_groups * config.num_latents] + [local] * config.local_groups


def loss_fn(config: Config, module: dvaepp.DVAEPP, mesh: Mesh | None = None) -> state.LossFn:
    """Returns the loss: the negative objective in nats an image.

    Args:
      config: everything.
      module: the networks.
      mesh: whose devices share the chains of a Boltzmann prior; without one nothing is shared.
    """
    sizes = group_sizes(config, module.config)
    # Of several groups, and while their weight is below 1: at 1 balancing changes nothing.
    several = config.local_groups > 0 and config.kl_warmup_steps > 0
    balanced = several and config.kl_balancing == "on"

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        key_chains, key_global, key_local = jax.random.split(key, 3)
        log_z, metrics = jnp.zeros(()), {}
        if config.global_latents in BOLTZMANN:
            phase = boltzmann_prior.negative_phase(
                key_chains,
                config,
                params["prior"],
                model_state["chains"],
                model_state["log_z"],
                step,
                mesh,
            )
            log_z, metrics = phase.log_z, phase.metrics
            if balanced:  # the global KL, which has log Z, weighs all of them
                log_z = dvaepp_latents.current_log_z(params["prior"], log_z)
            model_state = {"chains": phase.chains, "log_z": phase.last_log_z}
        run = bind(module, params["network"])
        features = run(dvaepp.DVAEPP.encode, images)
        posterior = lambda earlier: run(dvaepp.DVAEPP.global_posterior, features, earlier)
        globals_ = dvaepp_latents.train_globals(
            key_global, config, posterior, params["prior"], log_z, step
        )
        context, local = run(
            dvaepp.DVAEPP.local_groups,
            key_local,
            run(dvaepp.DVAEPP.expand, globals_.seen),
            features,
            dvaepp_latents.train_local(config, step),
        )
        log_px = run(dvaepp.DVAEPP.log_likelihood, context, images).mean()
        kls = jnp.concatenate([globals_.divergence.mean()[None], local.mean(1)])
        kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
        if balanced:
            kl = bounds.balanced_kl(kls, sizes, kl_weight=kl_weight)
        else:
            kl = kl_weight * kls.sum()
        metrics |= {
            "objective": log_px - kl,
            "distortion": -log_px,
            "kl": kls.sum(),
            "kl_global": kls[0],
            "kl_weight": kl_weight,
            **{f"kl_local_{j}": value for j, value in enumerate(kls[1:], 1)},
            **globals_.metrics,
        }
        return kl - log_px, (model_state, metrics)

    return loss


def optimizer(config: Config) -> optax.GradientTransformation:
    """Returns Adam under the schedule, on gradients of a bounded norm."""
    rate: optax.ScalarOrSchedule = config.learning_rate  # a schedule would have a state of its own
    if config.schedule != schedules.CONSTANT:
        rate = schedules.learning_rates(config.schedule, rate, config.num_steps)
    adam = optax.adam(rate)
    if not config.clip_norm:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    module = config.model(images.train.shape[1:])
    boltzmann = config.global_latents in BOLTZMANN
    return runner.make_task(
        config,
        init_fn(config, module),
        loss_fn(config, module, mesh),
        batches.draw_fn(config, mesh, images.num_train, dynamic=images.binarization == "dynamic"),
        optimizer(config),
        evaluate=validate,
        rows=batches.Rows(mesh, images.train, images.num_train),
        shown=("objective", "distortion", "kl", "kl_global"),
        monitor=boltzmann_prior.TRUSTED_NLL if boltzmann else "nll",
        quick_to_compile=True,
    )
