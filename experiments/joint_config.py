"""The configuration of `joint_vae`, its checks and its presets."""

from dataclasses import dataclass
from typing import Any

from dvae.models import joint
from experiments.flags import changed, option
from experiments.run_config import RunConfig

CAPACITY, ELBO, BETA = OBJECTIVES = ("capacity", "elbo", "beta")
DATASETS = (
    "mnist",
    "fashion_mnist",
    "omniglot",
    "digits",
    "mnist_static",
    "caltech101_silhouettes",
    "cifar10",
    "patches",
)
# Settings that one objective alone reads.
_OF_OBJECTIVE = {
    CAPACITY: ("gamma", "capacity_continuous", "capacity_discrete", "capacity_steps"),
    BETA: ("kl_weight",),
}


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything that determines a run; the defaults are those published for MNIST."""

    program = "joint_vae"

    dataset: str = option("mnist", "Images, read in their grey levels or colors.", choices=DATASETS)
    image_size: int = option(
        32, "Height and width that images are resized to, a multiple of 8.", minimum=8
    )
    continuous: int = option(10, "Continuous latent variables, normal.", minimum=0)
    discrete: str = option(
        "10", "Classes of each discrete latent variable, such as 10 or 10,3; empty: none."
    )
    objective: str = option(
        CAPACITY,
        "Both kinds' KL held at a growing capacity; the ELBO; or the ELBO with kl_weight.",
        choices=OBJECTIVES,
    )
    gamma: float = option(
        30.0, "Weight of a KL's distance to its capacity (objective=capacity).", minimum=0
    )
    capacity_continuous: float = option(
        5.0, "Final capacity of the continuous variables, nats (objective=capacity).", minimum=0
    )
    capacity_discrete: float = option(
        5.0,
        "Final capacity of the discrete variables, nats, before it is cut at the largest KL they "
        "can have (objective=capacity).",
        minimum=0,
    )
    capacity_steps: int = option(
        25_000, "Steps over which capacities rise (objective=capacity).", minimum=1
    )
    kl_weight: float = option(4.0, "Weight of the KL (objective=beta).", minimum=0)
    temperature: float = option(0.67, "Of the Gumbel-Softmax.", above=0)
    features: int = option(
        32, "Maps of the outer convolutions; inner ones have twice as many.", minimum=1
    )
    hidden_units: int = option(256, "Width of the dense layers.", minimum=1)
    learning_rate: float = option(5e-4, "Of Adam.", above=0)
    num_steps: int = changed(RunConfig, "num_steps", 78_100)  # 100 epochs of 50,000 images
    steps_per_call: int = changed(RunConfig, "steps_per_call", 10)
    log_interval: int = changed(RunConfig, "log_interval", 500)
    num_eval_images: int = changed(RunConfig, "num_eval_images", 2_000)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        try:
            self.model_config(channels=1)
        except ValueError as error:
            raise ValueError(
                f"--image_size={self.image_size} --continuous={self.continuous} "
                f"--discrete={self.discrete}: {error}"
            ) from error
        for objective, names in _OF_OBJECTIVE.items():
            for name in names:
                default = type(self).__dataclass_fields__[name].default
                if objective != self.objective and getattr(self, name) != default:
                    raise ValueError(
                        f"--{name}={getattr(self, name)} goes with --objective={objective}, got "
                        f"--objective={self.objective}"
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

    def model_config(self, channels: int) -> joint.JointConfig:
        """Returns the sizes of the network."""
        return joint.JointConfig(
            image_size=self.image_size,
            channels=channels,
            num_continuous=self.continuous,
            discrete=self.discrete_sizes,
            features=self.features,
            hidden_units=self.hidden_units,
        )

    def tied_to_length(self) -> str | None:
        """Returns None: rate and capacities are those of any length."""
        return None

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        return f"runs/joint_vae-{self.dataset}-{self.objective}-seed{self.seed}"


PRESETS: dict[str, dict[str, Any]] = {
    "mnist": dict(),
    "fashion_mnist": dict(dataset="fashion_mnist"),
    # Smaller images and a faster rise, for the 1,297 embedded digits: minutes on a CPU.
    "demo": dict(
        dataset="digits",
        image_size=16,
        features=16,
        hidden_units=128,
        learning_rate=1e-3,
        capacity_steps=4_000,
        num_steps=8_000,
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
