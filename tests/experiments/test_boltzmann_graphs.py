"""`binary_vae --prior=boltzmann`: machines on graphs against enumeration, RBMs and mistakes."""

import dataclasses

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_cases import TINY, bits_of, start

from dvae import boltzmann, rbm
from dvae.boltzmann import edge_lists, graphs
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import boltzmann_objectives
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import Batch
from experiments.binary_vae.presets import PRESETS
from experiments.boltzmann import graphs as graph_settings
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.names import ANNEALING, PCD, TEMPERING

GENERAL = {**TINY, "prior": "boltzmann", "graph": "complete"}
WEIGHT = 0.7


def bind(config, first, x):
    """The networks of parameters, on images."""
    mean = first.model_state["mean"]
    return lambda network: binary_model.bind(config.model(64), network, mean, x)


def objective(config, first, images, machine, log_z):
    """The training objective of a step as a function of networks and machine."""
    x = jnp.asarray(images.test[:6].reshape(6, -1), jnp.float32)
    batch = Batch(x - first.model_state["mean"][None], jnp.int32(0), WEIGHT)
    method = boltzmann_objectives.method_of(config)

    def evaluate(network, machine):
        prior = boltzmann_objectives.Prior(machine, log_z(machine), None)
        terms = method(jax.random.key(3), bind(config, first, x)(network), prior, batch, config)
        return terms.objective.mean() + terms.distortion.mean(), terms.distortion.mean()

    run = jax.jit(jax.value_and_grad(evaluate, argnums=(0, 1), has_aux=True))
    return run(first.params["network"], machine)


@pytest.mark.thorough
def test_the_divergence_and_its_gradient_are_those_of_enumeration(images) -> None:
    """Of one group no sample is needed: value and gradient are exact."""
    config = Config(**{**GENERAL, "num_groups": 1})
    _, first, machine = start(config, images)
    (value, _), gradient = objective(config, first, images, machine, boltzmann.exact.log_z)
    x = jnp.asarray(images.test[:6].reshape(6, -1), jnp.float32)
    states = bits_of(4)

    def enumerated(network, machine):
        logits = bind(config, first, x)(network).posterior_logits([])
        log_q = bernoulli.log_prob(states[:, None], logits[None]).sum(-1)
        log_weights = [-sum(z * machine.bias) for z in states]  # by loops: no code of the library
        for k, z in enumerate(states):
            pairs = zip(machine.graph.edges.tolist(), machine.weights, strict=True)
            log_weights[k] -= sum(w * z[i] * z[j] for (i, j), w in pairs)
        energies = jnp.stack(log_weights)
        log_p = -energies - jax.nn.logsumexp(-energies)
        return -WEIGHT * (jnp.exp(log_q) * (log_q - log_p[:, None])).sum(0).mean()

    expected = jax.jit(jax.value_and_grad(enumerated, argnums=(0, 1)))
    value_expected, gradient_expected = expected(first.params["network"], machine)
    np.testing.assert_allclose(value, value_expected, rtol=1e-4)
    assert abs(value) > 0.05
    for a, b in zip(*map(jax.tree.leaves, (gradient, gradient_expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)
    assert np.abs(gradient[1].weights).min() > 1e-4


@pytest.mark.thorough
def test_on_a_bipartite_graph_it_is_the_rbm(images) -> None:
    sizes = {"num_groups": 2, "num_latents": 4, "smoothing": "power"}
    one = Config(**{**TINY, **sizes})
    other = Config(**{**GENERAL, **sizes, "graph": "bipartite"})
    _, first, machine = start(one, images)
    _, second, _ = start(other, images)
    np.testing.assert_array_equal(first.params["prior"].weights.shape, (4, 4))
    embedded = boltzmann.from_rbm(machine)
    assert embedded.graph == second.params["prior"].graph
    (value, distortion), (network, prior) = objective(one, first, images, machine, rbm.exact.log_z)
    (again, as_before), (networks, graph) = objective(
        other, second, images, embedded, boltzmann.exact.log_z
    )
    np.testing.assert_allclose((again, as_before), (value, distortion), rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (networks, network)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(graph.weights, prior.weights.ravel(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(graph.bias, jnp.concatenate(prior[:2]), rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("sampler", [PCD, TEMPERING, ANNEALING])
def test_gradient_of_the_machine_is_that_of_its_likelihood(images, sampler) -> None:
    settings = {"sampler": sampler, "num_chains": 5_000, "num_sweeps": 10, "num_latents": 6}
    config = Config(**{**GENERAL, **settings, "graph": "four_partite"})
    _, first, machine = start(config, images)
    state = first.model_state
    np.testing.assert_allclose(state["log_z"], 6 * np.log(2), rtol=1e-6)

    def log_z(machine):
        inputs = (config, machine, state["chains"], state["log_z"], jnp.int32(1_000))
        phase = boltzmann_prior.negative_phase(jax.random.key(0), *inputs)
        return phase.log_z, phase.metrics

    gradient, metrics = jax.jit(jax.grad(log_z, has_aux=True))(machine)
    for a, b in zip(gradient[:2], boltzmann.exact.moments(machine), strict=True):
        np.testing.assert_allclose(a, b, atol=5 * 0.5 / np.sqrt(5_000) * 1.5)
    np.testing.assert_allclose(metrics["log_z"], boltzmann.exact.log_z(machine), atol=0.1)


@pytest.mark.slow
def test_devices_and_seeds_agree(images) -> None:
    config = Config(**{**GENERAL, "graph": "four_partite", "num_seeds": 2, "sampler": ANNEALING})
    found = []
    for devices, settings in ((1, {}), (8, {}), (1, {"num_seeds": 1, "seed": 1})):
        own = dataclasses.replace(config, **settings)
        task, state, _ = start(own, images, devices)
        step = jax.jit(task.step)
        everywhere = jax.tree.leaves(state)[0].sharding
        for _ in range(2):
            state, _ = step(state, jax.device_put(task.data, everywhere), task.key_train)
        assert step._cache_size() == 1
        found.append(jax.tree.leaves((state.params, state.model_state["chains"])))
    for one, eight, alone in zip(*found, strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=4 * config.learning_rate)
        np.testing.assert_allclose(one[1], alone, rtol=1e-3, atol=4 * config.learning_rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--graph=zephyr:1",), "--graph=zephyr:1 has 48 units, and the model 6 bits"),
        (("--graph=pegasus:1",), "--graph=pegasus:1: M must be at least 2"),
        (("--graph=chimera",), "--graph=chimera must be complete, bipartite, four_partite"),
        (("--graph=ring",), "or a .csv or .npz file"),
        (("--graph=four_partite", "--num_latents=3"), "takes 4 to 2,048 units, got 3 bits"),
        (("--num_latents=9000",), "takes 1 to 2,048 units, got 9,000 bits"),
        (("--method=dvaes",), "--method=dvaes goes with --prior=rbm"),
        (("--prior=directed", "--graph=complete"), "goes with --prior=boltzmann"),
        (("--graph=missing.csv",), "missing.csv cannot be read: No such file"),
        (("--graph=loops.csv",), "joins unit 0 to itself"),
        (("--graph=twice.csv",), "line 3: 1,0 was on line 2 already"),
        (("--graph=nan.csv",), "line 2: the value nan is NaN or infinite"),
        (("--graph=outside.npz",), "is (0, 9), outside of the units 0 to 5"),
        (("--graph=ring.csv", "--num_latents=7"), "has 6 units, and the model 7 bits"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    write_ring(tmp_path / "ring.csv")
    (tmp_path / "twice.csv").write_text("i,j,value\n0,1,1.0\n1,0,1.0\n")
    (tmp_path / "nan.csv").write_text("i,j,value\n0,1,nan\n")
    zeros = {"bias": np.zeros(6), "weights": np.zeros(1)}
    np.savez(tmp_path / "outside.npz", **zeros, edges=np.array([[0, 9]]))
    np.savez(tmp_path / "loops.npz", **zeros, edges=np.array([[0, 0]]))
    arguments = [a.replace("loops.csv", "loops.npz") for a in arguments]
    given = ["--preset=smoke", "--prior=boltzmann", f"--workdir={tmp_path / 'run'}", *arguments]
    error = command_line.error_of(monkeypatch, capsys, binary_vae, Config, PRESETS, given)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_graphs_have_folders_of_their_own(tmp_path) -> None:
    write_ring(tmp_path / "ring.csv")
    given = [
        ("complete", 6),
        ("four_partite", 6),
        ("chimera:1", 8),
        (str(tmp_path / "ring.csv"), 6),
    ]
    names = [
        Config(prior="boltzmann", graph=graph, num_latents=n).default_workdir()
        for graph, n in given
    ]
    names.append(Config(prior="rbm", num_latents=6).default_workdir())
    assert len({*names}) == len(names)
    assert not any("/" in name.removeprefix("runs/") for name in names)
    assert Config(prior="boltzmann").default_workdir() == (
        "runs/binary_vae-mnist_static-1nonlinear-boltzmann-exponential-elbo-seed0"
    )


def write_ring(path, shift=1):
    """An edge list of six units."""
    graph = boltzmann.Graph(6, [(i, (i + shift) % 6) for i in range(6)])
    edge_lists.write(path, boltzmann.Machine(np.zeros(6), np.ones(6), graph))
    return graph


def test_the_graph_of_a_file_stays_what_it_was(tmp_path) -> None:
    path = tmp_path / "ring.csv"
    graph = write_ring(path)
    config = Config(**{**PRESETS["smoke"], "prior": "boltzmann", "graph": str(path)})
    assert boltzmann_prior.init(config).graph == graph
    assert config.graph_sha256
    # A record needs no file, and one that has changed since is refused.
    path.unlink()
    again = Config(**dataclasses.asdict(config))
    assert again == config
    graph_settings._make.cache_clear()
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        graph_settings.of(again)
    write_ring(path, shift=5)
    with pytest.raises(ValueError, match="holds another graph than when the run began"):
        graph_settings.of(again)


@pytest.mark.parametrize(("name", "m"), [("chimera", 2), ("pegasus", 3), ("zephyr", 2)])
def test_numbers_of_units_are_those_of_the_graphs(name, m) -> None:
    pytest.importorskip("dwave_networkx")
    make, count = graph_settings._ANNEALERS[name]
    assert make(m).num_units == count(m)
    config = Config(prior="boltzmann", graph=f"{name}:{m}", num_latents=count(m))
    assert boltzmann_prior.init(config).graph == getattr(graphs, name)(m)
    assert graph_settings.topology(config).graph() == make(m)
