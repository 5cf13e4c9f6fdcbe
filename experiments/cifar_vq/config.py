"""The configuration of `cifar_vq` and its checks."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from dvae import data
from dvae.models import vq_conv
from experiments.cifar_vq import names, sizes
from experiments.cifar_vq.code_use import UsageConfig
from experiments.common import names as run_names
from experiments.common import schedules
from experiments.common.config import FILES, RunConfig, dataset_option, dataset_word
from experiments.common.flag_rules import POSITIVE, SEVERAL, TRUE, Rules, one_of
from experiments.common.flags import changed, option


@dataclass(frozen=True)
class Config(UsageConfig):
    """Everything that determines a run; sizes and rates default to the paper's."""

    program = "cifar_vq"

    estimator: str = option(
        "gs_soft", "Training rule.", choices=names.ESTIMATORS, group="objective"
    )
    dataset: str = dataset_option(
        "cifar10",
        f"Images in gray or color, height and width multiples of {vq_conv.DOWNSAMPLING}; binary "
        "ones as black and white.",
    )
    codebook_size: int = option(
        512, "Codes of each latent variable, C.", minimum=2, maximum=2**30, group="model"
    )
    num_latents: int = option(8, "Latent variables at each position, n.", minimum=1, group="model")
    levels: str = option(
        "8,5,5,5",
        "Levels of each component of a vector, with commas; their product is the number of codes.",
        group="model",
        former="8,5,5,5",
    )
    num_stages: int = option(
        2, "Stages of a latent variable, of C codes each.", minimum=1, group="model", former=2
    )
    stage_dropout: bool = option(
        False,
        "Dropout of stages in training: an image keeps its first 1 to R, a number drawn evenly.",
        group="objective",
        former=False,
    )
    code_dim: int = option(64, "Dimension of a code vector, D.", minimum=1, group="model")
    features: int = option(256, "Feature maps of every convolution.", minimum=1, group="model")
    num_residual_blocks: int = option(
        4, "Residual blocks of the encoder, and of the decoder.", minimum=0, group="model"
    )
    temperature: float = option(
        0.5, "Temperature of the Gumbel-Softmax.", above=0, group="objective"
    )
    temperature_final: float = option(
        0.0,
        "Temperature at the end of the run, approached geometrically; 0: the same throughout.",
        minimum=0,
        group="objective",
        former=0.0,
    )
    hard_share: float = option(
        0.0,
        "Share of the run, at its end, trained with hard samples as gs_hard is.",
        minimum=0,
        group="objective",
        former=0.0,
    )
    num_samples: int = option(4, "Samples of the bound, K.", minimum=1, group="objective")
    kl_warmup_steps: int = option(
        0, "Steps over which the KL's weight rises from 0 to 1.", minimum=0, group="objective"
    )
    codebook_init: str = option(
        names.DATA,
        "First codes: k-means of encodings, or N(0, 1).",
        choices=(names.DATA, names.NORMAL),
        group="model",
    )
    initial_logit_std: float = option(
        3.0,
        "Standard deviation over the codes of the first posterior's logits.",
        above=0,
        group="model",
    )
    output_bias_init: str = option(
        names.HISTOGRAM,
        "First output biases: log-histogram of training pixels, or zeros.",
        choices=(names.HISTOGRAM, names.ZEROS),
        group="model",
    )
    commitment: float = option(
        0.25, "Weight of the commitment loss, a mean over D.", minimum=0, group="objective"
    )
    entropy_weight: float = option(
        0.1,
        "Weight of a code's mean entropy less that of the mean, nats.",
        minimum=0,
        group="objective",
        former=0.1,
    )
    inverse_temperature: float = option(
        100.0,
        "Inverse temperature of the soft assignment whose entropies these are.",
        above=0,
        group="objective",
        former=100.0,
    )
    ema_decay: float = option(
        0.99, "Decay of the codebook's moving averages, a step.", minimum=0, group="objective"
    )
    restart_threshold: float = option(
        0.01,
        "Vectors a step under which a code is restarted from the batch; 0: never.",
        minimum=0,
        group="objective",
    )
    crop: int = option(
        0,
        "Side in pixels of the random crops trained on; 0: whole images.",
        minimum=0,
        group="data",
    )
    flip: bool = option(
        False,
        "Mirror images, left and right: every second training image is one, at random.",
        group="data",
        former=False,
    )
    validation: bool = option(
        True,
        "Validation images held out; without them training takes all and nothing is validated.",
        group="data",
        former=True,
    )
    learning_rate: float = option(5e-4, "Learning rate of Adam.", above=0, group="optimizer")
    learning_rate_schedule: str = option(
        schedules.CONSTANT,
        "Course of the learning rate: constant, or falling to zero at the end of the run.",
        choices=(schedules.CONSTANT, schedules.LINEAR, schedules.COSINE),
        group="optimizer",
        former=schedules.CONSTANT,
    )
    decay_share: float = option(
        0.4,
        "Share of the run, at its end, over which the learning rate falls.",
        above=0,
        group="optimizer",
        former=0.4,
    )
    ema_params: float = option(
        0.0,
        "Decay a step of the average of the parameters that is evaluated and exported; 0: the "
        "last parameters are.",
        minimum=0,
        group="optimizer",
        former=0.0,
    )
    test_samples: int = option(
        0,
        "Importance samples of an image in the final evaluation's tighter bound; 0: no such bound.",
        minimum=0,
        former=0,
    )
    num_steps: int = changed(RunConfig, "num_steps", 250_000)
    dtype: str = option(
        "float32",
        "Type that convolutions compute in.",
        choices=("float32", "bfloat16"),
        group="model",
    )

    READ_WITH: ClassVar[Rules] = {
        **UsageConfig.READ_WITH_USAGE,
        "temperature": [{"estimator": one_of(names.GS_SOFT, names.GS_HARD)}],
        "temperature_final": [{"estimator": one_of(names.GS_SOFT, names.GS_HARD)}],
        "hard_share": [{"estimator": one_of(names.GS_SOFT)}],
        "decay_share": [
            {"learning_rate_schedule": one_of(schedules.LINEAR, schedules.COSINE)},
        ],
        "test_samples": [{"estimator": one_of(*names.PROBABILISTIC)}],
        "num_samples": [{"estimator": one_of(names.VIMCO)}],
        "initial_logit_std": [{"estimator": one_of(*names.PROBABILISTIC)}],
        "commitment": [{"estimator": one_of(*names.COMMITTED)}],
        "codebook_size": [{"estimator": one_of(*(n for n in names.ESTIMATORS if n != names.FSQ))}],
        "code_dim": [{"estimator": one_of(*(n for n in names.ESTIMATORS if n not in names.GRIDS))}],
        "codebook_init": [{"estimator": one_of(*names.STARTED)}],
        "levels": [{"estimator": one_of(names.FSQ)}],
        "num_stages": [{"estimator": one_of(names.RESIDUAL)}],
        "stage_dropout": [{"estimator": one_of(names.RESIDUAL), "num_stages": SEVERAL}],
        "entropy_weight": [{"estimator": one_of(*names.SIGNS)}],
        "inverse_temperature": [{"estimator": one_of(*names.SIGNS)}],
        "ema_decay": [{"estimator": one_of(names.VQ_EMA)}],
        "restart_threshold": [{"estimator": one_of(names.VQ_EMA)}],
        "eval_interval": [{"validation": TRUE}],
        "num_eval_images": [{"validation": TRUE, "eval_interval": POSITIVE}],
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        _ = self.num_codes, self.vector_dim  # raise for what is no size
        self.check_usage()
        if not self.validation:
            object.__setattr__(self, "eval_interval", 0)
            if self.data_on == FILES:
                raise ValueError(
                    f"--validation=false joins images in memory, got --data_on={FILES}; use "
                    "--data_on=host"
                )
        if self.estimator == names.VIMCO and self.num_samples < 2:
            raise ValueError(
                "--num_samples must be at least 2 for vimco (its baseline leaves one out), got "
                f"{self.num_samples}"
            )
        if self.ema_decay >= 1:
            raise ValueError(
                f"--ema_decay={self.ema_decay} must be below 1, or the codebook never moves"
            )
        if self.ema_params >= 1:
            raise ValueError(
                f"--ema_params={self.ema_params} must be below 1, or the average never moves"
            )
        for name in ("hard_share", "decay_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"--{name}={getattr(self, name)} must be at most 1, the whole run")
        for name in ("crop", "image_size"):
            if (size := getattr(self, name)) % vq_conv.DOWNSAMPLING:
                raise ValueError(
                    f"--{name}={size} must be a multiple of {vq_conv.DOWNSAMPLING} (the model's "
                    "downsampling)"
                )
        if self.crop > self.image_size > 0:
            raise ValueError(f"--crop={self.crop} exceeds --image_size={self.image_size}")
        sizes.check_memory(self)

    @property
    def num_codes(self) -> int:
        """Codes of each codebook, C."""
        if self.estimator == names.FSQ:
            return math.prod(sizes.levels_of(self.levels))
        return self.codebook_size

    @property
    def vector_dim(self) -> int:
        """Dimension of a code vector, D: that of the grid where codes are one."""
        if self.estimator == names.FSQ:
            return len(sizes.levels_of(self.levels))
        if self.estimator in names.SIGNS:
            return sizes.bits_of(self.estimator, self.codebook_size)
        return self.code_dim

    def check_images(self, images: data.Dataset) -> None:
        """Raises ValueError unless the model takes the images, and crops fit into them."""
        height, width, _ = images.train.shape[1:]
        factor = vq_conv.DOWNSAMPLING
        if height % factor or width % factor:
            raise ValueError(
                f"{images.name} has images of {height}x{width} pixels; heights and widths "
                f"must be multiples of {factor} (two convolutions of stride 2): resize them by "
                "--image_size"
            )
        if self.crop > min(height, width):
            raise ValueError(
                f"--crop={self.crop} must be at most {min(height, width)}, as the images of "
                f"{images.name} have {height}x{width} pixels"
            )

    def model(self, channels: int = 3) -> vq_conv.VQConv:
        """Returns the network of these sizes for images of so many channels."""
        return vq_conv.VQConv(
            vq_conv.VQConvConfig(
                codebook_size=self.num_codes,
                num_latents=self.num_latents,
                code_dim=self.vector_dim,
                features=self.features,
                num_residual_blocks=self.num_residual_blocks,
                dtype=jnp.dtype(self.dtype),
                channels=channels,
                num_stages=self.num_stages if self.estimator == names.RESIDUAL else 1,
            )
        )

    def tied_to_length(self) -> str | None:
        """Returns the schedule that goes by the length of the run, if there is one."""
        if self.learning_rate_schedule != schedules.CONSTANT:
            schedule = f"--learning_rate_schedule={self.learning_rate_schedule}"
            return f"the learning rate falls over num_steps ({schedule})"
        if self.temperature_final:
            final = f"--temperature_final={self.temperature_final:g}"
            return f"the temperature goes by num_steps ({final})"
        if self.hard_share:
            return f"hard samples begin by num_steps (--hard_share={self.hard_share:g})"
        return None

    def evaluation_work(self, images: data.Dataset) -> float:
        """Returns the work of the final evaluation, in validations; see `RunConfig`.

        An importance sample counts as one: it runs decoder and head, which at the paper's sizes
        have 1.05 of the 1.31 billion products an image.
        """
        return super().evaluation_work(images) * (2 + self.test_samples)

    def default_workdir(self) -> str:
        """Returns a name that no other configuration has."""
        return run_names.default_workdir(
            "cifar_vq",
            self,
            [dataset_word(self.dataset), self.estimator, f"C{self.num_codes}"],
            told=("dataset", "estimator", "codebook_size"),
        )
