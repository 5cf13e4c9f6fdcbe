"""The priors that are learned over the codes of a table's runs: where they are, and of which codes.

A run that is trained again has other codes. The prior that was learned over the former ones stays
in its folder, is left out of the table, and another one is learned in a folder of its own.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dvae import trained
from dvae.train import checkpoint
from experiments.common import records
from experiments.common.groups import Summary
from experiments.reproduce import summaries

MODEL = "model_sha256"  # of a prior's configuration: whose codes they are
# Of a prior's test set, and of its run's: the same images and codes under the factorial prior.
_SHARED = (
    ("num_images", "num_images"),
    ("factorial_rate_nats", "rate_nats"),
    ("distortion_nats", "distortion_nats"),
)
_ROUNDING = 1e-5  # relative; of other codes the sums of so many nats differ by more


def read(workdir: Path, summary: Summary) -> Summary | None:
    """Returns the summary of the prior over the codes that a run's summary tells of, if any.

    A prior of other codes or images is none; a line on stderr says so. Nor is one whose files are
    not all written: it was not given to its model yet, which the same command does.

    Args:
      workdir: of the run.
      summary: of the run.
    """
    usual = _usual(workdir)
    folders = [usual, *sorted(usual.parent.glob(f"{usual.name}-*"))]
    written = {folder: summaries.read(folder) for folder in folders}
    found = {
        folder: prior
        for folder, prior in written.items()
        if prior is not None and records.is_whole(folder, prior)
    }
    for prior in found.values():
        if is_of(prior, summary):
            return prior
    if found:
        wanted = summary["test"].get("num_images")
        priced = {prior["test"].get("num_images") for prior in found.values()}
        summaries.say_once(
            f"{', '.join(map(str, found))}: left out, as "
            + (
                f"other codes than those of {workdir} were priced; the same command learns a prior"
                if wanted in priced
                else f"not {wanted} test images were priced, as in {workdir}; give both one "
                "--num_test_images"
            )
        )
    return None


def is_of(prior: Summary, summary: Summary) -> bool:
    """Tells whether a prior is of the codes and images that a run's summary tells of.

    Args:
      prior: the summary of a run of `code_prior`.
      summary: of a run of `cifar_vq`.
    """
    pairs = [(prior["test"].get(a), summary["test"].get(b)) for a, b in _SHARED]
    return all(None not in pair and _are_equal(*pair) for pair in pairs)


def folder(workdir: Path) -> Path:
    """Returns the folder for the prior over the codes that a run's model has now.

    It is priorSEED beside seedSEED, or where that is of another model one that names the model.

    Args:
      workdir: of the run.
    """
    usual = _usual(workdir)
    config = usual / checkpoint.CONFIG_FILE
    if not config.exists():
        return usual
    try:
        now = trained.identity(trained.load(workdir, learned_prior=False).params)
    except trained.ModelError:
        return usual
    return usual if checkpoint.read_config(config).get(MODEL) == now else Path(f"{usual}-{now[:8]}")


def _usual(workdir: Path) -> Path:
    return workdir.with_name(workdir.name.replace("seed", "prior"))


def _are_equal(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=_ROUNDING, atol=0)
