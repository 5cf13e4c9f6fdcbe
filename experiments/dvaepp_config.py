"""The configuration of `dvaepp`, its checks and its presets."""

from dataclasses import dataclass
from typing import Any

import optax

from dvae.models import dvaepp, multiscale
from experiments import binary_names as names
from experiments.boltzmann_config import BoltzmannConfig, check_machine
from experiments.flags import changed, option
from experiments.run_config import RunConfig

NORMAL, BERNOULLI, RBM, RBM_ROLFE = "normal", "bernoulli", "rbm", "rbm_rolfe"
GLOBAL_LATENTS = (RBM, RBM_ROLFE, BERNOULLI, NORMAL)
LOCAL_LATENTS = (NORMAL, BERNOULLI)
BOLTZMANN = (RBM, RBM_ROLFE)
UNCONDITIONAL, CONDITIONAL = "unconditional", "conditional"
BINARY_DATASETS = ("mnist_static", "mnist_dynamic", "omniglot", "caltech101_silhouettes", "digits")
DATASETS = (*BINARY_DATASETS, "cifar10", "patches")
COARSEST = 4  # the smallest image that a conditional decoder begins with


@dataclass(frozen=True)
class Config(BoltzmannConfig):
    """Everything that determines a run; the numbers of variables default to the paper's."""

    program = "dvaepp"

    dataset: str = option("mnist_static", "Binary or color images.", choices=DATASETS)
    global_latents: str = option(
        RBM,
        "Bits under a Boltzmann machine, with overlapping smoothing or with Rolfe's spikes and "
        "gradient; independent bits; or normal variables.",
        choices=GLOBAL_LATENTS,
    )
    local_latents: str = option(NORMAL, "Normal variables or smoothed bits.", choices=LOCAL_LATENTS)
    num_groups: int = changed(BoltzmannConfig, "num_groups", 2)  # layers of q(z | x)
    num_latents: int = changed(BoltzmannConfig, "num_latents", 8)
    local_groups: int = option(16, "Groups of local variables; 0 none.", minimum=0)
    local_size: int = option(32, "Channels of a local group.", minimum=1)
    smoothing: str = option(
        names.EXPONENTIAL,
        "Of all bits but Rolfe's, which have spikes.",
        choices=names.OVERLAPPING,
    )
    beta: float = option(10.0, "Inverse temperature of all smoothings.", above=0)
    decoder: str = option(
        UNCONDITIONAL,
        "Independent pixels, or pixels scale by scale given the coarser ones.",
        choices=(UNCONDITIONAL, CONDITIONAL),
    )
    num_scales: int = option(
        0, "Scales of the conditional decoder; 0: as many as end at 4x4 or 7x7.", minimum=0
    )
    num_mixtures: int = option(
        10, "Logistics in the law of a color pixel (cifar10, patches).", minimum=1
    )
    features: int = option(
        32, "Maps at full size; twice as many at half, four times at a quarter.", minimum=1
    )
    num_blocks: int = option(1, "Residual blocks at each size of encoder and decoder.", minimum=0)
    hidden_units: int = option(200, "Of the global variables' networks.", minimum=1)
    remat: str = option(
        "on",
        "Recompute a local group's layers in the backward pass: less memory, no more time.",
        choices=("off", "on"),
    )
    kl_warmup_steps: int = option(0, "Steps over which the KL's weight rises to 1.", minimum=0)
    kl_balancing: str = option(
        "on",
        "In the warm-up, weight the groups' KLs in proportion to KL times size.",
        choices=("off", "on"),
    )
    learning_rate: float = option(1e-3, "Of Adam, at its highest.", above=0)
    schedule: str = option(
        names.LINEAR,
        "The learning rate falls linearly to zero, or stays.",
        choices=(names.LINEAR, names.CONSTANT),
    )
    clip_norm: float = option(
        200.0, "Gradients (nats an image) are cut to this norm; 0 never.", minimum=0
    )
    eval_samples: int = option(20, "Importance samples an image, in training.", minimum=1)
    test_samples: int = option(4_000, "Importance samples an image, at the end.", minimum=1)
    num_validation_images: int = option(
        0, "Of the final evaluation, evenly spaced; 0: as num_test_images says.", minimum=0
    )
    batch_size: int = changed(RunConfig, "batch_size", 100)
    num_steps: int = changed(RunConfig, "num_steps", 500_000)
    steps_per_call: int = changed(RunConfig, "steps_per_call", 10)
    log_interval: int = changed(RunConfig, "log_interval", 500)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.global_latents in BOLTZMANN:
            self.settle(sampler=names.PCD)
            check_machine(self)
        elif self.sampler:
            raise ValueError(
                f"--sampler={self.sampler} goes with --global_latents=rbm or rbm_rolfe, got "
                f"--global_latents={self.global_latents}"
            )
        if self.decoder == UNCONDITIONAL and self.num_scales > 1:
            raise ValueError(
                f"--num_scales={self.num_scales} goes with --decoder=conditional; the "
                "unconditional decoder has one"
            )
        if self.decoder == CONDITIONAL and self.num_scales == 1:
            raise ValueError(
                "--decoder=conditional conditions on coarser scales, and --num_scales=1 has none; "
                "use --decoder=unconditional, or at least 2 scales"
            )
        if self.local_latents == BERNOULLI and not self.local_groups:
            raise ValueError("--local_latents=bernoulli needs --local_groups of at least 1, got 0")
        if self.kl_warmup_steps > self.num_steps:
            raise ValueError(
                f"--kl_warmup_steps={self.kl_warmup_steps} exceeds --num_steps={self.num_steps}: "
                "the KL would never have its full weight; give a smaller --kl_warmup_steps"
            )
        if self.num_validation_images == 1:
            raise ValueError(
                "--num_validation_images=1 has no standard error; use 0 (all) or at least 2"
            )

    @property
    def colored(self) -> bool:
        """Whether pixels are levels 0..255 rather than bits."""
        return self.dataset not in BINARY_DATASETS

    def model(self, image_shape: tuple[int, ...]) -> dvaepp.DVAEPP:
        """Returns the networks for images [S, S, C].

        Raises:
          ValueError: the sizes do not fit the images.
        """
        size, width, channels = image_shape
        if size != width:
            raise ValueError(f"images must be square, got {size}x{width}")
        numbers = {NORMAL: 2, BERNOULLI: 1, RBM: 1, RBM_ROLFE: 1}
        return dvaepp.DVAEPP(
            dvaepp.DVAEPPConfig(
                decoder=multiscale.MultiscaleConfig(
                    image_size=size,
                    channels=channels,
                    num_mixtures=self.num_mixtures if self.colored else 0,
                    num_scales=self._scales(size),
                    features=self.features,
                    num_blocks=self.num_blocks,
                ),
                global_sizes=(self.num_latents,) * self.num_groups,
                global_parameters=numbers[self.global_latents],
                num_groups=self.local_groups,
                local_size=self.local_size,
                local_parameters=numbers[self.local_latents],
                hidden=(self.hidden_units,),
                remat=self.remat == "on",
            )
        )

    def _scales(self, size: int) -> int:
        if self.decoder == UNCONDITIONAL:
            return 1
        if self.num_scales:
            return self.num_scales
        scales = 1
        while size % 2 == 0 and size // 2 >= COARSEST:
            size //= 2
            scales += 1
        if scales == 1:
            raise ValueError(
                f"--decoder=conditional: an image of size {size} has no coarser scale of "
                f"{COARSEST} pixels or more; use --decoder=unconditional, or give --num_scales"
            )
        return scales

    def optimizer(self) -> optax.GradientTransformation:
        """Returns Adam under the schedule, on gradients of a bounded norm."""
        rate: Any = self.learning_rate
        if self.schedule == names.LINEAR:
            rate = optax.linear_schedule(self.learning_rate, 0.0, self.num_steps)
        adam = optax.adam(rate)
        if not self.clip_norm:
            return adam
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adam)

    def tied_to_length(self) -> str | None:
        """Returns the setting that makes training depend on the number of steps."""
        if self.schedule == names.CONSTANT:
            return None
        return f"the learning rate falls over num_steps (--schedule={self.schedule})"

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        return (
            f"runs/dvaepp-{self.dataset}-{self.global_latents}-{self.local_latents}-seed{self.seed}"
        )


# The rows of the paper's Table 3.
ROWS: dict[str, dict[str, Any]] = {
    "normal_normal": dict(global_latents=NORMAL, local_latents=NORMAL),
    "rolfe_normal": dict(global_latents=RBM_ROLFE, local_latents=NORMAL, beta=5.0),
    "rbm_normal": dict(global_latents=RBM, local_latents=NORMAL),
    "rbm_bernoulli": dict(global_latents=RBM, local_latents=BERNOULLI),
    "bernoulli_bernoulli": dict(global_latents=BERNOULLI, local_latents=BERNOULLI),
}
_BUDGETS: dict[str, dict[str, Any]] = {
    "table3": dict(kl_warmup_steps=150_000),
    # For a CPU: a quarter of the groups and of their channels, narrow networks.
    "table3_cpu": dict(
        local_groups=4,
        local_size=8,
        features=8,
        num_chains=100,
        num_sweeps=10,
        num_steps=24_000,
        kl_warmup_steps=7_200,
        eval_interval=2_000,
        checkpoint_interval=2_000,
        test_samples=100,
        num_validation_images=1_000,
    ),
}
PRESETS: dict[str, dict[str, Any]] = {
    f"{budget}_{row}": {**settings, **kind}
    for budget, settings in _BUDGETS.items()
    for row, kind in ROWS.items()
}
PRESETS |= {
    "cifar10": dict(
        dataset="cifar10", decoder=CONDITIONAL, num_latents=64, kl_warmup_steps=150_000
    ),
    "demo": dict(
        dataset="digits",
        local_groups=2,
        local_size=4,
        features=8,
        num_chains=100,
        num_sweeps=10,
        num_steps=3_000,
        kl_warmup_steps=900,
        eval_interval=500,
        num_eval_images=250,
        checkpoint_interval=500,
        test_samples=500,
    ),
    "smoke": dict(
        dataset="digits",
        local_groups=2,
        local_size=2,
        num_latents=2,
        features=1,
        num_blocks=0,
        hidden_units=4,
        num_chains=16,
        num_sweeps=2,
        ais_temperatures=50,
        ais_chains=64,
        batch_size=8,
        num_steps=8,
        steps_per_call=2,
        kl_warmup_steps=4,
        log_interval=4,
        eval_interval=4,
        eval_samples=3,
        num_eval_images=16,
        test_samples=5,
        num_test_images=16,
        eval_batch_size=8,
        checkpoint_interval=4,
    ),
}
