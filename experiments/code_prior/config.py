"""The configuration of `code_prior`, and what it takes over from the run whose codes they are."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp

from dvae.data import Dataset
from dvae.models import code_prior
from dvae.train import checkpoint
from experiments.cifar_vq import config as cifar_vq
from experiments.common import names as run_names
from experiments.common import schedules
from experiments.common.config import RunConfig
from experiments.common.flag_rules import VALIDATED, Rules, one_of
from experiments.common.flags import changed, option, unflagged

# Seconds of an image in the final evaluation, in those of a validation, which runs neither decoder
# nor head. On a CPU, by the preset small: in whole runs 6 under gated priors of 4 layers of 32
# features; computation alone 8 there, 5 at 6 layers of 64, 2 at 6 of 128; 1.3 to 1.5 under
# transformers. Too much is the safe side: training ends early and goes on, where an evaluation
# that is cut off leaves no result.
_FINAL_WORK = {code_prior.GATED: 6, code_prior.TRANSFORMER: 2}
_IDENTITY = "model_sha256"  # the field, in a config.json


@dataclass(frozen=True)
class Config(RunConfig):
    """Everything that determines a run; what is no flag comes from the run whose codes they are."""

    program = "code_prior"

    # Of the run whose codes they are.
    image_size: int = unflagged(RunConfig, "image_size")
    test_share: float = unflagged(RunConfig, "test_share")
    data_on: str = unflagged(RunConfig, "data_on")
    dataset: str = option("", "Data set of that run.", flag=False)
    run_dir: str = option("", "Folder of that run.", identity=False, path=True, flag=False)
    model_sha256: str = option("", "Identity of its model's arrays.", flag=False)

    model_seed: str = option(
        "", "Seed of the model, of a run that trained several; empty: one.", group="model"
    )
    network: str = option(
        code_prior.GATED,
        "Network: gated masked convolutions, or a causal transformer.",
        choices=(code_prior.GATED, code_prior.TRANSFORMER),
        group="model",
    )
    features: int = option(64, "Features of every layer.", minimum=1, group="model")
    num_layers: int = option(6, "Layers.", minimum=1, group="model")
    num_heads: int = option(4, "Heads of attention, in a layer.", minimum=1, group="model")
    dropout: float = option(
        0.1, "Share of what a layer adds that training drops.", minimum=0, group="model"
    )
    dtype: str = option(
        "float32",
        "Type that products compute in.",
        choices=("float32", "bfloat16"),
        group="model",
    )
    learning_rate: float = option(
        1e-3, "Highest learning rate of Adam.", above=0, group="optimizer"
    )
    schedule: str = option(
        schedules.LINEAR,
        "Schedule of the learning rate: constant, or a fall to zero over num_steps.",
        choices=(schedules.CONSTANT, schedules.LINEAR),
        group="optimizer",
    )
    num_steps: int = changed(RunConfig, "num_steps", 5_000)
    eval_interval: int = changed(RunConfig, "eval_interval", 500)
    checkpoint_interval: int = changed(RunConfig, "checkpoint_interval", 500)

    READ_WITH: ClassVar[Rules] = {
        "num_heads": [{"network": one_of(code_prior.TRANSFORMER)}],
        "num_eval_images": VALIDATED,
    }

    def __post_init__(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        super().__post_init__()
        if self.dropout >= 1:
            raise ValueError(f"--dropout={self.dropout:g} must be below 1, or nothing is left")
        if self.network == code_prior.TRANSFORMER and self.features % self.num_heads:
            raise ValueError(
                f"--features={self.features} must be a multiple of --num_heads={self.num_heads}"
            )
        if self.model_seed and not self.model_seed.isdecimal():
            raise ValueError(f"--model_seed={self.model_seed} must be a number")

    @property
    def seed_of_model(self) -> int | None:
        """Seed of the model, if there is a choice."""
        return int(self.model_seed) if self.model_seed else None

    def images(self) -> cifar_vq.Config:
        """Returns a configuration that loads the data set as that run does."""
        names = ("dataset", "data_dir", "image_size", "test_share")
        return cifar_vq.Config(**{name: getattr(self, name) for name in names})

    def prior(self, grid: tuple[int, int], code_sizes: tuple[int, int]) -> Any:
        """Returns the sizes of the network, for a grid of n codes of C values at a position."""
        return code_prior.CodePriorConfig(
            grid,
            *code_sizes,
            network=self.network,
            features=self.features,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropout=float(self.dropout),
            dtype=jnp.dtype(self.dtype),
        )

    def evaluation_work(self, images: Dataset) -> float:
        """Returns the work of the final evaluation, in validations; see `RunConfig`."""
        return super().evaluation_work(images) * _FINAL_WORK[self.network]

    def _final_images(self, images: Dataset) -> int:
        """Returns how many images the final evaluation takes, those of validation included."""
        held_out = min(self.num_test_images or len(images.validation), len(images.validation))
        return super()._final_images(images) + held_out

    def tied_to_length(self) -> str | None:
        """Returns what makes training depend on `num_steps`."""
        if self.schedule == schedules.CONSTANT:
            return None
        return f"the learning rate falls over num_steps (--schedule={self.schedule})"

    def default_workdir(self) -> str:
        """Returns a name that no other configuration has, and none of another model.

        A folder of this model's prior by the name of earlier releases, without the model's hash,
        goes on.
        """
        run = re.sub(r"[^\w.+]+", "_", Path(self.run_dir).name).strip("_")
        told = ("dataset", "image_size", "test_share", _IDENTITY, "network")
        name = functools.partial(run_names.default_workdir, "code_prior", self, told=told)
        former = name([run, self.network])
        if self.model_sha256 and model_of(Path(former)) == self.model_sha256:
            return former
        return name([run, self.model_sha256[:8], self.network])


def model_of(workdir: Path) -> str | None:
    """Returns the identity of the model whose prior is learned in a folder; None: of none."""
    try:
        found: str | None = checkpoint.read_config(workdir / checkpoint.CONFIG_FILE).get(_IDENTITY)
    except (OSError, ValueError):
        return None
    return found
