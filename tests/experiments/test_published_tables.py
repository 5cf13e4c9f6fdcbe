"""Columns and published values of the tables of papers."""

import math

import pytest
from table_summaries import summary, write

from experiments import disarm_table, table1, table2, table3
from experiments.binary_vae import presets
from experiments.common import tables as result_tables


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (dict(estimator="gaussian"), "gaussian joint"),
        (dict(estimator="uniform_exp", bound="marginal"), "uniform_exp marginal"),
        (dict(estimator="concrete"), "concrete"),
        (dict(estimator="concrete", bound="marginal"), "concrete marginal"),
        (dict(estimator="nvil"), "nvil"),
    ],
)
def test_bounds_are_told_apart(config, name):
    assert table1.column(summary(**config)) == name


OTHERS = [
    {"num_latents": 50},
    {"num_test_images": 100},
    {"condition": "labels"},
    {"activation": "leaky_relu"},
    {"binarization": "threshold"},
    {"image_size": 28},
]


@pytest.mark.parametrize("config", [*OTHERS, {"test_samples": 4_000}, {"normalization": "batch"}])
def test_other_models_and_evaluations_have_nothing_published(config):
    assert result_tables.row(table1.TABLE, summary())["published"] == "107.65 ± 0.08"
    assert result_tables.row(table1.TABLE, summary(**config))["published"] == ""


def test_other_splits_have_no_difference():
    run = summary() | {"dataset": "mnist_static (own split)"}
    cells = result_tables.row(table1.TABLE, run)
    assert (cells["published"], cells["difference"]) == ("107.65 ± 0.08", "")


RBM = dict(prior="rbm", method="dvaepp", smoothing="exponential", bound="elbo", num_samples=5)
RBM |= dict(structure="nonlinear", test_samples=4_000, sampler="pcd", num_chains=100, num_sweeps=5)
RBM |= dict(normalization="batch")


@pytest.mark.parametrize(
    ("config", "name", "known"),
    [
        (dict(estimator="exponential", bound="marginal"), "directed, marginal", "95.06 ± 0.08"),
        (RBM, "rbm, exponential", "85.41 ± 0.04"),
        ({**RBM, "num_groups": 2, "method": "dvae"}, "rbm, Rolfe", "84.52 ± 0.05"),
        ({**RBM, "smoothing": "power"}, "rbm, power", ""),
        ({**RBM, "prior": "boltzmann", "graph": "/x/a.csv"}, "boltzmann, a.csv, exponential", ""),
        ({**RBM, "method": "dvaes"}, "relaxed rbm, exponential, K = 1", ""),
        ({**RBM, "method": "dvaes", "bound": "iw"}, "relaxed rbm, exponential, K = 5", ""),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_priors_find_their_column_of_table_2(config, name, known):
    of_paper = {"structure": "nonlinear", "normalization": "batch", "test_samples": 4_000}
    run = summary(**{**of_paper, **config})
    if "prior" in config:
        run["log_z"] = {"nats": 120.5, "standard_error": 0.25, "effective_samples": 900.0}
    cells = result_tables.row(table2.TABLE, run)
    assert cells["trained by"] == name
    assert cells["published"] == known
    assert cells["log Z"] == ("120.50 ± 0.25" if "prior" in config else "")
    assert cells["chains x sweeps"] == ("pcd, 100 x 5" if "prior" in config else "")


@pytest.mark.parametrize("config", [*OTHERS, {"test_samples": 100}, {"normalization": "none"}])
def test_other_models_have_nothing_published_in_table_2(config):
    assert result_tables.row(table2.TABLE, summary(**RBM))["published"] == "85.41 ± 0.04"
    assert result_tables.row(table2.TABLE, summary(**{**RBM, **config}))["published"] == ""


def test_table_2_says_when_log_z_is_not_to_be_trusted(tmp_path):
    run = summary(**RBM)
    run["log_z"] = {"nats": 1.0, "standard_error": 0.9, "warning": "fewer"}
    cells = result_tables.row(table2.TABLE, run)
    assert "not to be trusted" in cells["log Z"]
    assert cells["published"] == cells["difference"] == ""
    plain = summary(**{**RBM, "normalization": "none"})
    assert result_tables.row(table2.TABLE, plain)["published"] == ""
    with pytest.raises(ValueError, match="trained with --estimator=exponential"):
        result_tables.read_runs(table2.TABLE, [write(tmp_path / "nvil", summary(estimator="nvil"))])


def dvaepp_summary(**config):
    run = summary(
        **{
            "decoder": "unconditional",
            "num_groups": 2,
            "num_latents": 8,
            "local_groups": 16,
            "local_size": 32,
            "features": 32,
            "test_samples": 4_000,
            **config,
        }
    )
    run["latents"] = "RBM + normal"
    run["test"] |= {"kl_global_nats": 1.5, "kl_local_nats": [20.0, 3.0]}
    return run


def test_table_3_shows_a_difference_between_equal_models():
    cells = result_tables.row(table3.TABLE, dvaepp_summary())
    assert (cells["published"], cells["difference"]) == ("79.17", "+29.48")
    assert (cells["KL, global"], cells["KL, local"]) == ("1.50", "23.00")
    smaller = result_tables.row(table3.TABLE, dvaepp_summary(local_groups=4))
    assert (smaller["published"], smaller["difference"]) == ("79.17", "")
    assert "4 x 32 local" in smaller["model"]
    for config in ({"decoder": "conditional"}, {"binarization": "threshold"}, {"image_size": 28}):
        other = result_tables.row(table3.TABLE, dvaepp_summary(**config))
        assert other["published"] == "", config


def test_table_3_counts_colors_in_bits_a_dimension():
    run = dvaepp_summary(dataset="cifar10", decoder="conditional", num_latents=64)
    run["dataset"] = "cifar10"
    run["test"]["nll_nats"] = 3.5 * 3072 * math.log(2)
    cells = result_tables.row(table3.TABLE, run)
    assert (cells["test NLL"], cells["published"], cells["difference"]) == ("3.50", "3.38", "+0.12")


def test_table_3_counts_bits_of_any_data_set_in_nats_and_levels_in_bits_a_dimension():
    own = dvaepp_summary(dataset="own.npz", binarization="dynamic")
    assert result_tables.row(table3.TABLE, own)["test NLL"] == "108.65"
    levels = dvaepp_summary(dataset="fashion_mnist")
    levels["test"] |= {"bits_per_dim": 2.5, "nll_nats": 2.5 * 784 * math.log(2)}
    cells = result_tables.row(table3.TABLE, levels)
    assert (cells["test NLL"], cells["-ELBO"]) == ("2.50", "0.22")


def benchmark_run(estimator, **config):
    """A run of the preset of an estimator, shorter than the protocol."""
    settings = presets.PRESETS[f"disarm_{estimator}"]
    value = summary(**{"structure": "nonlinear", **settings, "num_steps": 100_000, **config})
    more = {
        "training": {"elbo_nats": [-104.0, -105.0]},
        "gradient_variance": {"encoder": [3.25, 0.5]},
        "seeds": [0, 1],
        "num_steps": 100_000,
        "dataset": "mnist_dynamic",
    }
    several = {name: [number, number] for name, number in value["test"].items()}
    return {**value, **more, "test": several}


def test_the_benchmark_of_disarm_has_its_budget_on_the_line_of_its_number(tmp_path):
    runs = [
        write(tmp_path / "a", benchmark_run("rodeo")),
        write(tmp_path / "b", benchmark_run("disarm")),
        write(tmp_path / "c", benchmark_run("arms", learning_rate=1e-3)),
    ]
    text = result_tables.compare(disarm_table.TABLE, runs, tmp_path / "out")
    header, _, *lines = [[cell.strip() for cell in s.split("|")[1:-1]] for s in text.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row["trained by"] for row in rows] == ["disarm", "arms", "rodeo"]
    assert [row["published"] for row in rows] == ["101.60", "", "98.72"]
    assert [row["published steps"] for row in rows] == ["1,000,000", "", "1,000,000"]
    assert {row["steps"] for row in rows} == {"100,000"}
    assert {row["decodings"] for row in rows} == {"4"}
    assert {row["training ELBO"] for row in rows} == {"-104.50 ± 0.71"}
    assert {row["gradient variance"] for row in rows} == {"3.25 → 0.5"}
    assert (tmp_path / "out" / "disarm_table.md").read_text().startswith("# All runs in the bench")
    other = write(tmp_path / "d", summary(estimator="nvil"))
    with pytest.raises(ValueError, match="its estimators are disarm, double_cv"):
        result_tables.compare(disarm_table.TABLE, [other], tmp_path / "out")
