"""Settings in which published protocols differ from ours: of the optimizer and of estimators."""

from dataclasses import dataclass

from experiments.binary_vae import names
from experiments.common.config import LikelihoodConfig
from experiments.common.flags import option


@dataclass(frozen=True)
class ProtocolConfig(LikelihoodConfig):
    """One field for each difference; at the defaults there is none from runs that lack them."""

    concrete_kl: str = option(
        names.ANALYTIC,
        "KL of the joint bound with Concrete: that of the bits, in closed form; or log q - log p "
        "of Bernoulli distributions at the relaxed sample.",
        choices=(names.ANALYTIC, names.SAMPLE),
        group="objective",
        former=names.ANALYTIC,
    )
    nvil_scale: str = option(
        names.RUNNING,
        "Divisor of NVIL's signal: its running standard deviation where that is above 1, or none.",
        choices=(names.RUNNING, names.NONE),
        group="objective",
        former=names.RUNNING,
    )
    muprop_scales: str = option(
        names.FIXED,
        "Scales of MuProp's f(m) and of its slope: 1 each, or learned together with the baseline.",
        choices=(names.FIXED, names.LEARNED),
        group="objective",
        former=names.FIXED,
    )
    rebar_eta: str = option(
        names.SHARED,
        "Weight of REBAR's control variate: one, for the encoder's gradient; or one for each "
        "kernel and bias, the decoder's too.",
        choices=(names.SHARED, names.VARIABLES),
        group="objective",
        former=names.SHARED,
    )
    rebar_baseline: str = option(
        names.NONE,
        "Baseline of REBAR: none, or a network of the image, learned as its eta is.",
        choices=(names.NONE, names.LEARNED),
        group="objective",
        former=names.NONE,
    )
    initial_variance: float = option(
        1.0,
        "Variance of the networks' first kernels, times the number of their inputs.",
        above=0,
        group="model",
        former=1.0,
    )
    adam_b2: float = option(
        0.999,
        "Decay of Adam's mean square of gradients, below 1.",
        minimum=0,
        group="optimizer",
        former=0.999,
    )
    baseline_learning_rate: float = option(
        0.0,
        "Learning rate of NVIL's and MuProp's baselines, at its highest; 0: the model's.",
        minimum=0,
        group="optimizer",
        former=0.0,
    )

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        super().__post_init__()
        if self.adam_b2 >= 1:
            raise ValueError(
                f"--adam_b2={self.adam_b2:g} must be below 1, or Adam's mean square stays what it "
                "is at first; 0.999 is usual"
            )
