"""The configuration of `binary_vae` and its checks."""

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.typing import DTypeLike

from dvae.models import mlp
from experiments import binary_checks
from experiments import binary_names as names
from experiments.boltzmann_config import BoltzmannConfig
from experiments.flags import changed, option
from experiments.run_config import RunConfig

# Fractions of the run at which the staircase changes, and the rates from there on.
_STAIRCASE = ((0.0, 0.1), (0.02, 1.0), (0.6, 1 / 3), (0.75, 1 / 10), (0.95, 1 / 33))
_DECAYED = ("kernel", "scale", "weights")  # of layers, of batch norm, of the Boltzmann machine


@dataclass(frozen=True)
class Config(BoltzmannConfig):
    """Everything that determines a run; sizes default to those of the paper's Table 1."""

    program = "binary_vae"

    prior: str = option(
        names.DIRECTED,
        "Factorial groups, each given the ones before, or a restricted Boltzmann machine.",
        choices=(names.DIRECTED, names.BOLTZMANN),
    )
    estimator: str = option(
        names.EXPONENTIAL,
        "Smoothing or gradient estimator (prior=directed).",
        choices=names.ESTIMATORS,
    )
    method: str = option(
        "",
        "prior=rbm: spikes and Rolfe's gradient; overlapping smoothings and the analytic KL (the "
        "default, dvaepp); or relaxed priors.",
        choices=("", *names.SMOOTHINGS_OF),
    )
    smoothing: str = option(
        "",
        "Of the bits (prior=rbm); empty: spike_exp for dvae, else exponential.",
        choices=("", *names.SMOOTHINGS, names.GAUSSIAN_INTEGRAL),
    )
    bound: str = option(
        "",
        "prior=directed: KL of the bits (joint, the default) or of relaxed variables (marginal). "
        "prior=rbm: elbo, or importance-weighted with num_samples (iw, the default of dvaes).",
        choices=("", names.JOINT, names.MARGINAL, names.ELBO, names.IW),
    )
    dataset: str = option("mnist_static", "Binary images.", choices=names.DATASETS)
    binarization: str = option(
        names.AS_STORED,
        "Use the set's own binary pixels, or sample grey levels each time an image is seen.",
        choices=(names.AS_STORED, names.DYNAMIC),
    )
    structure: str = option(
        names.NONLINEAR,
        "Affine maps, or tanh layers between groups.",
        choices=(names.LINEAR, names.NONLINEAR),
    )
    hidden_units: int = option(200, "Width of a tanh layer (nonlinear).", minimum=1)
    hidden_layers: int = option(2, "Tanh layers of every network (nonlinear).", minimum=1)
    latent_inputs: str = option(
        names.SIGNS,
        "Networks see latents zeta as they are, or 2 zeta - 1.",
        choices=(names.BITS, names.SIGNS),
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
    num_samples: int = option(
        5, "Samples of vimco, reinforce_loo, gumbel_rao, and of bound=iw.", minimum=1
    )
    normalization: str = option(
        names.NONE,
        "Batch normalization before every tanh, or none (relaxations, nonlinear).",
        choices=(names.NONE, names.BATCH),
    )
    weight_decay: float = option(
        0.0, "Of half the squared kernels, norm scales and couplings of the prior.", minimum=0
    )
    kl_warmup_steps: int = option(0, "Steps over which the KL's weight rises to 1.", minimum=0)
    learning_rate: float = option(5e-4, "Of Adam, at its highest.", above=0)
    schedule: str = option(
        names.LINEAR,
        "The learning rate stays, falls linearly to zero, or goes in steps: 0.1 at first, 1 from "
        "2 % of the run on, 1/3 from 60 %, 1/10 from 75 %, 1/33 from 95 %.",
        choices=(names.CONSTANT, names.LINEAR, names.STAIRCASE),
    )
    control_rate: float = option(
        10.0,
        "Learning rate of rebar's and relax's control variate, relative to the model's.",
        above=0,
    )
    adam_eps: float = option(1e-8, "Of Adam.", above=0)
    eval_samples: int = option(100, "Importance samples an image, in training.", minimum=1)
    test_samples: int = option(4_000, "Importance samples an image, at the end.", minimum=1)
    eval_dtype: str = option(
        "float32",
        "Of the operands of the networks' matrix products in evaluations; sums stay float32.",
        choices=("float32", "bfloat16"),
    )
    num_validation_images: int = option(
        0, "Of the final evaluation, evenly spaced; 0: as num_test_images says.", minimum=0
    )
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
        if self.prior == names.BOLTZMANN:
            self.settle(method=names.DVAEPP, sampler=names.PCD)
            spikes, relaxed = self.method == names.DVAE, self.method == names.DVAES
            self.settle(
                smoothing=names.SPIKE_EXP if spikes else names.EXPONENTIAL,
                bound=names.IW if relaxed else names.ELBO,
            )
            binary_checks.boltzmann(self)
        else:
            self.settle(bound=names.JOINT)
            binary_checks.directed(self)
        if self.num_validation_images == 1:
            raise ValueError(
                "--num_validation_images=1 has no standard error; use 0 (all) or at least 2"
            )
        if self.kl_warmup_steps > self.num_steps:
            raise ValueError(
                f"--kl_warmup_steps={self.kl_warmup_steps} exceeds --num_steps={self.num_steps}: "
                "the KL would never have its full weight; give a smaller --kl_warmup_steps"
            )
        if self.normalization == names.BATCH and not self.hidden:
            raise ValueError(
                "--normalization=batch goes before a tanh, and --structure=linear has none; use "
                "--structure=nonlinear"
            )

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the tanh layers."""
        return () if self.structure == names.LINEAR else (self.hidden_units,) * self.hidden_layers

    @property
    def relaxation(self) -> str:
        """The estimator of directed priors, the smoothing of Boltzmann priors."""
        return self.estimator if self.prior == names.DIRECTED else self.smoothing

    def model(self, num_pixels: int, *, product_dtype: DTypeLike | None = None) -> mlp.BinaryVAE:
        """Returns the networks of these sizes; see `mlp.BinaryVAEConfig` for the dtype."""
        return mlp.BinaryVAE(
            mlp.BinaryVAEConfig(
                group_sizes=(self.num_latents,) * self.num_groups,
                hidden=self.hidden,
                num_pixels=num_pixels,
                signed_inputs=self.latent_inputs == names.SIGNS,
                directed=self.prior == names.DIRECTED,
                batch_norm=self.normalization == names.BATCH,
                product_dtype=product_dtype,
            )
        )

    def learning_rates(self) -> optax.Schedule:
        """Returns the learning rate of every step."""
        if self.schedule == names.LINEAR:
            return optax.linear_schedule(self.learning_rate, 0.0, self.num_steps)
        steps = _STAIRCASE if self.schedule == names.STAIRCASE else ((0.0, 1.0),)
        return optax.join_schedules(
            [optax.constant_schedule(self.learning_rate * rate) for _, rate in steps],
            [int(start * self.num_steps) for start, _ in steps[1:]],
        )

    def optimizer(self) -> optax.GradientTransformation:
        """Returns Adam under the schedule; a control variate learns at a rate of its own."""
        rates = self.learning_rates()
        model = optax.adam(rates, eps=self.adam_eps)
        if self.weight_decay:
            # Added to the gradient, as the derivative of the penalty is, not to Adam's step.
            model = optax.chain(optax.add_decayed_weights(self.weight_decay, _decayed), model)
        if self.estimator not in names.LEARNED_CONTROL:
            return model
        faster = lambda step: self.control_rate * rates(step)
        labels = lambda params: {name: name == "control" for name in params}
        control = optax.adam(faster, eps=self.adam_eps)
        return optax.multi_transform({False: model, True: control}, labels)

    def tied_to_length(self) -> str | None:
        """Returns the setting that makes training depend on the number of steps."""
        if self.schedule != names.CONSTANT:
            return f"the learning rate goes by num_steps (--schedule={self.schedule})"
        smoothed = self.relaxation in (*names.SMOOTHINGS, names.GAUSSIAN_INTEGRAL)
        if smoothed and self.beta_final not in (0, self.beta) and not self.beta_steps:
            return "beta moves over num_steps (--beta_steps=0)"
        return None

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        kind = self.relaxation
        if self.prior == names.BOLTZMANN:
            samples = self.num_samples if self.bound == names.IW else ""
            kind = f"{self.method}-{kind}-{self.bound}{samples}"
        elif self.estimator in names.WITH_DENSITY:
            kind = f"{kind}-{self.bound}"
        return (
            f"runs/binary_vae-{self.dataset}-{self.num_groups}{self.structure}-{kind}"
            f"-seed{self.seed}"
        )


def _decayed(params: Any) -> Any:
    """Marks the parameters of the model that weight decay acts on."""

    def decays(path: Any, _: Any) -> bool:
        first, last = (getattr(k, "key", getattr(k, "name", None)) for k in (path[0], path[-1]))
        return first in ("network", "prior") and last in _DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)
