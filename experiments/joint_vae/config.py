"""The configuration of `joint_vae`, its checks and its presets."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvae.data import Dataset
from dvae.models import joint
from experiments.common import names as run_names
from experiments.common.config import FILES, HOST, RunConfig, dataset_option, dataset_word
from experiments.common.flag_rules import NOT_EMPTY, POSITIVE, TRUE, Rules, one_of
from experiments.common.flags import changed, option

CAPACITY, ELBO, BETA = OBJECTIVES = ("capacity", "elbo", "beta")
_CAPACITY = {"objective": one_of(CAPACITY)}


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything that determines a run; the defaults are those of the paper's text for MNIST."""

    program = "joint_vae"

    dataset: str = dataset_option("mnist", "Images, read in their gray levels or colors.")
    image_size: int = option(
        32,
        f"Side in pixels that the middle square of images is resized to, a multiple of "
        f"{joint.DOWNSAMPLING}; 0: images stay as they are.",
        minimum=0,
        group="data",
    )
    validation: bool = option(
        True,
        "Validation images held out; without them training takes all and nothing is validated.",
        group="data",
        former=True,
    )
    continuous: int = option(10, "Continuous latent variables, normal.", minimum=0, group="model")
    discrete: str = option(
        "10",
        "Numbers of classes of the discrete latent variables, such as 10 or 10,3; empty: none.",
        group="model",
    )
    objective: str = option(
        CAPACITY,
        "Objective: both kinds' KL held at a growing capacity; the ELBO; or the ELBO with "
        "kl_weight.",
        choices=OBJECTIVES,
        group="objective",
    )
    gamma: float = option(
        30.0, "Weight of a KL's distance to its capacity.", minimum=0, group="objective"
    )
    capacity_continuous: float = option(
        5.0, "Final capacity of the continuous variables, nats.", minimum=0, group="objective"
    )
    capacity_discrete: float = option(
        5.0,
        "Final capacity of the discrete variables, nats, before it is cut at the largest KL "
        "they can have.",
        minimum=0,
        group="objective",
    )
    capacity_steps: int = option(
        25_000, "Steps over which capacities rise.", minimum=1, group="objective"
    )
    kl_weight: float = option(4.0, "Weight of the KL.", minimum=0, group="objective")
    temperature: float = option(
        0.67, "Temperature of the Gumbel-Softmax.", above=0, group="objective"
    )
    features: int = option(
        32,
        "Feature maps of the outer convolutions; inner ones have twice as many.",
        minimum=1,
        group="model",
    )
    decoder_features: int = option(
        0,
        "Feature maps behind the decoder's first convolution; 0: twice as many as features.",
        minimum=0,
        group="model",
        former=0,
    )
    hidden_units: int = option(256, "Units of the dense layers.", minimum=1, group="model")
    learning_rate: float = option(5e-4, "Learning rate of Adam.", above=0, group="optimizer")
    num_steps: int = changed(RunConfig, "num_steps", 78_100)  # 100 epochs of 50,000 images
    steps_per_call: int = changed(RunConfig, "steps_per_call", 10)
    log_interval: int = changed(RunConfig, "log_interval", 500)
    num_eval_images: int = changed(RunConfig, "num_eval_images", 2_000)

    READ_WITH: ClassVar[Rules] = {
        "gamma": [_CAPACITY],
        "capacity_steps": [_CAPACITY],
        "capacity_continuous": [{**_CAPACITY, "continuous": POSITIVE}],
        "capacity_discrete": [{**_CAPACITY, "discrete": NOT_EMPTY}],
        "kl_weight": [{"objective": one_of(BETA)}],
        "temperature": [{"discrete": NOT_EMPTY}],
        "eval_interval": [{"validation": TRUE}],
        "num_eval_images": [{"validation": TRUE, "eval_interval": POSITIVE}],
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.image_size % joint.DOWNSAMPLING:
            raise ValueError(
                f"--image_size={self.image_size} must be a multiple of {joint.DOWNSAMPLING} (three "
                "convolutions of stride 2)"
            )
        if not self.validation:
            object.__setattr__(self, "eval_interval", 0)
            if self.data_on == FILES:
                raise ValueError(
                    f"--validation=false joins images in memory, got --data_on={FILES}; use "
                    f"--data_on={HOST}"
                )
        if any(size < 2 for size in self.discrete_sizes):
            raise ValueError(
                f"--discrete={self.discrete} must give every variable at least 2 classes"
            )
        if not self.continuous and not self.discrete:
            raise ValueError(
                "--continuous=0 and --discrete= leave no latent variable; give one of either"
            )

    @property
    def discrete_sizes(self) -> tuple[int, ...]:
        """Numbers of classes; ValueError for what is no list of numbers."""
        words = [word.strip() for word in self.discrete.split(",")] if self.discrete else []
        if not all(word.isdecimal() for word in words):
            raise ValueError(
                f"--discrete={self.discrete} must list numbers of classes, such as 10 or 10,3"
            )
        if any(len(word.lstrip("0")) > 9 for word in words):
            raise ValueError(f"--discrete={self.discrete} must list fewer than 10^9 classes each")
        return tuple(int(word) for word in words)

    def model_config(self, image_shape: tuple[int, ...]) -> joint.JointConfig:
        """Returns the sizes of the network for images [H, W, C]."""
        height, width, channels = image_shape
        return joint.JointConfig(
            image_size=height if height == width else (height, width),
            channels=channels,
            num_continuous=self.continuous,
            discrete=self.discrete_sizes,
            features=self.features,
            hidden_units=self.hidden_units,
            decoder_features=self.decoder_features,
        )

    def _final_images(self, images: Dataset) -> int:
        """Returns how many images the final evaluation takes: codes of training images, too."""
        return super()._final_images(images) + images.num_train

    def remarks(self) -> list[str]:
        """Returns what a user should know of the settings, a line each."""
        found = super().remarks()
        if self.objective == CAPACITY and self.capacity_steps > self.num_steps:
            found.append(
                f"--capacity_steps={self.capacity_steps} exceeds --num_steps={self.num_steps}: "
                "capacities never reach their final values"
            )
        return found

    def tied_to_length(self) -> str | None:
        """Returns None: rate and capacities are those of any length."""
        return None

    def default_workdir(self) -> str:
        """Returns a name that no other configuration has."""
        words = [dataset_word(self.dataset), self.objective]
        return run_names.default_workdir("joint_vae", self, words, told=("dataset", "objective"))


PRESETS: dict[str, dict[str, Any]] = {
    "mnist": dict(),
    # As the authors' program does it: its decoder, and 100 epochs of all 60,000 images.
    "mnist_published": dict(decoder_features=32, validation=False, num_steps=93_700),
    "fashion_mnist": dict(dataset="fashion_mnist"),
    # Smaller images and a faster rise, for the 1,297 embedded digits: a minute on two cores. Codes
    # trained with the default gamma of 30, in the settings tried, named 8 to 28 % of the digits.
    "demo": dict(
        dataset="digits",
        image_size=16,
        continuous=4,
        features=16,
        hidden_units=128,
        gamma=2.0,
        capacity_continuous=3.0,
        capacity_discrete=10.0,
        capacity_steps=4_000,
        learning_rate=3e-3,
        num_steps=4_000,
        log_interval=200,
        eval_interval=1_000,
        num_eval_images=250,
        checkpoint_interval=2_000,
    ),
    "smoke": dict(
        dataset="digits",
        image_size=8,
        continuous=2,
        discrete="3",
        features=2,
        hidden_units=4,
        batch_size=8,
        num_steps=8,
        steps_per_call=2,
        capacity_steps=4,
        log_interval=4,
        eval_interval=4,
        num_eval_images=16,
        num_test_images=16,
        eval_batch_size=8,
        checkpoint_interval=4,
    ),
}
