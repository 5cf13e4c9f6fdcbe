"""Trains a categorical codebook model on colour images: Gumbel-Softmax, VIMCO or the VQ-VAE rules.

    python -m experiments.cifar_vq --estimator=gs_soft --dataset=patches --preset=demo
    python -m experiments.cifar_vq --estimator=vimco --dataset=cifar10 --data_dir=DIR --preset=paper

The model is that of Sonderby, Poole and Mnih, "Continuous Relaxation Training of Discrete Latent
Variable Image Models" (2017). The workdir receives config.json, metrics.jsonl, TensorBoard events,
checkpoints, summary.json and pictures. The same command continues an interrupted run.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dvae import bounds, data, vq
from dvae.data import batches
from dvae.models import vq_conv
from dvae.train import loop, sharding, state
from experiments import half_precision, runner, vq_evaluation, vq_report
from experiments import vq_objectives as objectives
from experiments.vq_config import DATA, HISTOGRAM, PRESETS, Config

PyTree = Any
NUM_INIT_IMAGES = 256  # images whose encodings the first codebook is fitted to
KMEANS_ITERATIONS = 5


def draw_fn(config: Config, mesh: Mesh, num_train: int) -> state.DrawFn:
    """Returns the function that draws a step's batch of (cropped) training images."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_order, key_crop = (jax.random.fold_in(key, role) for role in range(2))
        batch = batches.draw(
            key_order, images, step, batch_size=config.batch_size, num_examples=num_train
        )
        batch = batches.random_crop(
            jax.random.fold_in(key_crop, step), batch, size=config.train_size
        )
        return sharding.shard_batch(mesh, batch)

    return draw


def init_fn(config: Config, log_histogram: np.ndarray, num_train: int) -> state.InitFn:
    """Returns the function that makes parameters and codebooks from a key and training images.

    Args:
      config: sizes and how to initialize.
      log_histogram: float32 [3, 256], the first output biases under `output_bias_init=histogram`.
      num_train: how many rows of the training images are not padding.
    """
    module = config.model()
    positions = (config.train_size // vq_conv.DOWNSAMPLING) ** 2
    # As many vectors as codes at the least, however small the crop.
    num_images = max(NUM_INIT_IMAGES, math.ceil(config.codebook_size / positions))

    def init(key: jax.Array, train_images: jax.Array) -> tuple[PyTree, PyTree]:
        key_network, key_codebook, key_images, key_crop, key_kmeans = jax.random.split(key, 5)
        num_latents, size, dim = config.num_latents, config.codebook_size, config.code_dim
        codebook = jax.random.normal(key_codebook, (num_latents, size, dim))
        chosen = jax.random.randint(key_images, (num_images,), 0, num_train)
        images = batches.random_crop(key_crop, train_images[chosen], size=config.train_size)
        network = module.init(key_network, images[:1], codebook)["params"]
        if config.output_bias_init == HISTOGRAM:
            network["head"]["bias"] = jnp.asarray(log_histogram)
        vectors = objectives.apply(module, network, "encode", images)
        if config.codebook_init == DATA:
            points = jnp.moveaxis(vectors.reshape(-1, num_latents, dim), 1, 0)
            keys = jax.random.split(key_kmeans, num_latents)
            fit = lambda k, p: vq.kmeans(k, p, num_codes=size, num_iters=KMEANS_ITERATIONS)[0]
            codebook = jax.vmap(fit)(keys, points)
        spread = config.initial_logit_std
        network["log_scale"] = vq_conv.calibrated_log_scale(vectors, codebook, spread)
        if config.estimator == objectives.VQ_EMA:
            return {"network": network}, jax.vmap(vq.ema_init)(codebook)
        return {"network": network, "codebook": codebook}, ()

    return init


def loss_fn(config: Config) -> state.LossFn:
    """Returns the loss: the negative objective in nats per sub-pixel."""
    module = config.model()

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        key_latent, key_restart = jax.random.split(key)
        codebook = objectives.codebook_of(params, model_state)
        model = objectives.bind(module, params["network"], codebook)
        vectors = objectives.apply(module, params["network"], "encode", images)
        kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
        inputs = (model, vectors, codebook, images)
        if config.estimator in (objectives.GS_SOFT, objectives.GS_HARD):
            terms = objectives.gumbel_softmax(
                key_latent,
                *inputs,
                kl_weight=kl_weight,
                temperature=config.temperature,
                hard=config.estimator == objectives.GS_HARD,
            )
        elif config.estimator == objectives.VIMCO:
            terms = objectives.vimco(
                key_latent, *inputs, kl_weight=kl_weight, num_samples=config.num_samples
            )
        else:
            learned = config.estimator == objectives.VQ
            terms = objectives.nearest_code(
                *inputs,
                kl_weight=kl_weight,
                codebook_weight=float(learned),
                commitment_weight=config.commitment,
            )
        if config.estimator == objectives.VQ_EMA:
            model_state = objectives.update_codebooks(
                key_restart,
                model_state,
                vectors,
                terms.codes,
                decay=config.ema_decay,
                restart_threshold=config.restart_threshold,
            )
        num_dims = images[0].size
        counts = objectives.usage(terms.codes, config.codebook_size)
        metrics = {
            "bits_per_dim": bounds.bits_per_dim(terms.objective.mean(), num_dims),
            "rate": terms.rate.mean(),
            "distortion": terms.distortion.mean(),
            "perplexity": vq.perplexity(counts).mean(),
            "dead_codes": vq.num_dead(counts).astype(jnp.float32).mean(),
        }
        return -terms.surrogate / num_dims, (model_state, metrics)

    return loss


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set; ValueError unless it has 32x32x3 images."""
    images = data.load(config.dataset, config.data_dir or None, keep=keep)
    vq_evaluation.check_images(images)
    return images


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    half_precision.advise("--dtype", config.dtype)
    evaluator = vq_evaluation.Evaluator(config, mesh)
    validation = images.validation[: config.num_eval_images]
    return runner.make_task(
        config,
        init_fn(config, vq_evaluation.log_pixel_histogram(images.train), images.num_train),
        loss_fn(config),
        draw_fn(config, mesh, images.num_train),
        optax.adam(config.learning_rate),
        evaluate=lambda train_state: evaluator.evaluate(train_state, validation).means(),
        data=sharding.shard_rows(mesh, images.train, images.num_train),
        shown=("bits_per_dim", "rate", "distortion"),
    )


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=prepare, make_task=make_task, report=vq_report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
