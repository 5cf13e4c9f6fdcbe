"""The configuration of `dvaepp` and its checks."""

from dataclasses import dataclass
from typing import ClassVar

from dvae import data
from dvae.models import dvaepp, multiscale
from dvae.models.dvaepp_latents import BERNOULLI, BOLTZMANN, GENERAL, NORMAL, RBM, RBM_ROLFE
from experiments.boltzmann import graphs
from experiments.boltzmann.config import USUAL, BoltzmannConfig, check_sampler, check_sides, rules
from experiments.boltzmann.names import EXPONENTIAL, OVERLAPPING, PCD
from experiments.common import flags, pixels, schedules
from experiments.common import names as run_names
from experiments.common.config import LikelihoodConfig, RunConfig, dataset_option, dataset_word
from experiments.common.flag_rules import POSITIVE, VALIDATED, Condition, Rules, one_of
from experiments.common.flags import changed, option

GLOBAL_LATENTS = (RBM, RBM_ROLFE, GENERAL, BERNOULLI, NORMAL)
LOCAL_LATENTS = (NORMAL, BERNOULLI)
UNCONDITIONAL, CONDITIONAL = "unconditional", "conditional"
BINARY_DATASETS = ("mnist_static", "mnist_dynamic", "omniglot", "caltech101_silhouettes", "digits")
LEVELS = tuple(name for name in data.NAMES if name not in BINARY_DATASETS)
COARSEST = 4  # the smallest image that a conditional decoder begins with
_OF_LEVELS = Condition(
    lambda name: name not in BINARY_DATASETS, f"={', '.join(LEVELS)} or own images"
)
_LOCAL = {"local_groups": POSITIVE}
_SMOOTHED = [
    {"global_latents": one_of(RBM, GENERAL, BERNOULLI)},
    {**_LOCAL, "local_latents": one_of(BERNOULLI)},
]
_WITH_BETA = [*_SMOOTHED, {"global_latents": one_of(RBM_ROLFE)}]


@dataclass(frozen=True)
class Config(graphs.GraphConfig, LikelihoodConfig):
    """Everything that determines a run; the numbers of variables default to the paper's."""

    program = "dvaepp"

    dataset: str = dataset_option(
        "mnist_static", "Binary images, or levels in gray or color; sides multiples of 4."
    )
    binarization: str = option(
        pixels.AS_STORED,
        "Pixels: as the set has them, of own images levels; levels sampled each time an image is "
        "seen, or once; or levels cut at 127.",
        choices=pixels.BINARIZATIONS,
        group="data",
        former=pixels.AS_STORED,
    )
    global_latents: str = option(
        RBM,
        "Global variables: bits under a restricted Boltzmann machine, with overlapping smoothing "
        "or with Rolfe's spikes and gradient; under a machine on any graph; independent bits; or "
        "normal variables.",
        choices=GLOBAL_LATENTS,
        group="model",
    )
    local_latents: str = option(
        NORMAL, "Local variables: normal, or smoothed bits.", choices=LOCAL_LATENTS, group="model"
    )
    num_groups: int = changed(BoltzmannConfig, "num_groups", 2)  # of global bits
    num_latents: int = changed(BoltzmannConfig, "num_latents", 8)
    local_groups: int = option(16, "Groups of local variables; 0: none.", minimum=0, group="model")
    local_size: int = option(32, "Channels of a local group.", minimum=1, group="model")
    smoothing: str = option(
        EXPONENTIAL,
        "Smoothing of all bits but Rolfe's, which have spikes.",
        choices=OVERLAPPING,
        group="objective",
    )
    beta: float = option(
        10.0, "First inverse temperature of all smoothings.", above=0, group="objective"
    )
    beta_final: float = option(
        0.0,
        "Last inverse temperature of all smoothings; 0: the first.",
        minimum=0,
        group="objective",
        former=0.0,
    )
    beta_steps: int = option(
        0,
        "Steps over which beta moves linearly from first to last; 0: the whole run.",
        minimum=0,
        group="objective",
        former=0,
    )
    decoder: str = option(
        UNCONDITIONAL,
        "Decoder: independent pixels, or pixels scale by scale given the coarser ones.",
        choices=(UNCONDITIONAL, CONDITIONAL),
        group="model",
    )
    num_scales: int = option(
        0,
        "Scales of the conditional decoder; 0: as many as end at 4x4 or 7x7.",
        minimum=0,
        group="model",
    )
    num_mixtures: int = option(
        10, "Logistics in the law of a pixel of levels.", minimum=1, group="model"
    )
    features: int = option(
        32,
        "Feature maps at full size; twice as many at half, four times at a quarter.",
        minimum=1,
        group="model",
    )
    num_blocks: int = option(
        1, "Residual blocks at each size of encoder and decoder.", minimum=0, group="model"
    )
    hidden_units: int = option(
        200, "Units in the layers of the global variables' networks.", minimum=1, group="model"
    )
    remat: str = option(
        "on",
        "Recomputation of a local group's layers in the backward pass: less memory, no more time.",
        choices=("off", "on"),
        group="model",
    )
    kl_warmup_steps: int = option(
        0, "Steps over which the KL's weight rises from 0 to 1.", minimum=0, group="objective"
    )
    kl_balancing: str = option(
        "on",
        "Weights of the groups' KLs in proportion to KL times size, in the warm-up.",
        choices=("off", "on"),
        group="objective",
    )
    learning_rate: float = option(
        1e-3, "Learning rate of Adam, at its highest.", above=0, group="optimizer"
    )
    schedule: str = option(
        schedules.LINEAR,
        "Schedule of the learning rate: it falls linearly to zero, or stays.",
        choices=(schedules.LINEAR, schedules.CONSTANT),
        group="optimizer",
    )
    clip_norm: float = option(
        200.0,
        "Norm that gradients, nats an image, are cut to; 0: never.",
        minimum=0,
        group="optimizer",
    )
    eval_samples: int = changed(LikelihoodConfig, "eval_samples", 20)
    batch_size: int = changed(RunConfig, "batch_size", 100)
    num_steps: int = changed(RunConfig, "num_steps", 500_000)
    steps_per_call: int = changed(RunConfig, "steps_per_call", 10)
    log_interval: int = changed(RunConfig, "log_interval", 500)

    READ_WITH: ClassVar[Rules] = {
        **rules({"global_latents": one_of(*BOLTZMANN)}),
        "graph": [{"global_latents": one_of(GENERAL)}],
        "smoothing": _SMOOTHED,
        "beta": _WITH_BETA,
        "beta_final": _WITH_BETA,
        "beta_steps": [{**chosen, "beta_final": POSITIVE} for chosen in _WITH_BETA],
        "local_size": [_LOCAL],
        "local_latents": [_LOCAL],
        "remat": [_LOCAL],
        "num_scales": [{"decoder": one_of(CONDITIONAL)}],
        "num_mixtures": [{"dataset": _OF_LEVELS, "binarization": one_of(pixels.AS_STORED)}],
        "kl_balancing": [{**_LOCAL, "kl_warmup_steps": POSITIVE}],
        "eval_samples": VALIDATED,
        "num_eval_images": VALIDATED,
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.global_latents in BOLTZMANN:
            flags.settle(self, sampler=PCD)
            check_sampler(self)
        elif self.sampler:
            raise ValueError(
                f"--sampler={self.sampler} goes with --global_latents=rbm, rbm_rolfe or boltzmann, "
                f"got --global_latents={self.global_latents}"
            )
        if self.global_latents == GENERAL:
            graphs.settle(self)
        elif self.graph:
            raise ValueError(
                f"--graph={self.graph} goes with --global_latents=boltzmann, got "
                f"--global_latents={self.global_latents}"
            )
        elif self.global_latents in BOLTZMANN:
            check_sides(self)
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

    @property
    def machine_graph(self) -> str:
        """The graph of a general machine; empty of an RBM."""
        return self.graph if self.global_latents == GENERAL else ""

    @property
    def colored(self) -> bool:
        """Whether pixels are levels 0..255 rather than bits."""
        return self.dataset not in BINARY_DATASETS and self.binarization == pixels.AS_STORED

    def model(self, image_shape: tuple[int, ...]) -> dvaepp.DVAEPP:
        """Returns the networks for images [H, W, C].

        Raises:
          ValueError: the sizes do not fit the images.
        """
        height, width, channels = image_shape
        if height % dvaepp.LOCAL_DOWNSAMPLING or width % dvaepp.LOCAL_DOWNSAMPLING:
            raise ValueError(
                f"images of --dataset={self.dataset} have {height}x{width} pixels; sides must be "
                f"multiples of {dvaepp.LOCAL_DOWNSAMPLING} (local variables live at a quarter of "
                "the size): resize them by --image_size"
            )
        parameters = lambda kind: 2 if kind == NORMAL else 1
        return dvaepp.DVAEPP(
            dvaepp.DVAEPPConfig(
                decoder=multiscale.MultiscaleConfig(
                    image_size=height if height == width else (height, width),
                    channels=channels,
                    num_mixtures=self.num_mixtures if self.colored else 0,
                    num_scales=self._scales(height, width),
                    features=self.features,
                    num_blocks=self.num_blocks,
                ),
                global_sizes=(self.num_latents,) * self.num_groups,
                global_parameters=parameters(self.global_latents),
                local_groups=self.local_groups,
                local_size=self.local_size,
                local_parameters=parameters(self.local_latents),
                hidden=(self.hidden_units,),
                remat=self.remat == "on",
            )
        )

    def _scales(self, height: int, width: int) -> int:
        if self.decoder == UNCONDITIONAL:
            return 1
        both = height | width
        most = (both & -both).bit_length()  # halvings that leave whole pixels
        if self.num_scales > most:
            raise ValueError(
                f"--num_scales={self.num_scales} must be at most {most}: images of "
                f"--dataset={self.dataset} have {height}x{width} pixels, halved from scale to scale"
            )
        if self.num_scales:
            return self.num_scales
        scales, size = 1, min(height, width)
        while scales < most and size // 2 >= COARSEST:
            size //= 2
            scales += 1
        if scales == 1:
            raise ValueError(
                f"--decoder=conditional: an image of {height}x{width} pixels has no coarser "
                f"scale of {COARSEST} pixels or more; use --decoder=unconditional, or give "
                "--num_scales"
            )
        return scales

    def tied_to_length(self) -> str | None:
        """Returns the setting that makes training depend on the number of steps."""
        if self.schedule != schedules.CONSTANT:
            return f"the learning rate falls over num_steps (--schedule={self.schedule})"
        bits = self.local_groups > 0 and self.local_latents == BERNOULLI
        smoothed = bits or self.global_latents != NORMAL
        if smoothed and self.beta_final not in (0, self.beta) and not self.beta_steps:
            return "beta moves over num_steps (--beta_steps=0)"
        return None

    def default_workdir(self) -> str:
        """Returns a name that no other configuration has."""
        told = ("dataset", "global_latents", "local_latents")
        words = [dataset_word(self.dataset), self.global_latents, self.local_latents]
        return run_names.default_workdir("dvaepp", self, words, told=told, usual=USUAL)
