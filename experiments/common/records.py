"""What the records of every experiment share: names of numbers, curves, hardware, versions.

summary.json holds what was measured on a set of images under `validation` and `test`. What means
the same has the same name in every program; a unit is a suffix, and nats are those of an image, in
the mean:

    num_images               images of the set
    nll_nats                 -log p(x), by importance samples
    elbo_nats                the ELBO, one sample
    kl_nats                  log q(z|x) - log p(z) of that sample, a number each group of bits
    kl_global_nats           the same of all global variables
    kl_local_nats            the same, a number each group of local variables
    kl_continuous_nats       KL(q || p) of every continuous variable
    kl_discrete_nats         KL(q || p) of every discrete variable
    rate_nats                what the codes cost
    rate_bits_per_dim        likewise, in bits a sub-pixel
    distortion_nats          -log p(x | z): what the pixels cost
    bits_per_dim             of the bound, or of nll_nats: bits a sub-pixel
    factorial_bits_per_dim   of a model with a learned prior, under its factorial one
    factorial_rate_nats      likewise
    factorial_rate_bits_per_dim
    nll_bits_per_dim         of nll_nats, beside that of the ELBO
    mode_bits_per_dim        with the posterior's likeliest codes: no bound
    rmse                     root mean squared error of pixels in [0, 1]
    effective_samples        of the importance samples
    active_units             bits whose mean varies over images
    perplexity, dead_codes   of the usage of codes, a number each latent variable
    accuracy                 share of images whose code's class is theirs
    accuracy_of_each_variable

and with it, where there is one,

    NAME_standard_error                 over images
    NAME_mean_over_seeds                over seeds, as is the next
    NAME_standard_deviation_over_seeds

Several seeds give a list for each of the others. metrics.jsonl has the names of training:
`validation/nll`, without units.
"""

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dvae
from dvae.train import metrics

SUMMARY_FILE = "summary.json"
FILES = "files"  # of a summary: what was written beside it, after which it is complete
FINISHING = "finishing_seconds"  # of a summary: how long evaluation and all writing took
PRIOR_FILE = "prior.npz"
SETS = ("validation", "test")  # of images, and of a summary the parts with these names
STANDARD_ERROR = "_standard_error"
OVER_SEEDS = ("_mean_over_seeds", "_standard_deviation_over_seeds")
# What summaries of version 0.1 said.
_FORMER_NAMES = {
    "nll": "nll_nats",
    "elbo": "elbo_nats",
    "elbo_nats_per_image": "elbo_nats",
    "kl": "kl_nats",
    "kl_global": "kl_global_nats",
    "kl_local": "kl_local_nats",
    "rate_nats_per_image": "rate_nats",
    "distortion_nats_per_image": "distortion_nats",
    "rmse_of_pixels": "rmse",
    "code_perplexity": "perplexity",
}


def read_summary(workdir: Path) -> dict[str, Any]:
    """Reads the summary of a finished run, under today's names.

    Raises:
      OSError: there is none.
      ValueError: it is damaged; one line names it.
    """
    summary: dict[str, Any] = with_standard_names(read_object(workdir / SUMMARY_FILE))
    return summary


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a run.

    Raises:
      OSError: there is no such file.
      ValueError: it holds anything else; one line names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no JSON object, and so not of a run")
    return value


def is_unfinished(summary: Mapping[str, Any]) -> bool:
    """Tells whether a summary is of a run whose time was over before its last step."""
    return "steps" in summary and summary["steps"] < summary["num_steps"]


def is_whole(workdir: Path, summary: Mapping[str, Any]) -> bool:
    """Tells whether all was written that belongs beside a run's summary.

    It is not after a kill in the midst of writing, nor of runs from before `FILES` was kept.
    """
    return FILES in summary and all((workdir / name).exists() for name in summary[FILES])


def steps(summary: Mapping[str, Any]) -> str:
    """Writes the steps of a run: "5,000", or "1,200 of 5,000" of an unfinished one."""
    whole = f"{summary['num_steps']:,}"
    return f"{summary['steps']:,} of {whole}" if is_unfinished(summary) else whole


def with_standard_names(summary: Any) -> Any:
    """Returns a summary with the names that this module lists, whichever version wrote it."""
    if not isinstance(summary, dict):
        return summary
    parts = {name: summary[name] for name in SETS if isinstance(summary.get(name), dict)}
    return summary | {
        name: {_standard_name(key): value for key, value in part.items()}
        for name, part in parts.items()
    }


def _standard_name(name: str) -> str:
    """Replaces the name of a number, whatever statistic of it this is."""
    endings = (ending for ending in (STANDARD_ERROR, *OVER_SEEDS) if name.endswith(ending))
    ending = next(endings, "")
    stem = name.removesuffix(ending)
    return _FORMER_NAMES.get(stem, stem) + ending


def read_curve(
    workdir: Path, split: str, *names: str, first_seed: bool = False
) -> tuple[np.ndarray, ...]:
    """Reads recorded metrics of `train` or `validation`: steps [T] and one array [T] a name.

    Several seeds are averaged, or the first one is taken; the arrays are empty where nothing was
    recorded.
    """
    records = [r for r in metrics.read_metrics(workdir) if f"{split}/{names[0]}" in r]
    steps = np.array([r["step"] for r in records])
    value = (lambda x: np.ravel(x)[0]) if first_seed else np.mean
    return steps, *(np.array([value(r[f"{split}/{name}"]) for r in records]) for name in names)


def describe_hardware() -> str:
    """Names the devices; for a CPU its model and the cores that this process may use."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model}" if cores != 1 else f"1 core of {model}"


def per_seed(values: np.ndarray) -> Any:
    """Rounds to what is meant; drops the seed axis of a single seed."""
    rounded = np.round(np.asarray(values, np.float64), 4)
    return rounded[0].tolist() if len(rounded) == 1 else rounded.tolist()


def versions() -> dict[str, str]:
    """Returns the versions of this package and of what it computes with."""
    others = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")}
    return {"dvae": dvae.__version__, **others}
