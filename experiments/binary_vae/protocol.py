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
    concrete_scale: str = option(
        names.NONE,
        "Factor of the posterior's logits in Concrete's sample, under the joint bound: none; or "
        "1 + t^2 / (t + 1) of the temperature t, with which samples tend to the mean as t grows.",
        choices=(names.NONE, names.MUPROP),
        group="objective",
        former=names.NONE,
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
    rebar_scale: str = option(
        names.NONE,
        "Factor of the posterior's logits in REBAR's relaxed bits: none; or 1 + t^2 / (t + 1) of "
        "the temperature t, with which they tend to the mean as t grows.",
        choices=(names.NONE, names.MUPROP),
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
    activation: str = option(
        names.TANH,
        "Function of hidden units: tanh, or x above 0 and 0.3 x below (leaky_relu).",
        choices=names.ACTIVATIONS,
        group="model",
        former=names.TANH,
    )
    disarm_pairs: int = option(
        1,
        "Antithetic pairs of samples that disarm averages over.",
        minimum=1,
        group="objective",
        former=1,
    )
    prior_learning_rate: float = option(
        0.0,
        "Learning rate of plain SGD for the first group's prior logits, constant; 0: that of Adam, "
        "like the rest.",
        minimum=0,
        group="optimizer",
        former=0.0,
    )
    num_training_images: int = option(
        0,
        "Training images whose ELBO is estimated at the last step, evenly spaced; 0: none.",
        minimum=0,
        former=0,
    )
    gradient_draws: int = option(
        0,
        "Gradients of one batch that every validation draws, for their variance; 0: none.",
        minimum=0,
        former=0,
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
        if self.gradient_draws == 1:
            raise ValueError(
                "--gradient_draws=1 has no variance; use 0 (none) or at least 2, such as 20"
            )
        if self.num_training_images == 1:
            raise ValueError(
                "--num_training_images=1 has no standard error; use 0 (none) or at least 2"
            )
        if self.num_training_images and self.coordinator:
            raise ValueError(
                f"--num_training_images={self.num_training_images} reads the images of one "
                f"process, got --coordinator={self.coordinator}; use --num_training_images=0"
            )
