"""Settings that every training binary has."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from dvae import data
from dvae.data import Dataset
from dvae.train import loop
from experiments.common import flags
from experiments.common.flags import MAX_INT, option

REFUSE, USE = "refuse", "use"
DEVICE, HOST, FILES = "device", "host", "files"


def dataset_option(default: str, help: str) -> Any:
    """Declares the flag of the data set: a named one, or own images."""
    return option(default, help, choices=data.NAMES, group="data", source=True)


def dataset_word(dataset: str) -> str:
    """Returns a data set's name as a part of a folder's: own images with a hash of their path."""
    if dataset in data.NAMES:
        return dataset
    stem = re.sub(r"[^\w.+]+", "_", dataset.rstrip("/").rpartition("/")[2]).strip("_")[:40]
    return f"{stem}-{hashlib.sha256(dataset.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _naming_flags(*names: str) -> Iterator[None]:
    """Writes the library's arguments in a ValueError as the flags that they are."""
    try:
        yield
    except ValueError as error:
        pattern = rf"(?<![-\w/.])({'|'.join(names)})\b"
        raise ValueError(re.sub(pattern, r"--\1", str(error))) from error


@dataclass(frozen=True)
class RunConfig:
    """Settings of every experiment; a subclass adds its own and changes defaults."""

    program: ClassVar[str]  # the module's name, by which a run's folder says whose it is

    data_dir: str = option(
        "",
        "Folder of prepared TFDS data sets and .mat files. Empty: $TFDS_DATA_DIR, else "
        "~/tensorflow_datasets.",
        identity=False,
        path=True,
        group="data",
    )
    image_size: int = option(
        0,
        "Side in pixels that the middle square of every image is resized to; 0: images stay as "
        "they are.",
        minimum=0,
        group="data",
        former=0,
    )
    test_share: float = option(
        0.0,
        "Share of own images set apart for the test, of those without a test split.",
        minimum=0,
        group="data",
        former=0.0,
    )
    data_on: str = option(
        DEVICE,
        "Place of the training images: the devices' memory, the host's, from which each step's "
        "batch is fetched ahead, or the files, where own images are encoded or mapped.",
        choices=(DEVICE, HOST, FILES),
        identity=False,
        group="data",
    )
    workdir: str = option(
        "",
        "Folder of the results. Empty: runs/NAME in the current one, where NAME says which "
        "run it is.",
        identity=False,
        path=True,
    )
    nonempty_workdir: str = option(
        REFUSE,
        "A workdir that holds other files, and no run: refuse it, or use it.",
        choices=(REFUSE, USE),
        identity=False,
    )
    batch_size: int = option(
        64, "Images in a step, over all devices.", minimum=1, group="optimizer"
    )
    num_steps: int = option(100_000, "Optimizer steps.", minimum=1, group="optimizer")
    steps_per_call: int = option(1, "Steps in one compiled call.", minimum=1)
    seed: int = option(0, "First seed.", minimum=0, maximum=flags.MAX_SEED)
    num_seeds: int = option(1, "Seeds trained together by vmap: seed, seed + 1, ...", minimum=1)
    log_interval: int = option(100, "Steps between records of the training.", minimum=1)
    eval_interval: int = option(5_000, "Steps between validations; 0: none.", minimum=0)
    num_eval_images: int = option(
        1_000, "Validation images used while training, evenly spaced.", minimum=2
    )
    num_test_images: int = option(
        0, "Images of each set in the final evaluation, evenly spaced; 0: all.", minimum=0
    )
    eval_batch_size: int = option(100, "Images in a step of evaluations.", minimum=1)
    checkpoint_interval: int = option(
        5_000, "Steps between checkpoints; 0: one at the end.", minimum=0
    )
    time_limit: float = option(
        0.0,
        "Minutes from the program's start until its end, evaluation included: training stops in "
        "time, and the same command continues it; 0: no limit.",
        minimum=0,
        identity=False,
    )
    compilation_cache: str = option(
        "",
        "Folder of compiled programs, which later runs read; empty: that of "
        "$JAX_COMPILATION_CACHE_DIR, or none.",
        identity=False,
        path=True,
    )
    dry_run: bool = option(
        False,
        "Report on settings, sizes, memory and expected time, without training; nothing is "
        "written.",
        identity=False,
    )
    mesh: int = option(
        0,
        "Devices that share batches, chains, importance samples' images and the training "
        "set; 0: all of all processes.",
        minimum=0,
        identity=False,
        group="devices",
    )
    coordinator: str = option(
        "",
        "HOST:PORT of process 0 of a run of several processes; auto: all about them from "
        "the environment (SLURM, Cloud TPU, ...); empty: a single process.",
        identity=False,
        group="devices",
    )
    num_processes: int = option(
        1, "Processes of the run, each started by hand.", minimum=1, identity=False, group="devices"
    )
    process_id: int = option(
        0, "Number of this process among them, from 0.", minimum=0, identity=False, group="devices"
    )

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        flags.check_fields(self)
        if self.seed + self.num_seeds - 1 > flags.MAX_SEED:
            raise ValueError(
                f"--seed={self.seed} and --num_seeds={self.num_seeds}: the last seed must be at "
                f"most {flags.MAX_SEED}, which is as far as they differ"
            )
        if self.num_test_images == 1:
            raise ValueError("--num_test_images=1 has no standard error; use 0 (all) or at least 2")
        if self.test_share >= 1:
            raise ValueError(
                f"--test_share={self.test_share:g} must be below 1, or nothing is left to train on"
            )
        if self.data_on != DEVICE and self.coordinator:
            raise ValueError(
                f"--data_on={self.data_on} is of one process, got --coordinator={self.coordinator};"
                " use --data_on=device, where the devices share the images"
            )
        if self.coordinator in ("", "auto") and (self.num_processes, self.process_id) != (1, 0):
            raise ValueError(
                f"--num_processes={self.num_processes} and --process_id={self.process_id} go with "
                f"--coordinator=HOST:PORT, got --coordinator={self.coordinator}"
            )

    def load(
        self,
        dataset: str,
        keep: data.KeepRows,
        *,
        grey: bool = False,
        binarization: data.Binarization | None = None,
    ) -> data.Dataset:
        """Loads a data set as the flags say.

        Args:
          dataset: its name or place.
          keep: which training images, of how many there are.
          grey: whether to load levels 0..255 whatever the set's pixels are; see `data.load_grey`.
          binarization: unless they are grey; see `data.load`.

        Raises:
          ValueError, DataUnavailableError: see `data.load`.
        """
        of_bits = functools.partial(data.load, binarization=binarization)
        read = data.load_grey if grey else of_bits
        with _naming_flags("test_share"):
            return read(
                dataset,
                self.data_dir or None,
                keep=keep,
                image_size=self.image_size,
                test_share=self.test_share,
                lazy=self.data_on == FILES,
            )

    def loop(self) -> loop.LoopConfig:
        """Returns the lengths of the run."""
        names = [field.name for field in fields(loop.LoopConfig)]
        with _naming_flags(*names):
            return loop.LoopConfig(**{name: getattr(self, name) for name in names})

    def evaluation_work(self, images: Dataset) -> float:
        """Returns the work of the final evaluation, in validations.

        Args:
          images: the data set.

        Returns:
          The ratio of images and samples. What takes as long for any of them, which is log Z of a
          Boltzmann prior, is not in it: see `evaluation_rounds`.
        """
        validated = min(self.num_eval_images, len(images.validation))
        return self._final_images(images) / max(1, validated)

    def evaluation_rounds(self) -> int:
        """Returns how many sets the final evaluation takes, one after the other."""
        return 1

    def _final_images(self, images: Dataset) -> int:
        """Returns how many images the final evaluation takes."""
        return min(self.num_test_images or MAX_INT, len(images.test))

    def remarks(self) -> list[str]:
        """Returns what a user should know of the settings, a line each."""
        if (steps := getattr(self, "kl_warmup_steps", 0)) <= self.num_steps:
            return []
        return [
            f"--kl_warmup_steps={steps} exceeds --num_steps={self.num_steps}: the KL never has its "
            "full weight"
        ]

    def tied_to_length(self) -> str | None:
        """Returns what makes training depend on `num_steps`; None: the run can be prolonged."""
        raise NotImplementedError

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        raise NotImplementedError


@dataclass(frozen=True)
class LikelihoodConfig(RunConfig):
    """Settings of an experiment that estimates log-likelihoods by importance samples."""

    eval_samples: int = option(100, "Importance samples of an image, in validations.", minimum=1)
    test_samples: int = option(
        4_000, "Importance samples of an image, in the final evaluation.", minimum=1
    )
    num_validation_images: int = option(
        0,
        "Validation images of the final evaluation, evenly spaced; 0: as many as "
        "num_test_images says.",
        minimum=0,
    )

    def evaluation_work(self, images: Dataset) -> float:
        """Returns the work of the final evaluation, in validations; see `RunConfig`."""
        return super().evaluation_work(images) * self.test_samples / self.eval_samples

    def evaluation_rounds(self) -> int:
        """Returns how many sets the final evaluation takes: validation and test."""
        return 2

    def _final_images(self, images: Dataset) -> int:
        """Returns how many images the final evaluation takes, those of validation included."""
        held_out = self.num_validation_images or self.num_test_images or MAX_INT
        return super()._final_images(images) + min(held_out, len(images.validation))

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        super().__post_init__()
        if self.num_validation_images == 1:
            raise ValueError(
                "--num_validation_images=1 has no standard error; use 0 (all) or at least 2"
            )
