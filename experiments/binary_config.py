"""The configuration of `binary_vae`, its checks and its presets."""

from dataclasses import dataclass

import optax

from dvae import relax
from dvae.models import mlp
from experiments.flags import changed, option
from experiments.runner import RunConfig

CONCRETE = "concrete"
STRAIGHT_THROUGH, REINMAX, GUMBEL_RAO = "straight_through", "reinmax", "gumbel_rao"
NVIL, MUPROP, REBAR, RELAX, DISARM = "nvil", "muprop", "rebar", "relax", "disarm"
REINFORCE, REINFORCE_LOO, VIMCO, EXACT = "reinforce", "reinforce_loo", "vimco", "exact"
SMOOTHINGS = tuple(relax.SMOOTHINGS)
RELAXED = (*SMOOTHINGS, CONCRETE)
SURROGATE_GRADIENTS = (STRAIGHT_THROUGH, REINMAX, GUMBEL_RAO)
SCORE_FUNCTION = (REINFORCE, REINFORCE_LOO, NVIL, VIMCO, MUPROP, REBAR, RELAX, DISARM, EXACT)
ESTIMATORS = (*RELAXED, *SURROGATE_GRADIENTS, *SCORE_FUNCTION)
# zeta has a density, whose divergence from the prior's the marginal bound takes. That of Concrete,
# whose zeta decides its bit, is the larger one, not the smaller.
WITH_DENSITY = tuple(name for name in RELAXED if name != "spike_exp")
ONE_GROUP = (MUPROP, REBAR, RELAX, DISARM, EXACT)  # their f is a function of one group's bits
MULTI_SAMPLE = (REINFORCE_LOO, VIMCO)
ON_LOG_WEIGHTS = (NVIL, VIMCO)  # with one group too; the others add the divergence in closed form
LEARNED_BASELINE = (NVIL, MUPROP)
LEARNED_CONTROL = (REBAR, RELAX)
JOINT, MARGINAL = "joint", "marginal"
LINEAR, NONLINEAR = "linear", "nonlinear"
AS_STORED, DYNAMIC = "as_stored", "dynamic"
CONSTANT = "constant"
BITS, SIGNS = "bits", "signs"
DATASETS = (
    "mnist_static",
    "mnist_dynamic",
    "omniglot",
    "caltech101_silhouettes",
    "fashion_mnist",
    "digits",
)
MAX_EXACT_ROWS = 2**18  # states times images that `exact` decodes at once: a gigabyte of logits


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything that determines a run; sizes default to those of the paper's Table 1."""

    estimator: str = option("exponential", "Smoothing or gradient estimator.", choices=ESTIMATORS)
    bound: str = option(
        JOINT,
        "KL of the bits, or (with smoothings and concrete) of the relaxed variables.",
        choices=(JOINT, MARGINAL),
    )
    dataset: str = option("mnist_static", "Binary images.", choices=DATASETS)
    binarization: str = option(
        AS_STORED,
        "Use the set's own binary pixels, or sample grey levels each time an image is seen.",
        choices=(AS_STORED, DYNAMIC),
    )
    structure: str = option(
        NONLINEAR, "Affine maps, or tanh layers between groups.", choices=(LINEAR, NONLINEAR)
    )
    num_groups: int = option(1, "Groups of latent bits.", minimum=1)
    num_latents: int = option(200, "Bits of each group.", minimum=1)
    hidden_units: int = option(200, "Width of a tanh layer (nonlinear).", minimum=1)
    hidden_layers: int = option(2, "Tanh layers of every network (nonlinear).", minimum=1)
    latent_inputs: str = option(
        SIGNS, "Networks see latents zeta as they are, or 2 zeta - 1.", choices=(BITS, SIGNS)
    )
    beta: float = option(8.0, "First inverse temperature (smoothings).", above=0)
    beta_final: float = option(
        0.0, "Last inverse temperature (smoothings); 0: as the first.", minimum=0
    )
    beta_steps: int = option(
        0, "Steps over which beta moves linearly from first to last; 0: the whole run.", minimum=0
    )
    temperature: float = option(
        0.4, "Of concrete and gumbel_rao; the first one of rebar and relax.", above=0
    )
    num_samples: int = option(5, "Samples of vimco, reinforce_loo and gumbel_rao.", minimum=1)
    kl_warmup_steps: int = option(0, "Steps over which the KL's weight rises to 1.", minimum=0)
    learning_rate: float = option(5e-4, "Of Adam, at its highest.", above=0)
    schedule: str = option(
        LINEAR,
        "The learning rate stays, or falls linearly to zero.",
        choices=(CONSTANT, LINEAR),
    )
    control_rate: float = option(
        10.0,
        "Learning rate of rebar's and relax's control variate, relative to the model's.",
        above=0,
    )
    adam_eps: float = option(1e-8, "Of Adam.", above=0)
    eval_samples: int = option(100, "Importance samples an image, in training.", minimum=1)
    test_samples: int = option(4_000, "Importance samples an image, at the end.", minimum=1)
    batch_size: int = changed(RunConfig, "batch_size", 24)
    num_steps: int = changed(RunConfig, "num_steps", 300_000)
    steps_per_call: int = changed(RunConfig, "steps_per_call", 500)
    log_interval: int = changed(RunConfig, "log_interval", 5_000)
    eval_interval: int = changed(RunConfig, "eval_interval", 20_000)
    num_eval_images: int = changed(RunConfig, "num_eval_images", 2_000)
    checkpoint_interval: int = changed(RunConfig, "checkpoint_interval", 20_000)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.bound == MARGINAL and self.estimator not in WITH_DENSITY:
            raise ValueError(
                f"--bound=marginal needs an estimator whose zeta has a density, one of "
                f"{', '.join(WITH_DENSITY)}, got --estimator={self.estimator}; use --bound=joint"
            )
        if self.estimator in ONE_GROUP and self.num_groups > 1:
            raise ValueError(
                f"--estimator={self.estimator} takes one group of bits, got --num_groups="
                f"{self.num_groups}; use a relaxation, reinforce, reinforce_loo, nvil or vimco"
            )
        if self.estimator == EXACT and self.batch_size * 2**self.num_latents > MAX_EXACT_ROWS:
            raise ValueError(
                f"--estimator=exact decodes all 2^n states of every image, at most {MAX_EXACT_ROWS}"
                f" in all, got --num_latents={self.num_latents} and --batch_size="
                f"{self.batch_size}; use fewer latents, a smaller batch or another estimator"
            )
        if self.estimator in MULTI_SAMPLE and self.num_samples < 2:
            raise ValueError(
                f"--num_samples must be at least 2 for {self.estimator} (its baseline leaves one "
                f"out), got {self.num_samples}"
            )

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the tanh layers."""
        return () if self.structure == LINEAR else (self.hidden_units,) * self.hidden_layers

    def model(self, num_pixels: int) -> mlp.BinaryVAE:
        """Returns the networks of these sizes."""
        sizes = (self.num_latents,) * self.num_groups
        signed = self.latent_inputs == SIGNS
        return mlp.BinaryVAE(mlp.BinaryVAEConfig(sizes, self.hidden, num_pixels, signed))

    def optimizer(self) -> optax.GradientTransformation:
        """Returns Adam under the schedule; a control variate learns at a rate of its own."""
        rate = self.learning_rate
        adam = lambda scale: optax.adam(
            optax.linear_schedule(scale * rate, 0.0, self.num_steps)
            if self.schedule == LINEAR
            else scale * rate,
            eps=self.adam_eps,
        )
        if self.estimator not in LEARNED_CONTROL:
            return adam(1.0)
        labels = lambda params: {name: name == "control" for name in params}
        return optax.multi_transform({False: adam(1.0), True: adam(self.control_rate)}, labels)

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        bound = f"-{self.bound}" if self.estimator in WITH_DENSITY else ""
        return (
            f"runs/binary_vae-{self.dataset}-{self.num_groups}{self.structure}-{self.estimator}"
            f"{bound}-seed{self.seed}"
        )
