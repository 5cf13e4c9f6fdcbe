"""The configuration of `binary_vae` and its checks."""

from dataclasses import dataclass
from typing import ClassVar

from jax.typing import DTypeLike

from dvae.models import mlp
from experiments.binary_vae import machines, names, sizes
from experiments.binary_vae import rules as binary_rules
from experiments.binary_vae.conditions import NOTHING, Condition, ConditionConfig
from experiments.binary_vae.protocol import ProtocolConfig
from experiments.boltzmann import graphs
from experiments.boltzmann.config import USUAL
from experiments.boltzmann.names import PCD
from experiments.common import flags, pixels, schedules
from experiments.common import names as run_names
from experiments.common.config import RunConfig, dataset_option, dataset_word
from experiments.common.flag_rules import Rules
from experiments.common.flags import changed, option


@dataclass(frozen=True)
class Config(graphs.GraphConfig, ProtocolConfig, ConditionConfig):
    """Everything that determines a run; sizes default to those of the paper's Table 1."""

    program = "binary_vae"

    prior: str = option(
        names.DIRECTED,
        "Prior of the bits: factorial groups, each given the ones before; a restricted "
        "Boltzmann machine; or a Boltzmann machine on any graph.",
        choices=(names.DIRECTED, *names.MACHINES),
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
    dataset: str = dataset_option("mnist_static", "Images with binary pixels.")
    binarization: str = option(
        names.AS_STORED,
        "Pixels: the set's own binary ones; gray levels sampled each time an image is seen, or "
        "once; or gray levels cut at 127. Sets of gray levels need one of the latter.",
        choices=pixels.BINARIZATIONS,
        group="data",
    )
    structure: str = option(
        names.NONLINEAR,
        "Networks between groups: affine maps, or layers of hidden units.",
        choices=(names.LINEAR, names.NONLINEAR),
        group="model",
    )
    hidden_units: int = option(200, "Units of a hidden layer.", minimum=1, group="model")
    hidden_layers: int = option(2, "Hidden layers of every network.", minimum=1, group="model")
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
        "Normalization before every activation, or none; of relaxations in hidden layers.",
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
        schedules.LINEAR,
        "Schedule of the learning rate: it stays, falls linearly to zero, or goes in steps: "
        "0.1 at first, 1 from 2 % of the run on, 1/3 from 60 %, 1/10 from 75 %, 1/33 from "
        "95 %.",
        choices=(schedules.CONSTANT, schedules.LINEAR, schedules.STAIRCASE),
        group="optimizer",
    )
    control_rate: float = option(
        10.0,
        "Learning rate of the control variate, relative to the model's.",
        above=0,
        group="optimizer",
    )
    adam_eps: float = option(1e-8, "Epsilon of Adam.", above=0, group="optimizer")
    eval_dtype: str = option(
        "float32",
        "Type that operands of the networks' matrix products are rounded to in evaluations; "
        "sums stay float32.",
        choices=("float32", "bfloat16"),
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
        self.check_condition(self.prior, self.sampler)
        layers = 0 if self.structure == names.LINEAR else self.hidden_layers
        sizes.check_compilation(self.num_groups, layers)
        if self.has_machine:
            flags.settle(self, method=names.DVAEPP, sampler=PCD)
            spikes, relaxed = self.method == names.DVAE, self.method == names.DVAES
            flags.settle(
                self,
                smoothing=names.SPIKE_EXP if spikes else names.EXPONENTIAL,
                bound=names.IW if relaxed else names.ELBO,
            )
            chosen = ("prior", "estimator", "method", "smoothing", "bound")
            machines.check(self, **{name: getattr(self, name) for name in chosen})
        else:
            flags.settle(self, bound=names.JOINT)
            _check_directed(self)
        if self.kl_warmup_steps > self.num_steps:
            raise ValueError(
                f"--kl_warmup_steps={self.kl_warmup_steps} exceeds --num_steps={self.num_steps}: "
                "the KL would never have its full weight; give a smaller --kl_warmup_steps"
            )
        if self.normalization == names.BATCH and not self.hidden:
            raise ValueError(
                "--normalization=batch goes before an activation, and --structure=linear has none; "
                "use --structure=nonlinear"
            )

    @property
    def has_machine(self) -> bool:
        """Whether the prior is a Boltzmann machine."""
        return self.prior in names.MACHINES

    @property
    def machine_graph(self) -> str:
        """The graph of a general machine; empty of an RBM."""
        return self.graph if self.prior == names.GENERAL else ""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return () if self.structure == names.LINEAR else (self.hidden_units,) * self.hidden_layers

    @property
    def relaxation(self) -> str:
        """The estimator of directed priors, the smoothing of Boltzmann priors."""
        return self.estimator if self.prior == names.DIRECTED else self.smoothing

    def model(
        self,
        num_pixels: int,
        *,
        condition: Condition = NOTHING,
        product_dtype: DTypeLike | None = None,
    ) -> mlp.BinaryVAE:
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
                activation=self.activation,
                num_labels=condition.size,
                real_labels=not condition.one_hot,
            )
        )

    def tied_to_length(self) -> str | None:
        """Returns the setting that makes training depend on the number of steps."""
        if self.schedule != schedules.CONSTANT:
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
        if self.has_machine:
            importance = self.bound == names.IW
            method = self.prior if self.prior == names.GENERAL else self.method
            kind = [method, *kind, f"{self.bound}{self.num_samples if importance else ''}"]
            told += ["num_samples"] if importance else []
        elif self.estimator in names.WITH_DENSITY:
            kind.append(self.bound)
        words = [dataset_word(self.dataset), f"{self.num_groups}{self.structure}", *kind]
        return run_names.default_workdir("binary_vae", self, words, told=told, usual=USUAL)


def _check_directed(config: Config) -> None:
    """Raises ValueError for what a directed prior cannot be trained with."""
    for name in ("method", "smoothing", "sampler", "graph"):
        if value := getattr(config, name):
            directed = "; --estimator names the smoothing of a directed prior"
            raise ValueError(
                f"--{name}={value} goes with --prior={'boltzmann' if name == 'graph' else 'rbm'}"
                f"{directed if value in names.SMOOTHINGS else ''}"
            )
    if config.bound not in (names.JOINT, names.MARGINAL):
        raise ValueError(
            f"--bound={config.bound} goes with --prior=rbm; use --bound=joint or marginal"
        )
    if config.bound == names.MARGINAL and config.estimator not in names.WITH_DENSITY:
        raise ValueError(
            f"--bound=marginal needs an estimator whose zeta has a density, one of "
            f"{', '.join(names.WITH_DENSITY)}, got --estimator={config.estimator}; use "
            "--bound=joint"
        )
    if config.estimator in names.ONE_GROUP and config.num_groups > 1:
        raise ValueError(
            f"--estimator={config.estimator} takes one group of bits, got --num_groups="
            f"{config.num_groups}; use a relaxation, reinforce, reinforce_loo, nvil or vimco"
        )
    if config.estimator == names.EXACT:
        sizes.check_exact(config.num_latents, config.batch_size)
    if config.estimator in names.MULTI_SAMPLE and config.num_samples < 2:
        raise ValueError(
            f"--num_samples must be at least 2 for {config.estimator} (its baseline leaves one "
            f"out), got {config.num_samples}"
        )
    if config.normalization == names.BATCH and config.estimator in names.SCORE_FUNCTION:
        raise ValueError(
            f"--normalization=batch makes an image's likelihood depend on the other images' bits, "
            f"which biases --estimator={config.estimator}; use a relaxation"
        )
