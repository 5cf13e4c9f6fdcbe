"""The configuration of `cifar_vq`, its checks and its presets."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from dvae import data
from dvae.models import vq_conv
from experiments.cifar_vq import names
from experiments.common import names as run_names
from experiments.common.config import RunConfig, dataset_option, dataset_word
from experiments.common.flag_rules import VALIDATED, Rules, one_of
from experiments.common.flags import changed, option


@dataclass(frozen=True)
class Config(RunConfig):
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
    codebook_size: int = option(512, "Codes of each latent variable, C.", minimum=2, group="model")
    num_latents: int = option(8, "Latent variables at each position, n.", minimum=1, group="model")
    code_dim: int = option(64, "Dimension of a code vector, D.", minimum=1, group="model")
    features: int = option(256, "Feature maps of every convolution.", minimum=1, group="model")
    num_residual_blocks: int = option(
        4, "Residual blocks of the encoder, and of the decoder.", minimum=0, group="model"
    )
    temperature: float = option(
        0.5, "Temperature of the Gumbel-Softmax.", above=0, group="objective"
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
    learning_rate: float = option(5e-4, "Learning rate of Adam.", above=0, group="optimizer")
    num_steps: int = changed(RunConfig, "num_steps", 250_000)
    dtype: str = option(
        "float32",
        "Type that convolutions compute in.",
        choices=("float32", "bfloat16"),
        group="model",
    )

    READ_WITH: ClassVar[Rules] = {
        "temperature": [{"estimator": one_of(names.GS_SOFT, names.GS_HARD)}],
        "num_samples": [{"estimator": one_of(names.VIMCO)}],
        "initial_logit_std": [{"estimator": one_of(*names.PROBABILISTIC)}],
        "commitment": [{"estimator": one_of(names.VQ, names.VQ_EMA)}],
        "ema_decay": [{"estimator": one_of(names.VQ_EMA)}],
        "restart_threshold": [{"estimator": one_of(names.VQ_EMA)}],
        "num_eval_images": VALIDATED,
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.estimator == names.VIMCO and self.num_samples < 2:
            raise ValueError(
                "--num_samples must be at least 2 for vimco (its baseline leaves one out), got "
                f"{self.num_samples}"
            )
        if self.ema_decay >= 1:
            raise ValueError(
                f"--ema_decay={self.ema_decay} must be below 1, or the codebook never moves"
            )
        for name in ("crop", "image_size"):
            if (size := getattr(self, name)) % vq_conv.DOWNSAMPLING:
                raise ValueError(
                    f"--{name}={size} must be a multiple of {vq_conv.DOWNSAMPLING} (the model's "
                    "downsampling)"
                )
        if self.crop > self.image_size > 0:
            raise ValueError(f"--crop={self.crop} exceeds --image_size={self.image_size}")

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
                codebook_size=self.codebook_size,
                num_latents=self.num_latents,
                code_dim=self.code_dim,
                features=self.features,
                num_residual_blocks=self.num_residual_blocks,
                dtype=jnp.dtype(self.dtype),
                channels=channels,
            )
        )

    def tied_to_length(self) -> str | None:
        """Returns None: rate and warm-up are those of any length."""
        return None

    def default_workdir(self) -> str:
        """Returns a name that no other configuration has."""
        return run_names.default_workdir(
            "cifar_vq",
            self,
            [dataset_word(self.dataset), self.estimator, f"C{self.codebook_size}"],
            told=("dataset", "estimator", "codebook_size"),
        )


_SMALL: dict[str, Any] = dict(
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
    "demo": dict(
        _SMALL,
        estimator=names.VQ_EMA,
        dataset="patches",
        num_latents=8,
        kl_warmup_steps=1_500,
        num_steps=2_250,
        num_eval_images=200,
    ),
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
