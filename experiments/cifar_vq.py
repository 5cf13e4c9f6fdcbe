"""Trains a categorical codebook model on colour images: Gumbel-Softmax, VIMCO or the VQ-VAE rules.

    python -m experiments.cifar_vq --estimator=gs_soft --dataset=patches --preset=demo
    python -m experiments.cifar_vq --estimator=vimco --dataset=cifar10 --data_dir=DIR --preset=paper

The model is that of Sonderby, Poole and Mnih, "Continuous Relaxation Training of Discrete Latent
Variable Image Models" (2017). The workdir receives config.json, metrics.jsonl, TensorBoard events,
checkpoints, summary.json and pictures. The same command continues an interrupted run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from jax.sharding import Mesh

from dvae import bounds, data, vq
from dvae.data import batches
from dvae.models import vq_conv
from dvae.train import checkpoint, loop, sharding, state
from experiments import flags, vq_evaluation, vq_report
from experiments import vq_objectives as objectives
from experiments.flags import option

PyTree = Any
NORMAL, DATA = "normal", "data"
ZEROS, HISTOGRAM = "zeros", "histogram"
NUM_INIT_IMAGES = 256  # enough vectors for the largest codebook at the smallest crop


@dataclass(frozen=True)
class Config:
    """Everything that determines a run; the defaults are the paper's."""

    estimator: str = option("gs_soft", "Training rule.", choices=objectives.ESTIMATORS)
    dataset: str = option("cifar10", "Images, 32x32x3.", choices=("cifar10", "patches"))
    data_dir: str = option("", "Folder of prepared TFDS data sets.", identity=False)
    workdir: str = option("", "Where results go; named after the run if empty.", identity=False)
    codebook_size: int = option(512, "Codes of each latent variable, C.", minimum=2)
    num_latents: int = option(8, "Latent variables at each position, n.", minimum=1)
    code_dim: int = option(64, "Dimension of a code vector, D.", minimum=1)
    features: int = option(256, "Feature maps of every convolution.", minimum=1)
    num_residual_blocks: int = option(4, "Residual blocks on each side.", minimum=0)
    temperature: float = option(0.5, "Of the Gumbel-Softmax (gs_soft, gs_hard).", above=0)
    num_samples: int = option(4, "Samples of the bound (vimco).", minimum=1)
    kl_warmup_steps: int = option(0, "Steps over which the KL's weight rises to 1.", minimum=0)
    codebook_init: str = option(
        DATA, "First codes: k-means of encodings, or N(0, 1).", choices=(DATA, NORMAL)
    )
    initial_logit_std: float = option(
        3.0, "Spread over the codes of the first posterior's logits.", above=0
    )
    output_bias_init: str = option(
        HISTOGRAM,
        "First output biases: log-histogram of training pixels, or zeros.",
        choices=(HISTOGRAM, ZEROS),
    )
    commitment: float = option(0.25, "Weight of the commitment loss (vq, vq_ema).", minimum=0)
    ema_decay: float = option(0.99, "Decay of the codebook's moving averages (vq_ema).", minimum=0)
    restart_threshold: float = option(
        0.01,
        "Vectors a step under which a code is restarted from the batch (vq_ema); 0 never.",
        minimum=0,
    )
    crop: int = option(0, "Train on random crops of this size; 0 for whole images.", minimum=0)
    batch_size: int = option(64, "Images a step, over all devices.", minimum=1)
    learning_rate: float = option(5e-4, "Of Adam.", above=0)
    num_steps: int = option(250_000, "Optimizer steps.", minimum=1)
    steps_per_call: int = option(1, "Steps in one compiled call.", minimum=1)
    dtype: str = option("float32", "Of the convolutions.", choices=("float32", "bfloat16"))
    seed: int = option(0, "The first seed.", minimum=0)
    num_seeds: int = option(1, "Seeds trained together by vmap: seed, seed + 1, ...", minimum=1)
    log_interval: int = option(100, "Steps between records.", minimum=1)
    eval_interval: int = option(5_000, "Steps between validations; 0 never.", minimum=0)
    num_eval_images: int = option(1_000, "Validation images used while training.", minimum=1)
    num_test_images: int = option(
        0, "Evenly spaced test images of the final evaluation; 0 for all.", minimum=0
    )
    eval_batch_size: int = option(100, "Images an evaluation step.", minimum=1)
    checkpoint_interval: int = option(
        5_000, "Steps between checkpoints; 0 only at the end.", minimum=0
    )

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        flags.check_fields(self)
        if self.estimator == objectives.VIMCO and self.num_samples < 2:
            raise ValueError(
                "--num_samples must be at least 2 for vimco (its baseline leaves one out), got "
                f"{self.num_samples}"
            )
        if self.ema_decay >= 1:
            raise ValueError(
                f"--ema_decay={self.ema_decay} must be below 1, or the codebook never moves"
            )
        if self.crop % vq_conv.DOWNSAMPLING or self.crop > vq_evaluation.IMAGE_SHAPE[0]:
            raise ValueError(
                f"--crop={self.crop} must be a multiple of {vq_conv.DOWNSAMPLING} (the model's "
                f"downsampling) up to {vq_evaluation.IMAGE_SHAPE[0]}"
            )

    @property
    def train_size(self) -> int:
        """Height and width of the training images."""
        return self.crop or vq_evaluation.IMAGE_SHAPE[0]

    def model(self) -> vq_conv.VQConv:
        """Returns the network of these sizes."""
        return vq_conv.VQConv(
            vq_conv.VQConvConfig(
                codebook_size=self.codebook_size,
                num_latents=self.num_latents,
                code_dim=self.code_dim,
                features=self.features,
                num_residual_blocks=self.num_residual_blocks,
                dtype=jnp.dtype(self.dtype),
            )
        )

    def loop(self) -> loop.LoopConfig:
        """Returns the lengths of the run."""
        return loop.LoopConfig(
            self.num_steps,
            self.steps_per_call,
            self.log_interval,
            self.eval_interval,
            self.checkpoint_interval,
        )

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        return (
            f"runs/cifar_vq-{self.dataset}-{self.estimator}-C{self.codebook_size}-seed{self.seed}"
        )


_SMALL = dict(
    codebook_size=64,
    num_latents=4,
    features=32,
    crop=16,
    batch_size=32,
    learning_rate=1e-3,
    kl_warmup_steps=500,
    eval_interval=250,
    checkpoint_interval=250,
)
PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(dtype="bfloat16", steps_per_call=10),
    "small": dict(_SMALL, num_steps=5_000),
    "demo": dict(_SMALL, dataset="patches", num_steps=1_500, num_eval_images=200),
    "smoke": dict(
        dataset="patches",
        codebook_size=8,
        num_latents=2,
        code_dim=8,
        features=8,
        num_residual_blocks=1,
        crop=16,
        batch_size=8,
        num_steps=4,
        log_interval=2,
        eval_interval=2,
        num_eval_images=16,
        eval_batch_size=16,
        checkpoint_interval=2,
    ),
}


def draw_fn(config: Config, mesh: Mesh) -> state.DrawFn:
    """Returns the function that draws a step's batch of (cropped) training images."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_order, key_crop = (jax.random.fold_in(key, role) for role in range(2))
        batch = batches.draw(key_order, images, step, batch_size=config.batch_size)
        batch = batches.random_crop(
            jax.random.fold_in(key_crop, step), batch, size=config.train_size
        )
        return sharding.shard_batch(mesh, batch)

    return draw


def init_fn(config: Config, train_images: np.ndarray) -> state.InitFn:
    """Returns the function that makes parameters and codebooks from a key."""
    module = config.model()
    log_histogram = vq_evaluation.log_pixel_histogram(train_images)
    size = config.train_size

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        key_network, key_codebook, key_images, key_crop, key_kmeans = jax.random.split(key, 5)
        c = config
        codebook = jax.random.normal(key_codebook, (c.num_latents, c.codebook_size, c.code_dim))
        chosen = jax.random.randint(key_images, (NUM_INIT_IMAGES,), 0, len(train_images))
        images = batches.random_crop(key_crop, jnp.asarray(train_images)[chosen], size=size)
        network = module.init(key_network, images[:1], codebook)["params"]
        if c.output_bias_init == HISTOGRAM:
            network["head"]["bias"] = jnp.asarray(log_histogram)
        vectors = objectives.apply(module, network, "encode", images)
        if c.codebook_init == DATA:
            points = jnp.moveaxis(vectors.reshape(-1, c.num_latents, c.code_dim), 1, 0)
            codebook = jax.vmap(
                lambda k, p: vq.kmeans(k, p, num_codes=c.codebook_size, num_iters=5)[0]
            )(jax.random.split(key_kmeans, c.num_latents), points)
        network["log_scale"] = vq_conv.calibrated_log_scale(vectors, codebook, c.initial_logit_std)
        if c.estimator == objectives.VQ_EMA:
            return {"network": network}, jax.vmap(vq.ema_init)(codebook)
        return {"network": network, "codebook": codebook}, ()

    return init


def loss_fn(config: Config) -> state.LossFn:
    """Returns the loss: the negative objective in nats per sub-pixel."""
    module = config.model()
    c = config

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        key_latent, key_restart = jax.random.split(key)
        codebook = objectives.codebook_of(params, model_state)
        model = objectives.bind(module, params["network"], codebook)
        vectors = objectives.apply(module, params["network"], "encode", images)
        kl_weight = bounds.linear_warmup(step, c.kl_warmup_steps)
        inputs = (model, vectors, codebook, images)
        if c.estimator in (objectives.GS_SOFT, objectives.GS_HARD):
            terms = objectives.gumbel_softmax(
                key_latent,
                *inputs,
                kl_weight=kl_weight,
                temperature=c.temperature,
                hard=c.estimator == objectives.GS_HARD,
            )
        elif c.estimator == objectives.VIMCO:
            terms = objectives.vimco(
                key_latent, *inputs, kl_weight=kl_weight, num_samples=c.num_samples
            )
        else:
            learned = c.estimator == objectives.VQ
            terms = objectives.nearest_code(
                *inputs,
                kl_weight=kl_weight,
                codebook_weight=float(learned),
                commitment_weight=c.commitment,
            )
        if c.estimator == objectives.VQ_EMA:
            model_state = objectives.update_codebooks(
                key_restart,
                model_state,
                vectors,
                terms.codes,
                decay=c.ema_decay,
                restart_threshold=c.restart_threshold,
            )
        num_dims = images[0].size
        counts = objectives.usage(terms.codes, c.codebook_size)
        metrics = {
            "bits_per_dim": bounds.bits_per_dim(terms.objective.mean(), num_dims),
            "rate": terms.rate.mean(),
            "distortion": terms.distortion.mean(),
            "perplexity": vq.perplexity(counts).mean(),
            "dead_codes": vq.num_dead(counts).astype(jnp.float32).mean(),
        }
        return -terms.surrogate / num_dims, (model_state, metrics)

    return loss


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    optimizer = optax.adam(config.learning_rate)
    init = init_fn(config, images.train)
    make_state = lambda key: state.init(init, optimizer, key)
    step = state.make_step(loss_fn(config), draw_fn(config, mesh), optimizer)
    keys = [jax.random.split(jax.random.key(config.seed + i), 2) for i in range(config.num_seeds)]
    evaluator = vq_evaluation.Evaluator(config)
    validation = images.validation[: config.num_eval_images]
    if config.num_seeds == 1:
        key_init, key_train = keys[0]
    else:
        key_init, key_train = jnp.stack(keys, axis=1)
        make_state, step = jax.vmap(make_state), state.vmap_seeds(step)
    return loop.Task(
        init=make_state,
        step=step,
        evaluate=lambda train_state: evaluator.evaluate(train_state, validation).means(),
        data=images.train,
        key_init=key_init,
        key_train=key_train,
        images_per_step=config.batch_size * config.num_seeds,
        shown=("bits_per_dim", "rate", "distortion"),
    )


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary."""
    workdir = Path(config.workdir or config.default_workdir())
    with flags.setup():
        mesh = sharding.make_mesh()
        lengths = config.loop()
        sharding.check_batch_size(config.batch_size, mesh)
        checkpoint.prepare_workdir(workdir, flags.identity(config))
        images = data.load(config.dataset, config.data_dir or None)
        vq_evaluation.check_images(images)
    task = make_task(config, images, mesh)
    result = loop.fit(task, lengths, workdir, mesh)
    return vq_report.write(config, result, images, workdir)


def main(arguments: list[str]) -> None:
    """Runs the experiment of the command line."""
    with flags.setup():
        if len(arguments) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
        config = flags.parse(Config, PRESETS)
    run(config)


if __name__ == "__main__":
    flags.define(Config, PRESETS)
    flags.run(main)
