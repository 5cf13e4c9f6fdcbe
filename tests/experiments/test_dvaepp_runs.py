"""`dvaepp`: whole runs and what they leave, resumed runs, mistakes."""

import json

import command_line
import cut_runs
import numpy as np
import pytest
import trained_runs
from dvaepp_cases import GRAPH, TINY

import dvae
from dvae import data
from dvae.boltzmann import edge_lists
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import PRESETS


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_run_under_a_machine_on_a_graph_is_recorded(tmp_path) -> None:
    summary = dvaepp.run(Config(**{**TINY, **GRAPH, "num_seeds": 2}, workdir=str(tmp_path)))
    trained_runs.check(tmp_path, summary, data.load("digits").test)
    assert summary["latents"] == "Boltzmann, four_partite + normal"
    for seed in range(2):
        folder = tmp_path / "model" / f"seed_{seed}"
        machine, params = edge_lists.read(folder / "machine.csv"), dvae.load(folder).params
        np.testing.assert_array_equal(machine.weights, params["prior"].weights)
        assert machine.graph.num_edges == 6


@pytest.mark.thorough
def test_a_run_is_recorded(tmp_path) -> None:
    summary = dvaepp.run(Config(**TINY, workdir=str(tmp_path)))
    trained_runs.check(tmp_path, summary, data.load("digits").test)
    files = {p.name for p in tmp_path.iterdir()}
    pictures = ("reconstructions", "samples", "kl_per_group", "bounds")
    assert files >= {"summary.json", "prior.npz", *(f"{name}.png" for name in pictures)}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["latents"] == "RBM + normal"
    assert len(summary["test"]["kl_local_nats"]) == 2
    assert summary["test"]["num_images"] == 16
    assert "effective_samples" in summary["log_z"]
    assert summary["chosen_by"] == "lowest validation nll of steps whose log Z is to be trusted"


@pytest.mark.slow
def test_an_interrupted_run_ends_like_a_whole_one(tmp_path, monkeypatch) -> None:
    whole = dvaepp.run(Config(**TINY, workdir=str(tmp_path / "whole")))
    cut = Config(**TINY, workdir=str(tmp_path / "cut"))
    cut_runs.until_second_evaluation(monkeypatch, dvaepp, cut)
    resumed = dvaepp.run(cut)
    for name in ("validation", "test", "evaluated_step", "log_z"):
        assert resumed[name] == whole[name]


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_color_images_by_scales(tmp_path) -> None:
    settings = {**TINY, "dataset": "patches", "decoder": "conditional", "num_mixtures": 2}
    summary = dvaepp.run(Config(**{**settings, "workdir": str(tmp_path), "num_seeds": 2}))
    nll = np.array(summary["test"]["nll_nats"])
    np.testing.assert_allclose(summary["test"]["bits_per_dim"], nll / 3072 / np.log(2), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder=conditional", "--num_scales=1"], "at least 2 scales"),
        (["--num_scales=3"], "goes with --decoder=conditional"),
        (["--decoder=conditional", "--num_scales=5"], "--num_scales=5 must be at most 4"),
        (["--local_latents=bernoulli", "--local_groups=0"], "needs --local_groups of at least 1"),
        (["--num_groups=3"], "use 1 or an even number"),
        (["--num_groups=1", "--num_latents=5"], "use an even number"),
        (["--global_latents=normal", "--sampler=pcd"], "goes with --global_latents=rbm"),
        (["--graph=complete"], "goes with --global_latents=boltzmann, got --global_latents=rbm"),
        (["--global_latents=boltzmann", "--graph=zephyr:1"], "has 48 units, and the model 4 bits"),
        (["--kl_warmup_steps=9"], "exceeds --num_steps=8"),
        (["--beta=0"], "greater than 0"),
        (["--num_chains=0"], "at least 1"),
        (["--smoothing=spike_exp"], "must be one of"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, arguments, message) -> None:
    given = ["--preset=smoke", *arguments]
    error = command_line.error_of(monkeypatch, capsys, dvaepp, Config, PRESETS, given)
    assert message in error


def test_images_without_a_coarser_scale() -> None:
    config = Config(**{**TINY, "decoder": "conditional"})
    with pytest.raises(ValueError, match="no coarser scale"):
        config.model((4, 4, 1))
    with pytest.raises(ValueError, match="8x4 pixels has no coarser scale"):
        config.model((8, 4, 1))
    assert config.model((32, 16, 1)).config.decoder.num_scales == 3
    assert config.model((28, 28, 1)).config.decoder.num_scales == 3
    assert config.model((32, 32, 3)).config.decoder.num_scales == 4
