"""Trains DVAE++ on images: global discrete latents over a hierarchy of local ones.

    python -m experiments.dvaepp --preset=demo                      # embedded digits, no files
    python -m experiments.dvaepp --preset=table3_cpu_rbm_normal --data_dir=DIR
    python -m experiments.dvaepp --dataset=cifar10 --decoder=conditional --data_dir=DIR

The model is that of Vahdat et al., "DVAE++" (2018), sec. 6. The workdir receives config.json,
metrics.jsonl, TensorBoard events, checkpoints, summary.json and pictures. The same command
continues an interrupted run.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds, data
from dvae.data import batches
from dvae.models import dvaepp
from dvae.train import loop, sharding, state
from experiments import (
    boltzmann_prior,
    dvaepp_evaluation,
    dvaepp_latents,
    dvaepp_report,
    run_record,
    runner,
)
from experiments.dvaepp_config import BOLTZMANN, Config
from experiments.dvaepp_presets import PRESETS

PyTree = Any


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set; ValueError if the model's sizes do not fit its images."""
    images = data.load(config.dataset, config.data_dir or None, keep=keep)
    config.model(images.train.shape[1:])
    return images


def draw_fn(config: Config, dynamic: bool, mesh: Mesh, num_train: int) -> state.DrawFn:
    """Returns the function that draws a step's batch of images, uint8."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_order, key_pixels = (jax.random.fold_in(key, role) for role in range(2))
        batch = batches.draw(
            key_order, images, step, batch_size=config.batch_size, num_examples=num_train
        )
        if dynamic:
            batch = batches.binarize(jax.random.fold_in(key_pixels, step), batch)
        return sharding.shard_batch(mesh, batch)

    return draw


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
    local = model.local_side**2 * config.local_size
    return [config.num_groups * config.num_latents] + [local] * config.local_groups


def loss_fn(config: Config, module: dvaepp.DVAEPP, mesh: Mesh | None = None) -> state.LossFn:
    """Returns the loss: the negative objective in nats an image.

    Args:
      config: everything.
      module: the networks.
      mesh: whose devices share the chains of a Boltzmann prior; without one nothing is shared.
    """
    sizes = group_sizes(config, module.config)

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
            model_state = {"chains": phase.chains, "log_z": phase.last_log_z}
        run = dvaepp_evaluation.bind(module, params["network"])
        features = run(dvaepp.DVAEPP.encode, images)
        posterior = lambda earlier: run(dvaepp.DVAEPP.global_posterior, features, earlier)
        globals_ = dvaepp_latents.train_globals(
            key_global, config, posterior, params["prior"], log_z
        )
        context, local = run(
            dvaepp.DVAEPP.local_groups,
            key_local,
            run(dvaepp.DVAEPP.expand, globals_.seen),
            features,
            dvaepp_latents.train_local(config),
        )
        log_px = run(dvaepp.DVAEPP.log_likelihood, context, images).mean()
        kls = jnp.concatenate([globals_.divergence.mean()[None], local.mean(1)])
        kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
        # Of several groups, and while their weight is below 1: at 1 balancing changes nothing.
        several = config.local_groups > 0 and config.kl_warmup_steps > 0
        if several and config.kl_balancing == "on":
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


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    module = config.model(images.train.shape[1:])
    evaluator = dvaepp_evaluation.Evaluator(config, images.train.shape[1:], mesh)
    count = min(config.num_eval_images, len(images.validation))
    held_out = images.validation[run_record.spread_indices(len(images.validation), count)]

    def evaluate(train_state: state.TrainState) -> dict[str, np.ndarray]:
        params, model_state = train_state.params, train_state.model_state
        samples = config.eval_samples
        return evaluator.evaluate(params, model_state, held_out, num_samples=samples).means()

    boltzmann = config.global_latents in BOLTZMANN
    return runner.make_task(
        config,
        init_fn(config, module),
        loss_fn(config, module, mesh),
        draw_fn(config, images.binarization == "dynamic", mesh, images.num_train),
        config.optimizer(),
        evaluate=evaluate,
        data=sharding.shard_rows(mesh, images.train, images.num_train),
        shown=("objective", "distortion", "kl", "kl_global"),
        monitor=boltzmann_prior.TRUSTED_NLL if boltzmann else "nll",
    )


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=prepare, make_task=make_task, report=dvaepp_report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
