"""The comparison of samplers: errors, files, mistakes."""

import json

import finished_runs
import jax
import numpy as np
import pytest

from dvae import boltzmann, rbm
from dvae.boltzmann import edge_lists
from experiments import compare_samplers
from experiments.boltzmann import machines
from experiments.boltzmann.machines import Machine
from experiments.compare_samplers import Config, Measured


def test_errors_are_root_mean_squares_over_runs():
    moments = rbm.exact.Moments(np.zeros(1), np.zeros(1), np.zeros((1, 1)))
    machine = Machine("m", None, moments, 0.0, 5.0, 0.0, "")
    runs = rbm.exact.Moments(np.ones((2, 1)), np.zeros((2, 1)), np.zeros((2, 1, 1)))
    found = compare_samplers.record(machine, "s", 10, Measured(runs, np.array([5.0, 9.0])))
    assert found["moments_rms"] == pytest.approx(np.sqrt(1 / 3))
    assert found["log_z_bias"] == 2
    assert found["log_z_bias_standard_error"] == pytest.approx(2)
    assert found["log_z_rms"] == pytest.approx(np.sqrt(8))
    only = compare_samplers.record(machine, "s", 10, Measured(None, np.array([5.0, 9.0])))
    assert "moments_rms" not in only


@pytest.mark.thorough
def test_files_of_a_small_comparison(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"bias1": rng.normal(size=(2, 3)), "bias2": rng.normal(size=(2, 4))}
    arrays["weights"] = rng.normal(size=(2, 3, 4))  # two seeds, of which the first is taken
    run = tmp_path / "run"
    run.mkdir()
    np.savez(run / "prior.npz", **{name: a.astype(np.float32) for name, a in arrays.items()})
    config = Config(
        out=str(tmp_path / "out"),
        sweeps="10,100",
        num_chains=200,
        num_runs=2,
        reference_temperatures=200,
        reference_chains=1_000,
        small_scale=0.5,
    )
    table = compare_samplers.compare(config, [run])
    text = (tmp_path / "out" / "samplers.md").read_text()
    assert table in text
    written = json.loads((tmp_path / "out" / "samplers.json").read_text())
    assert len(written["records"]) == 2 * 4 * 2
    first = rbm.RBM(*(arrays[name][0].astype(np.float32) for name in rbm.RBM._fields))
    trained = written["references"]["3x4, run"]
    assert abs(trained["log_z"] - rbm.exact.log_z(first)) < 0.02
    assert 0 < trained["moments_error"] < 0.03
    for record in written["records"]:
        if record["sweeps"] == 100 and "log_z_rms" in record:
            assert record["log_z_rms"] < 0.2, record
        if record["sweeps"] == 100 and "moments_rms" in record:
            assert record["moments_rms"] < 0.05, record
    assert (tmp_path / "out" / "samplers.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_machines_on_graphs_are_measured_too(tmp_path):
    graph = boltzmann.graphs.k_partite(2, 2, 2)
    rng = np.random.default_rng(1)
    machine = boltzmann.Machine(rng.normal(size=6), rng.normal(size=graph.num_edges), graph)
    machine = jax.tree.map(np.float32, machine)
    folder = tmp_path / "run" / "model" / "seed3"
    folder.mkdir(parents=True)
    edge_lists.write(folder / "machine.npz", machine)
    edge_lists.write(tmp_path / "other.csv", machine)
    config = Config(
        out=str(tmp_path / "out"),
        sweeps="100",
        num_chains=1_000,
        num_runs=2,
        reference_temperatures=100,
        reference_chains=1_000,
    )
    compare_samplers.compare(config, [tmp_path / "run", tmp_path / "other.csv"])
    written = json.loads((tmp_path / "out" / "samplers.json").read_text())
    names = ["8x8, random", "6 units, 12 edges, run", "6 units, 12 edges, other.csv"]
    assert list(written["references"]) == names
    exact = boltzmann.exact.log_z(jax.tree.map(np.asarray, machine))
    for name in names[1:]:
        assert abs(written["references"][name]["log_z"] - exact) < 0.02
    of_graphs = [record for record in written["records"] if record["machine"] != names[0]]
    assert len(of_graphs) == 2 * 4
    assert max(record.get("moments_rms", 0) for record in of_graphs) < 0.03
    assert max(record.get("log_z_rms", 0) for record in of_graphs) < 0.1


def test_the_first_of_several_seeds_is_that_of_the_lowest_number(tmp_path):
    for seed in (9, 10, 100):
        folder = tmp_path / "model" / f"seed_{seed}"
        folder.mkdir(parents=True)
        graph = boltzmann.graphs.k_partite(2, 2)
        bias = np.full(4, seed, np.float32)
        machine = boltzmann.Machine(bias, np.zeros(graph.num_edges, np.float32), graph)
        edge_lists.write(folder / "machine.npz", machine)
    params, given = machines.read(tmp_path)
    assert params.bias.tolist() == [9.0] * 4
    assert not given


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="--sweeps=10,15 must be multiples of ten"):
        Config(sweeps="10,15")
    with pytest.raises(ValueError, match="--sweeps=ten must be"):
        Config(sweeps="ten")


def test_what_is_no_trained_prior_is_named_before_anything_is_measured(tmp_path, monkeypatch):
    for of in ((compare_samplers, "measure"), (compare_samplers.sampler_machines, "small")):
        monkeypatch.setattr(*of, lambda *_: pytest.fail("went on"))
    compare = lambda directory: compare_samplers.compare(Config(out=str(tmp_path)), [directory])
    directed = finished_runs.make(tmp_path / "x", "binary_vae")
    with pytest.raises(
        ValueError, match=r"x is a binary_vae run; .* takes finished runs of binary_v"
    ):
        compare(directed)
    with pytest.raises(ValueError, match=r"y does not exist.*takes finished runs"):
        compare(tmp_path / "y")
    for damaged in (b"", b"PK damaged"):
        (directed / "prior.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"prior\.npz cannot be read"):
            compare(directed)
    np.savez(directed / "prior.npz", bias1=np.zeros(2))
    with pytest.raises(ValueError, match="it must hold bias1, bias2, weights"):
        compare(directed)
