"""The table of finished runs beside the published values."""

import json

import pytest

from experiments import table1


def summary(**config):
    return {
        "dataset": "mnist_static",
        "estimator": config.get("estimator", "rebar"),
        "bound": config.get("bound", "joint"),
        "test": {
            "nll": 108.65,
            "nll_standard_error": 0.24,
            "elbo": -118.0,
            "active_units": 60,
            "effective_samples": 4.2,
        },
        "evaluated_step": 290_000,
        "num_steps": 300_000,
        "seeds": [0],
        "hardware": "1 core",
        "wall_seconds": 600.0,
        "config": {
            "dataset": "mnist_static",
            "structure": "linear",
            "estimator": "rebar",
            "num_groups": 1,
            "batch_size": 24,
            "learning_rate": 2e-3,
            "test_samples": 100,
            "num_test_images": 0,
            "num_latents": 200,
            "hidden_units": 200,
            "hidden_layers": 2,
            **config,
        },
    }


def write(directory, value):
    directory.mkdir()
    (directory / "summary.json").write_text(json.dumps(value))
    return directory


def test_rows_hold_the_published_value_of_their_cell(tmp_path):
    runs = [
        write(tmp_path / "a", summary(estimator="power")),
        write(tmp_path / "b", summary()),
        write(tmp_path / "c", summary(estimator="exponential")),
    ]
    table = table1.compare(runs, tmp_path / "out")
    lines = [line for line in table.splitlines() if "mnist_static" in line]
    assert [line.split("|")[3].strip() for line in lines] == [
        "rebar",
        "exponential joint",
        "power joint",
    ]
    assert "107.65 ± 0.08" in lines[0]
    assert "+1.00" in lines[0]
    assert "300,000" in lines[0]
    assert "107.98 ± 0.10" in lines[1]
    assert "±" not in lines[2]
    assert (tmp_path / "out" / "table1.md").read_text().startswith(table)
    assert len(json.loads((tmp_path / "out" / "table1.json").read_text())) == 3


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


@pytest.mark.parametrize(
    "config", [{"num_latents": 50}, {"test_samples": 4_000}, {"num_test_images": 100}]
)
def test_other_models_and_evaluations_have_nothing_published(config):
    assert "107.65 ± 0.08" in table1.row(summary())
    assert "107.65 ± 0.08" not in table1.row(summary(**config))


def test_several_seeds_show_their_spread():
    several = summary()
    several["test"] |= {"nll": [108.0, 109.0], "nll_standard_deviation_over_seeds": 0.707}
    assert "108.50 ± 0.71" in table1.row(several)


def test_other_directories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is the run finished"):
        table1.read_run(tmp_path)
    with pytest.raises(ValueError, match="not the summary of a binary_vae run with one group"):
        table1.read_run(write(tmp_path / "two", summary(num_groups=2)))
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        table1.read_run(tmp_path)
