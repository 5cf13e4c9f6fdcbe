"""The configuration of `binary_vae` and its checks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import optax
from jax.typing import DTypeLike

from dvae.models import mlp
from experiments import binary_checks, binary_rules, run_names
from experiments import binary_names as names
from experiments.boltzmann_config import USUAL, BoltzmannConfig
from experiments.flag_rules import Rules
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
        "Prior of the bits: factorial groups, each given the ones before, or a restricted "
        "Boltzmann machine.",
        choices=(names.DIRECTED, names.BOLTZMANN),
        group="model",
    )
    estimator: str = option(
        names.EXPONENTIAL,
        "Smoothing or gradient estimator.",
        choices=names.ESTIMATORS,
        group="objective",
    )
    method: str = option(
        "",
        "Method under a Boltzmann prior: spikes and Rolfe's gradient (dvae); overlapping "
        "smoothings and the analytic KL (dvaepp, the default); or relaxed priors (dvaes).",
        choices=("", *names.SMOOTHINGS_OF),
        group="objective",
    )
    smoothing: str = option(
        "",
        "Smoothing of the bits under a Boltzmann prior; empty: spike_exp for dvae, else "
        "exponential.",
        choices=("", *names.SMOOTHINGS, names.GAUSSIAN_INTEGRAL),
        group="objective",
    )
    bound: str = option(
        "",
        "Bound that is trained. Directed: with the KL of the bits (joint, the default) or "
        "of relaxed variables (marginal). Boltzmann: elbo, or importance-weighted with "
        "num_samples (iw, the default of dvaes).",
        choices=("", names.JOINT, names.MARGINAL, names.ELBO, names.IW),
        group="objective",
    )
    dataset: str = option("mnist_static", "Binary images.", choices=names.DATASETS, group="data")
    binarization: str = option(
        names.AS_STORED,
        "Pixels: the set's own binary ones, or grey levels sampled each time an image is seen.",
        choices=(names.AS_STORED, names.DYNAMIC),
        group="data",
    )
    structure: str = option(
        names.NONLINEAR,
        "Networks between groups: affine maps, or tanh layers.",
        choices=(names.LINEAR, names.NONLINEAR),
        group="model",
    )
    hidden_units: int = option(200, "Units of a tanh layer.", minimum=1, group="model")
    hidden_layers: int = option(2, "Tanh layers of every network.", minimum=1, group="model")
    latent_inputs: str = option(
        names.SIGNS,
        "Latents as networks see them: zeta as it is, or 2 zeta - 1.",
        choices=(names.BITS, names.SIGNS),
        group="model",
    )
    beta: float = option(
        8.0, "First inverse temperature of the smoothing.", above=0, group="objective"
    )
    beta_final: float = option(
        0.0,
        "Last inverse temperature of the smoothing; 0: the first.",
        minimum=0,
        group="objective",
    )
    beta_steps: int = option(
        0,
        "Steps over which beta moves linearly from first to last; 0: the whole run.",
        minimum=0,
        group="objective",
    )
    temperature: float = option(
        0.4,
        "Temperature of the relaxation, of rebar and relax the first one.",
        above=0,
        group="objective",
    )
    num_samples: int = option(5, "Samples of an image, K.", minimum=1, group="objective")
    normalization: str = option(
        names.NONE,
        "Normalization before every tanh, or none; of relaxations in tanh layers.",
        choices=(names.NONE, names.BATCH),
        group="model",
    )
    weight_decay: float = option(
        0.0,
        "Weight of half the squared kernels, norm scales and couplings of the prior.",
        minimum=0,
        group="optimizer",
    )
    kl_warmup_steps: int = option(
        0, "Steps over which the KL's weight rises from 0 to 1.", minimum=0, group="objective"
    )
    learning_rate: float = option(
        5e-4, "Learning rate of Adam, at its highest.", above=0, group="optimizer"
    )
    schedule: str = option(
        names.LINEAR,
        "Schedule of the learning rate: it stays, falls linearly to zero, or goes in steps: "
        "0.1 at first, 1 from 2 % of the run on, 1/3 from 60 %, 1/10 from 75 %, 1/33 from "
        "95 %.",
        choices=(names.CONSTANT, names.LINEAR, names.STAIRCASE),
        group="optimizer",
    )
    control_rate: float = option(
        10.0,
        "Learning rate of the control variate, relative to the model's.",
        above=0,
        group="optimizer",
    )
    adam_eps: float = option(1e-8, "Epsilon of Adam.", above=0, group="optimizer")
    eval_samples: int = option(100, "Importance samples of an image, in validations.", minimum=1)
    test_samples: int = option(
        4_000, "Importance samples of an image, in the final evaluation.", minimum=1
    )
    eval_dtype: str = option(
        "float32",
        "Type that operands of the networks' matrix products are rounded to in evaluations; "
        "sums stay float32.",
        choices=("float32", "bfloat16"),
    )
    num_validation_images: int = option(
        0,
        "Validation images of the final evaluation, evenly spaced; 0: as many as "
        "num_test_images says.",
        minimum=0,
    )
    batch_size: int = changed(RunConfig, "batch_size", 24)
    num_steps: int = changed(RunConfig, "num_steps", 300_000)
    steps_per_call: int = changed(RunConfig, "steps_per_call", 500)
    log_interval: int = changed(RunConfig, "log_interval", 5_000)
    eval_interval: int = changed(RunConfig, "eval_interval", 20_000)
    num_eval_images: int = changed(RunConfig, "num_eval_images", 2_000)
    checkpoint_interval: int = changed(RunConfig, "checkpoint_interval", 20_000)

    READ_WITH: ClassVar[Rules] = binary_rules.READ_WITH

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
        if self.prior != names.DIRECTED or self.estimator not in names.LEARNED_CONTROL:
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
        """Returns a name that no other configuration has."""
        told = ["dataset", "num_groups", "structure", "prior", "estimator", "method", "smoothing"]
        told += ["bound"]
        kind = [self.relaxation]
        if self.prior == names.BOLTZMANN:
            importance = self.bound == names.IW
            kind = [self.method, *kind, f"{self.bound}{self.num_samples if importance else ''}"]
            told += ["num_samples"] if importance else []
        elif self.estimator in names.WITH_DENSITY:
            kind.append(self.bound)
        words = [self.dataset, f"{self.num_groups}{self.structure}", *kind]
        return run_names.default_workdir("binary_vae", self, words, told=told, usual=USUAL)


def _decayed(params: Any) -> Any:
    """Marks the parameters of the model that weight decay acts on."""

    def decays(path: Any, _: Any) -> bool:
        first, last = (getattr(k, "key", getattr(k, "name", None)) for k in (path[0], path[-1]))
        return first in ("network", "prior") and last in _DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)
