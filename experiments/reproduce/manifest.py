"""What is published, and what ought to be: every cell of a table, with the command that makes it.

Published numbers are those of the programs that lay out the tables, settings those of presets. A
cell has two budgets: that of its paper, and one for a CPU. The cells of `table1_settings` are those
of Table 1 on MNIST once more, with single settings of the published protocol.
"""

from collections.abc import Iterator

from experiments import disarm_table, joint_table, table1, table2, table3
from experiments.binary_vae import presets as binary_presets
from experiments.binary_vae.program import PROGRAM as _BINARY_VAE
from experiments.common import pixels
from experiments.dvaepp import config as dvaepp
from experiments.dvaepp import presets as dvaepp_presets
from experiments.dvaepp.program import PROGRAM as _DVAEPP
from experiments.joint_vae import config as joint_vae
from experiments.joint_vae.program import PROGRAM as _JOINT_VAE
from experiments.reproduce import codebooks, pairs, priors, relaxed
from experiments.reproduce.cells import (
    BUDGETS,
    CPU,
    DVAEPP,
    PAPER,
    Cell,
    Recipe,
    Settings,
    Table,
)

__all__ = ["BUDGETS", "CPU", "PAPER", "TABLES", "Cell", "Recipe", "Table"]


# Settings of 1,000,000 steps and more, where they differ from the presets', which were chosen for
# 300,000 or are the published ones: docs/results/table1/README.md and table2/README.md.
_LONG_EXPONENTIAL: Settings = {"learning_rate": 3e-4, "initial_variance": 2.0}
_LONG: dict[tuple[str, str, str], Settings] = {
    ("mnist_static", "linear", "nvil"): {"learning_rate": 1e-3},
    ("mnist_static", "nonlinear", "exponential joint"): _LONG_EXPONENTIAL,
    ("mnist_static", "nonlinear", "exponential marginal"): _LONG_EXPONENTIAL,
    ("mnist_static", "1 nonlinear", table2.JOINT): {"learning_rate": 5e-4},
    ("mnist_static", "1 nonlinear", table2.MARGINAL): {"learning_rate": 5e-4},
}


def _table1() -> Iterator[Cell]:
    """Yields NLLs of single-layer models; their presets take fewer steps than the paper."""
    for (dataset, structure), columns in table1.PUBLISHED.items():
        for column, (value, deviation) in columns.items():
            preset = f"table1_{structure}_{column.replace(' ', '_')}"
            more = _of_dataset(dataset)
            # On a GPU five seeds take 1.3 times as long as one (docs/results/gpu.md).
            longest = {"num_steps": table1.PUBLISHED_STEPS, "num_seeds": 5}
            longest = {**more, **longest, **_LONG.get((dataset, structure, column), {})}
            yield Cell(
                f"{dataset}_{structure}_{column.replace(' ', '_')}",
                _BINARY_VAE,
                dataset,
                {PAPER: Recipe(preset, longest), CPU: Recipe(preset, more)},
                f"{DVAEPP}, Table 1",
                value,
                deviation,
                table1.PUBLISHED_STEPS,
            )


# Inverse temperatures on OMNIGLOT where they differ from the presets', which are those of MNIST.
_BETA_OMNIGLOT = {
    "1 linear": {"rbm_rolfe": 4.0, "others": 14.0},
    "2 linear": {"rbm_rolfe": 4.0, "others": 14.0},
    "1 nonlinear": {"rbm_rolfe": 4.0, "others": 12.0},
}
_COLUMNS2 = {
    table2.RBM: "rbm",
    table2.ROLFE: "rbm_rolfe",
    table2.JOINT: "joint",
    table2.MARGINAL: "marginal",
}


def _table2() -> Iterator[Cell]:
    """Yields NLLs under Boltzmann and directed priors."""
    for (dataset, structure), columns in table2.PUBLISHED.items():
        for column, (value, deviation) in columns.items():
            cell = _COLUMNS2[column]
            preset = f"{structure.replace(' ', '')}_{cell}"
            more = _of_dataset(dataset)
            if dataset == "omniglot" and structure in _BETA_OMNIGLOT:
                of_structure = _BETA_OMNIGLOT[structure]
                more["beta"] = of_structure.get(cell, of_structure["others"])
            yield Cell(
                f"{dataset}_{preset}",
                _BINARY_VAE,
                dataset,
                {
                    PAPER: Recipe(
                        f"table2_{preset}", {**more, **_LONG.get((dataset, structure, column), {})}
                    ),
                    CPU: Recipe(f"table2_cpu_{preset}", more),
                },
                f"{DVAEPP}, Table 2",
                value,
                deviation,
                table2.PUBLISHED_STEPS,
            )


_ROWS3 = dict(zip(table3.ROWS, dvaepp_presets.ROWS, strict=True))


def _table3() -> Iterator[Cell]:
    """Yields NLLs of DVAE++; the paper does not say how long it trained."""
    for (dataset, decoder), rows in table3.PUBLISHED.items():
        for row, (value, deviation) in rows.items():
            preset = _ROWS3[row]
            more = _of_dataset(dataset)
            if decoder != dvaepp.UNCONDITIONAL:
                more["decoder"] = decoder
            if dataset == "cifar10":
                more["num_latents"] = 64
                if preset.startswith(("rbm", "rolfe")):  # the balancing needs a recent log Z
                    more["log_z_interval"] = _DVAEPP.presets["cifar10"]["log_z_interval"]
            recipes = {
                PAPER: Recipe(f"table3_{preset}", more),
                CPU: Recipe(f"table3_cpu_{preset}", more),
            }
            name = f"{dataset}_{preset}"
            where = f"{DVAEPP}, Table 3"
            yield Cell(name, _DVAEPP, dataset, recipes, where, value, deviation)


def _joint_vae() -> Iterator[Cell]:
    """Yields the accuracy of the codes as a classifier: of one long run, and of many seeds.

    On a CPU the first is our own model's, after a fifth of its epochs.
    """
    whole = joint_vae.Config(**joint_vae.PRESETS["mnist_published"])
    shorter = {"num_steps": joint_vae.Config().num_steps // 5}
    of_seeds = {"num_steps": 30_000}
    longest = {PAPER: Recipe("mnist_published", {}), CPU: Recipe("mnist", shorter)}
    many = {
        PAPER: Recipe("mnist_published", {**of_seeds, "num_seeds": 16}),
        CPU: Recipe("mnist_published", of_seeds),
    }
    for name, recipes in (("mnist", longest), ("mnist_seeds", many)):
        yield Cell(
            name,
            _JOINT_VAE,
            "mnist",
            recipes,
            "Dupont (2018), sec. 4.2: one model, 100 epochs",
            joint_table.PUBLISHED_ACCURACY,
            published_steps=whole.num_steps,
            any_length=recipes is longest,
        )


def _disarm() -> Iterator[Cell]:
    """Yields test bounds of the DisARM line at equal evaluations of the decoder."""
    ((dataset, structure),) = disarm_table.PUBLISHED
    values = disarm_table.PUBLISHED[dataset, structure]
    # Seeds one by one: on a CPU five together take five times as long.
    shorter = {"num_steps": 100_000, "eval_interval": 10_000, "num_seeds": 1}
    for cell in binary_presets.DISARM_CELLS:
        preset = f"disarm_{cell}"
        value, deviation = values.get(cell, (None, None))
        yield Cell(
            cell,
            _BINARY_VAE,
            dataset,
            {PAPER: Recipe(preset, {}), CPU: Recipe(preset, shorter)},
            "Dong et al. (2020) and after, layers and K not stated" if value else "not published",
            value,
            deviation,
            disarm_table.PUBLISHED_STEPS,
        )


def _of_dataset(dataset: str) -> Settings:
    """Returns the flags of a data set with its published pixels, where they are no defaults."""
    flags = {"dataset": dataset, "binarization": pixels.published(dataset)}
    defaults = {"dataset": "mnist_static", "binarization": pixels.AS_STORED}
    return {name: value for name, value in flags.items() if value != defaults[name]}


TABLES = {
    table.name: table
    for table in (
        Table(
            "figure1",
            "bits/dim on CIFAR-10 by the number of codes",
            "bits_per_dim",
            "bits/dim",
            "results.json",
            tuple(codebooks.figure1()),
            folder="cifar10_vq",
        ),
        Table(
            "figure2",
            "codebooks of 64 codes and 16 latent variables on CIFAR-10",
            "bits_per_dim",
            "bits/dim",
            "results.json",
            tuple(codebooks.figure2()),
            folder="figure2",
        ),
        Table(
            "best",
            "bits/dim on CIFAR-10 with the preset best",
            "bits_per_dim",
            "bits/dim",
            "results.json",
            tuple(codebooks.best()),
            folder="cifar10_vq",
        ),
        Table(
            "table1",
            "gradient estimators on binary models",
            "nll_nats",
            "nats",
            "table1.json",
            tuple(_table1()),
        ),
        Table(
            "table1_settings",
            "settings of Table 1, one change at a time",
            "nll_nats",
            "nats",
            "table1.json",
            tuple(pairs.table1_settings()),
        ),
        Table(
            "table2",
            "Boltzmann and directed priors",
            "nll_nats",
            "nats",
            "table2.json",
            tuple(_table2()),
        ),
        Table(
            "dvaes",
            "relaxed Boltzmann priors by smoothing and samples (DVAE#)",
            "nll_nats",
            "nats",
            "table2.json",
            tuple(relaxed.dvaes()),
        ),
        Table("table3", "DVAE++", "nll_nats", "nats", "table3.json", tuple(_table3())),
        Table(
            "joint_vae",
            "accuracy of JointVAE's codes",
            "accuracy",
            "",
            "joint_vae.json",
            tuple(_joint_vae()),
        ),
        Table(
            "quantizers",
            "bits/dim on CIFAR-10 by quantizer, at two sizes of the codebook",
            "bits_per_dim",
            "bits/dim",
            "quantizers.json",
            tuple(codebooks.quantizers()),
        ),
        Table(
            "codes_in_use",
            "bits/dim on CIFAR-10 of Gumbel-Softmax, and what keeps codes in use",
            "bits_per_dim",
            "bits/dim",
            "results.json",
            tuple(codebooks.codes_in_use()),
            folder="codes_in_use",
        ),
        Table(
            "boltzmann",
            "Boltzmann priors of 200 units by graph",
            "nll_nats",
            "nats",
            "boltzmann.json",
            tuple(priors.boltzmann()),
        ),
        Table(
            "disarm",
            "the benchmark of DisARM, 100-sample bounds of dynamic MNIST",
            "nll_nats",
            "nats",
            "disarm_table.json",
            tuple(_disarm()),
        ),
    )
}
