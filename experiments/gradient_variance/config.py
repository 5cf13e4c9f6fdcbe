"""The configuration of `gradient_variance`, and the estimators that it compares."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from experiments.binary_vae import config as binary_config
from experiments.binary_vae import names
from experiments.common import flags, pixels, schedules
from experiments.common.config import RunConfig, dataset_option
from experiments.common.flag_rules import Condition, Rules, one_of, with_one_of
from experiments.common.flags import changed, option

STEPS_PER_CALL = 500
NUM_GROUPS, CHUNK_SIZE = 20, 10  # groups of draws for standard errors; draws in memory at once
MAX_LATENTS = names.MAX_EXACT_ROWS.bit_length() - 1  # the exact gradient is made image by image
ALL = "all"
MEASURED = tuple(n for n in names.ESTIMATORS if n != names.EXACT)
COUPLED, GS_SOFT, GS_HARD = "coupled", "gs_soft", "gs_hard"
CATEGORICAL = (
    names.REINFORCE,
    names.REINFORCE_LOO,
    COUPLED,
    *names.SURROGATE_GRADIENTS,
    GS_SOFT,
    GS_HARD,
)
_BITS = Condition(lambda num_classes: num_classes == 2, "=2")
TRAIN_CATEGORICAL = (COUPLED, names.REINFORCE_LOO, names.EXACT)
BOUND_SAMPLES = 2  # of the bound of several samples, whose pairs of states are enumerated
MAX_PAIRED_LATENTS = 12  # sixteen million pairs of states, of one image at a time


@dataclass(frozen=True)
class Config:
    """The model, where it is measured, and how often."""

    out: str = option("runs/gradient_variance", "Folder of the results.", path=True)
    estimators: str = option(
        ALL,
        f"Estimators, with commas: {ALL}, or some of {', '.join(MEASURED)}; of variables with more "
        f"than two classes {', '.join(CATEGORICAL)}.",
        group="objective",
    )
    dataset: str = dataset_option("digits", "Images with binary pixels.")
    image_size: int = changed(RunConfig, "image_size", 0)
    test_share: float = changed(RunConfig, "test_share", 0.0)
    binarization: str = option(
        names.AS_STORED,
        "Pixels: the set's own binary ones; gray levels sampled each time an image is seen, or "
        "once; or gray levels cut at 127.",
        choices=pixels.BINARIZATIONS,
        group="data",
    )
    data_dir: str = option(
        "",
        "Folder of prepared TFDS data sets and .mat files. Empty: $TFDS_DATA_DIR, else "
        "~/tensorflow_datasets.",
        path=True,
        group="data",
    )
    structure: str = option(
        names.NONLINEAR,
        "Networks: affine maps, or tanh layers.",
        choices=(names.LINEAR, names.NONLINEAR),
        group="model",
    )
    num_latents: int = option(
        12,
        f"Latent variables, whose states are enumerated: at most {MAX_LATENTS} bits.",
        minimum=1,
        group="model",
    )
    num_classes: int = option(
        2,
        "Classes of a latent variable: bits, or categorical variables of more classes.",
        minimum=2,
        group="model",
    )
    hidden_units: int = option(100, "Units of a tanh layer.", minimum=1, group="model")
    hidden_layers: int = option(1, "Tanh layers of encoder and decoder.", minimum=1, group="model")
    batch_size: int = option(
        24, "Images whose mean ELBO is differentiated.", minimum=1, group="data"
    )
    num_draws: int = option(
        2_000, "Estimates drawn of each gradient, a multiple of two hundred.", minimum=1
    )
    betas: str = option("4,8,16", "Inverse temperatures of the smoothings.", group="objective")
    temperatures: str = option(
        "0.2,0.5",
        "Temperatures of concrete and gumbel_rao; rebar and relax take the highest.",
        group="objective",
    )
    train_estimator: str = option(
        "",
        "Estimator that the training uses: disarm; of categorical variables coupled, "
        "reinforce_loo of two samples or exact. Empty: the first.",
        choices=("", *names.ESTIMATORS, COUPLED),
        group="optimizer",
    )
    learning_rate: float = option(
        1e-3, "Learning rate of Adam in the training, constant.", above=0, group="optimizer"
    )
    train_steps: int = option(
        5_000, "Steps of the training, a multiple of five hundred.", minimum=1, group="optimizer"
    )
    tune_steps: int = option(
        1_000,
        "Steps for baselines and control variates at the fixed model.",
        minimum=1,
        group="optimizer",
    )
    seed: int = option(0, "Seed of everything random.", minimum=0, maximum=flags.MAX_SEED)

    READ_WITH: ClassVar[Rules] = {
        "hidden_units": [{"structure": one_of(names.NONLINEAR)}],
        "hidden_layers": [{"structure": one_of(names.NONLINEAR)}],
        "betas": [{"num_classes": _BITS, "estimators": with_one_of(*names.SMOOTHINGS)}],
        "temperatures": [
            {
                "estimators": with_one_of(
                    names.CONCRETE, names.GUMBEL_RAO, *names.RELAXED_CONTROL, GS_SOFT, GS_HARD
                )
            }
        ],
        "tune_steps": [
            {
                "num_classes": _BITS,
                "estimators": with_one_of(*names.LEARNED_BASELINE, *names.LEARNED_CONTROL),
            }
        ],
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be measured."""
        flags.check_fields(self)
        flags.settle(self, train_estimator=COUPLED if self.categorical else names.DISARM)
        if self.num_latents > MAX_LATENTS:
            raise ValueError(
                f"--num_latents={self.num_latents} must be at most {MAX_LATENTS}: the "
                "exact gradient enumerates 2^num_latents states"
            )
        if self.categorical and self.num_classes**self.num_latents > names.MAX_EXACT_ROWS:
            raise ValueError(
                f"--num_latents={self.num_latents} of --num_classes={self.num_classes} have more "
                f"than {names.MAX_EXACT_ROWS:,} states, which the exact gradient enumerates; take "
                "fewer"
            )
        for name, unit in (("num_draws", NUM_GROUPS * CHUNK_SIZE), ("train_steps", STEPS_PER_CALL)):
            if getattr(self, name) % unit:
                raise ValueError(f"--{name}={getattr(self, name)} must be a multiple of {unit}")
        known = CATEGORICAL if self.categorical else MEASURED
        of_kind = f" with --num_classes={self.num_classes}"
        if unknown := [name for name in self.selection() if name not in known]:
            raise ValueError(
                f"--estimators={','.join(unknown)} must be {ALL} or some of {', '.join(known)}"
                f"{of_kind}"
            )
        trainers = TRAIN_CATEGORICAL if self.categorical else names.ESTIMATORS
        if self.train_estimator not in trainers:
            raise ValueError(
                f"--train_estimator={self.train_estimator} must be one of {', '.join(trainers)}"
                f"{of_kind}"
            )
        paired = [name for name in self.selection() if name in names.BOUND_OF_SAMPLES]
        if paired and self.num_latents > MAX_PAIRED_LATENTS:
            raise ValueError(
                f"--estimators={','.join(paired)}: the exact bound of {BOUND_SAMPLES} samples "
                f"enumerates all pairs of states, of at most --num_latents={MAX_PAIRED_LATENTS}, "
                f"got {self.num_latents}; leave them out, or take fewer bits"
            )
        self.numbers("betas")
        self.numbers("temperatures")
        try:
            self.experiment() if self.categorical else self.training()
        except ValueError as error:  # of `binary_vae`, whose flag has another name here
            raise ValueError(str(error).replace("--estimator", "--train_estimator")) from error

    @property
    def categorical(self) -> bool:
        """Whether the latent variables have more than two classes."""
        return self.num_classes > 2

    def selection(self) -> tuple[str, ...]:
        """Returns the names of the estimators; all are those that so many bits allow."""
        if self.estimators != ALL:
            return tuple(self.estimators.split(","))
        if self.categorical:
            return CATEGORICAL
        few = self.num_latents <= MAX_PAIRED_LATENTS
        return tuple(name for name in MEASURED if few or name not in names.BOUND_OF_SAMPLES)

    def numbers(self, name: str) -> list[float]:
        """Returns a list of positive numbers, in ascending order."""
        text = getattr(self, name)
        try:
            values = sorted({float(value) for value in text.split(",")})
        except ValueError:
            values = []
        if not values or not all(0 < value < float("inf") for value in values):
            raise ValueError(f"--{name}={text} must be positive numbers, such as 4,8")
        return values

    def training(self) -> binary_config.Config:
        """Returns the configuration of `binary_vae` that the training has."""
        return self.experiment(
            estimator=self.train_estimator,
            num_steps=self.train_steps,
            steps_per_call=STEPS_PER_CALL,
            schedule=schedules.CONSTANT,
        )

    def experiment(self, **settings: Any) -> binary_config.Config:
        """Returns the configuration of `binary_vae` of this model."""
        own = {field.name for field in dataclasses.fields(self)}
        theirs = {field.name for field in dataclasses.fields(binary_config.Config)}
        return binary_config.Config(
            **{**{name: getattr(self, name) for name in own & theirs}, **settings}
        )


class Case(NamedTuple):
    """An estimator at one setting."""

    label: str
    path: str  # of the figure: what differs only in beta or temperature shares it
    settings: dict[str, Any]  # the estimator, and what it takes besides
    evaluations: int  # of the decoder, an estimate and image
    tuned: bool = False  # its baseline or control variate is trained at the fixed model
    rescaled: bool = True  # nvil: as published; muprop never is

    @property
    def of_bound(self) -> bool:
        """Whether what it estimates is the gradient of the bound of BOUND_SAMPLES samples."""
        return self.settings["estimator"] in names.BOUND_OF_SAMPLES


def cases(config: Config) -> list[Case]:
    """Returns what is measured, in the order of the table."""
    t = config.numbers("temperatures")[::-1]  # like betas, from soft to sharp
    soft, loo, rao = {"temperature": t[0]}, names.REINFORCE_LOO, names.GUMBEL_RAO
    score = [
        Case("reinforce", "reinforce", {}, 1),
        *(Case(f"{loo}, K = {k}", f"{loo} (K = {k})", {"num_samples": k}, k) for k in (2, 5)),
        Case("nvil, tuned", "nvil", {}, 1, tuned=True),
        Case("nvil, tuned, not rescaled", "nvil (not rescaled)", {}, 1, tuned=True, rescaled=False),
        Case("muprop", "muprop", {}, 2),
        Case("muprop, tuned", "muprop (tuned)", {}, 2, tuned=True, rescaled=False),
        Case(f"rebar, η = 1, τ = {t[0]:g}", "rebar (fixed)", soft, 3),
        Case("rebar, tuned", "rebar (tuned)", soft, 3, tuned=True),
        Case("relax, tuned", "relax (tuned)", soft, 3, tuned=True),
        Case("disarm", "disarm", {}, 2),
        *(Case(f"arms, K = {k}", f"arms (K = {k})", {"num_samples": k}, k) for k in (2, 5)),
        *(
            Case(f"{name}, tuned, K = {k}", f"{name} (K = {k})", {"num_samples": k}, k, tuned=True)
            for name in (names.DOUBLE_CV, names.RODEO)
            for k in (2, 5)
        ),
        *(
            Case(f"{name}, K = {k}", f"{name} (K = {k})", {"num_samples": k}, evaluations)
            for k in (BOUND_SAMPLES,)
            for name, evaluations in ((names.VIMCO, k), (names.LOCAL_DISARM, 2 * k))
        ),
    ]
    hard = [Case(name, name, {}, 1) for name in (names.STRAIGHT_THROUGH, names.REINMAX)]
    hard += [
        Case(f"{rao}, τ = {v:g}, K = 10", rao, {"temperature": v, "num_samples": 10}, 1) for v in t
    ]
    if config.categorical:
        gumbel = [
            Case(f"{name}, τ = {v:g}", name, {"temperature": v}, 1)
            for name in (GS_SOFT, GS_HARD)
            for v in t
        ]
        return _selected(config, [*score[:3], Case(COUPLED, COUPLED, {}, 2), *hard, *gumbel])
    relaxed = []
    for name in names.RELAXED:
        symbol, values = ("τ", t) if name == names.CONCRETE else ("β", config.numbers("betas"))
        for bound in (names.JOINT, names.MARGINAL) if name in names.WITH_DENSITY else ("joint",):
            path = name if bound == names.JOINT else f"{name}, {bound}"
            for v in values:
                sharpness = {"temperature": v} if symbol == "τ" else {"beta": v, "beta_final": v}
                settings = {"bound": bound, **sharpness}
                relaxed.append(Case(f"{name}, {symbol} = {v:g}, {bound}", path, settings, 1))
    return _selected(config, [*score, *hard, *relaxed])


def _selected(config: Config, every: list[Case]) -> list[Case]:
    """Returns the cases that were asked for, their settings with the estimator's name."""
    named = [(case.label.split(",")[0], case) for case in every]
    if missing := set(config.selection()) - {name for name, _ in named}:  # it would just vanish
        raise ValueError(
            f"experiments/gradient_variance/config.py has no Case of {', '.join(sorted(missing))}; "
            "add one to cases"
        )
    return [
        case._replace(settings={"estimator": name, **case.settings})
        for name, case in named
        if name in config.selection()
    ]
