"""Cells of `cifar_vq`: the paper's figure, all quantizers, and what keeps codes in use."""

from collections.abc import Iterator, Mapping, Sequence

from experiments import report
from experiments.cifar_vq.program import PROGRAM
from experiments.reproduce.cells import CPU, PAPER, Cell, Recipe, Settings

_SONDERBY = "Sonderby et al. (2017), Fig. 1(a)"


def figure1() -> Iterator[Cell]:
    """Yields bits/dim of five training rules by the size of the codebook."""
    sizes = {"gs_soft": (512, 8, 64, 4096), "vq_ema": (128, 8, 64, 512, 4096)}
    sizes |= {"vimco": (8, 64, 512, 4096), "vq": (128, 8, 64, 512, 4096)}
    sizes |= {"gs_hard": (512, 8, 64, 4096)}
    for estimator, of_estimator in sizes.items():
        for size in of_estimator:
            settings = {"estimator": estimator, "codebook_size": size}
            recipes = {PAPER: Recipe("paper", settings), CPU: Recipe("small", settings)}
            published = report.PUBLISHED_BITS.get((estimator, size))
            name = f"{estimator}_{size}"
            yield Cell(name, PROGRAM, "cifar10", recipes, _SONDERBY, published)


def figure2() -> Iterator[Cell]:
    """Yields the codebooks of Fig. 1(b) and Fig. 2: 16 latent variables of 64 codes."""
    for estimator in ("gs_soft", "gs_hard", "vimco", "vq", "vq_ema"):
        settings = {"estimator": estimator, "codebook_size": 64, "num_latents": 16}
        recipes = {PAPER: Recipe("paper", settings), CPU: Recipe("small", settings)}
        yield Cell(estimator, PROGRAM, "cifar10", recipes, "Sonderby et al. (2017), Fig. 2")


def best() -> Iterator[Cell]:
    """Yields bits/dim with all that helps beside the paper's training, at equal steps."""
    cells = [("gs_soft", 512), ("vq_ema", 128), ("vimco", 512)]
    cells += [("gs_soft", size) for size in (8, 64, 4096)]
    for estimator, size in cells:
        settings = {"estimator": estimator, "codebook_size": size}
        recipes = {PAPER: Recipe("best", settings), CPU: Recipe("small_best", settings)}
        published = report.PUBLISHED_BITS.get((estimator, size))
        yield Cell(f"{estimator}_{size}", PROGRAM, "cifar10", recipes, _SONDERBY, published)


# Codebooks of about equal sizes; FSQ has none of 256 or 1,024 whose levels its paper advises.
_QUANTIZERS: Mapping[str, Sequence[Settings]] = {
    **{
        name: ({"codebook_size": 256}, {"codebook_size": 1024})
        for name in ("gs_soft", "vq", "vq_ema", "rotation", "simvq", "cosine", "lfq", "bsq")
    },
    "fsq": ({"levels": "8,6,5"}, {"levels": "8,5,5,5"}),
    "residual": ({"codebook_size": 16}, {"codebook_size": 32}),  # of two stages each
}
# Two seeds of all take about five hours of a core.
_SHORT: Settings = {"num_steps": 2_000, "num_test_images": 1_000}
_PRIOR_ON_CPU: Settings = {
    "features": 32,
    "num_layers": 4,
    "batch_size": 16,
    "num_steps": 600,
    "eval_interval": 200,
    "num_eval_images": 200,
    "num_test_images": 1_000,
}
_PRIOR_OF_PAPER: Settings = {"features": 128, "num_steps": 20_000, "dtype": "bfloat16"}


def quantizers() -> Iterator[Cell]:
    """Yields bits/dim of every quantizer at two sizes, with a prior learned over its codes."""
    for estimator, sizes in _QUANTIZERS.items():
        for size in sizes:
            settings = {"estimator": estimator, **size}
            recipes = {
                PAPER: Recipe("paper", settings, _PRIOR_OF_PAPER),
                CPU: Recipe("small", {**settings, **_SHORT}, _PRIOR_ON_CPU),
            }
            (value,) = size.values()
            name = f"{estimator}_{str(value).replace(',', 'x')}"
            yield Cell(name, PROGRAM, "cifar10", recipes, "in no paper: all quantizers alike")


# What may keep codes in use, for 512 codes by budget: of the run's steps a tenth or a quarter.
_KEEPS: Mapping[str, Mapping[str, Settings]] = {
    "none": {PAPER: {}, CPU: {}},
    "prior_warmup": {
        PAPER: {"prior_warmup_steps": 25_000},
        CPU: {"prior_warmup_steps": 1_000},
    },
    "entropy_floor": {PAPER: {"entropy_floor": 0.9}, CPU: {"entropy_floor": 0.9}},
    "restarts": {PAPER: {"restart_samples": 0.01}, CPU: {"restart_samples": 0.01}},
}


def codes_in_use() -> Iterator[Cell]:
    """Yields bits/dim of Gumbel-Softmax with each of what may keep its codes in use."""
    gs_soft: Settings = {"estimator": "gs_soft", "codebook_size": 512}
    shorter = {**_SHORT, "num_steps": 4_000}
    for name, changes in _KEEPS.items():
        recipes = {
            PAPER: Recipe("paper", {**gs_soft, **changes[PAPER]}),
            CPU: Recipe("small", {**gs_soft, **shorter, **changes[CPU]}),
        }
        yield Cell(name, PROGRAM, "cifar10", recipes, "in no paper")
