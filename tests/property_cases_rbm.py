"""More of `property_cases`: Boltzmann machines and vector quantization."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from property_cases import LOGIT, NATS, POINT, REAL, TEMPERATURE, UNIT, Case, key, keyed

from dvae import rbm, vq

COUPLING = (-20.0, 20.0)


def machine(bias, weights):
    """Three units a side."""
    return rbm.RBM(bias[0], bias[1], weights[:3])


def whole(bias, weights):
    """A general machine of three units."""
    symmetric = weights[:3] + weights[:3].T
    off_diagonal = (1 - np.eye(3)).astype(weights.dtype)
    return rbm.graph.BoltzmannMachine(bias[0], symmetric * off_diagonal)


def bits(x):
    return jnp.round(x)


def energy_cases() -> Iterator[tuple[str, Case]]:
    centered = lambda b, w: rbm.centered_biases(machine(b, w))
    yield "rbm.centered_biases", Case(centered, (REAL, REAL), keeps_dtype=False)
    of_state = {
        "energy": lambda m, z: rbm.energy(m, z, z[::-1]),
        "logits_1": rbm.logits_1,
        "logits_2": rbm.logits_2,
        "free_energy_1": rbm.free_energy_1,
        "free_energy_2": rbm.free_energy_2,
        "log_z_with_gradient": lambda m, z: rbm.log_z_with_gradient(m, jnp.float32(9), z, z[::-1]),
    }
    for name, function in of_state.items():
        call = lambda b, w, z, f=function: f(machine(b, w), z)
        yield f"rbm.{name}", Case(call, (REAL, REAL, POINT), keeps_dtype=False)
    for name, keeps in (("log_z", False), ("moments", True)):
        function = getattr(rbm.exact, name)
        call = lambda b, w, f=function: f(machine(b, w))
        yield f"rbm.exact.{name}", Case(call, (REAL, REAL), keeps_dtype=keeps)
    yield (
        "rbm.kl.hierarchical",
        Case(
            lambda b, w, x, r: rbm.kl.hierarchical(
                machine(b, w), (x, x[::-1]), (r, r), jnp.float32(9)
            ),
            (REAL, REAL, LOGIT, LOGIT),
            keeps_dtype=False,
        ),
    )
    parts = lambda x: (x[:, :2], x[::-1], x[:, :1])  # the second has units of both sides
    yield (
        "rbm.kl.hierarchical,a group on both sides",
        Case(
            lambda b, w, x, r: rbm.kl.hierarchical(
                machine(b, w), parts(x), parts(r), jnp.float32(9)
            ),
            (REAL, REAL, LOGIT, LOGIT),
            keeps_dtype=False,
        ),
    )
    yield (
        "rbm.rolfe.kl_surrogate,a group on both sides",
        Case(
            lambda b, w, x, z: rbm.rolfe.kl_surrogate(
                machine(b, w), parts(x), parts(z), jnp.float32(9)
            ),
            (REAL, REAL, LOGIT, POINT),
            keeps_dtype=False,
        ),
    )
    yield (
        "rbm.rolfe.kl_surrogate",
        Case(
            lambda b, w, x, z: rbm.rolfe.kl_surrogate(
                machine(b, w), (x, x[::-1]), (z, z[::-1]), jnp.float32(9)
            ),
            (REAL, REAL, LOGIT, POINT),
            keeps_dtype=False,
        ),
    )


def relaxed_cases() -> Iterator[tuple[str, Case]]:
    both = lambda x: jnp.concatenate([x, x[::-1]], axis=-1)
    relaxed = rbm.relaxed
    yield (
        "rbm.relaxed.overlapping_log_prob",
        Case(
            lambda b, w, z, r: relaxed.overlapping_log_prob(
                machine(b, w), both(z), both(r), both(-r * r / 100), jnp.float32(9)
            ),
            (REAL, REAL, UNIT, LOGIT),
            keeps_dtype=False,
        ),
    )
    # The couplings' largest singular value is at most 60 by Frobenius' norm.
    yield (
        "rbm.relaxed.gaussian_integral_log_prob",
        Case(
            lambda b, w, z: relaxed.gaussian_integral_log_prob(
                machine(b, w), both(z), 100.0, jnp.float32(9)
            ),
            (REAL, COUPLING, REAL),
            keeps_dtype=False,
        ),
    )
    yield (
        "rbm.relaxed.gaussian_integral_sample",
        Case(
            lambda b, w, z: relaxed.gaussian_integral_sample(
                jax.random.key(0), machine(b, w), bits(z), bits(z[::-1]), 100.0
            ),
            (REAL, COUPLING, POINT),
            keeps_dtype=None,
            differentiable=False,
        ),
    )
    min_lambda = lambda b, w: relaxed.min_lambda(machine(b, w))
    yield (
        "rbm.relaxed.min_lambda",
        Case(min_lambda, (REAL, COUPLING), keeps_dtype=None, differentiable=False),
    )


def sampler_cases() -> Iterator[tuple[str, Case]]:
    few = {"num_temperatures": 5}

    def stepped(module, **settings):
        def call(bias, weights):
            m = machine(bias, weights)
            return module.step(key(0), m, module.init(key(1), m, 4, **settings), num_sweeps=2)

        return call

    def adapted(bias, weights):
        m = machine(bias, weights)
        state = rbm.tempering.init(key(0), m, 4, **few)
        state, info = rbm.tempering.step(key(1), m, state)
        return rbm.tempering.adapt(state, info.swap_rates)

    def reverse(bias, weights, z):
        return rbm.ais.reverse_log_z(key(0), machine(bias, weights), bits(z), **few)

    of_machine = {
        "exact.sample": lambda b, w: rbm.exact.sample(key(0), machine(b, w), 4),
        "gibbs.init": lambda b, w: rbm.gibbs.init(key(0), machine(b, w), 4),
        "gibbs.step": stepped(rbm.gibbs),
        "tempering.init": lambda b, w: rbm.tempering.init(key(0), machine(b, w), 4, **few),
        "tempering.step": stepped(rbm.tempering, **few),
        "tempering.adapt": adapted,
        "annealing.init": lambda b, w: rbm.annealing.init(key(0), machine(b, w), 4, **few),
        "annealing.anneal": lambda b, w: rbm.annealing.anneal(key(0), machine(b, w), 4, **few),
        "annealing.step": stepped(rbm.annealing, **few),
        "ais.log_z": lambda b, w: rbm.ais.log_z(key(0), machine(b, w), num_chains=4, **few),
    }
    for name, function in of_machine.items():
        yield (
            f"rbm.{name}",
            Case(function, (REAL, REAL), keeps_dtype=None, differentiable=False),
        )
    yield (
        "rbm.ais.reverse_log_z",
        Case(reverse, (REAL, REAL, POINT), keeps_dtype=None, differentiable=False),
    )
    yield "rbm.gibbs.draw", Case(keyed(rbm.gibbs.draw), (LOGIT,), differentiable=False)
    yield (
        "rbm.annealing.systematic_resample",
        Case(
            lambda x: rbm.annealing.systematic_resample(key(0), x[:, 0]),
            (NATS,),
            differentiable=False,
        ),
    )


def graph_cases() -> Iterator[tuple[str, Case]]:
    graph = rbm.graph
    triangle = np.ones((3, 3), bool) & ~np.eye(3, dtype=bool)

    def step(bias, weights):
        m = whole(bias, weights)
        return graph.step(key(0), m, graph.init(key(1), m, 4), colors=(0, 1, 2), num_sweeps=2)

    yield from {
        "rbm.graph.from_rbm": Case(lambda b, w: graph.from_rbm(machine(b, w)), (REAL, REAL)),
        "rbm.graph.on_edges": Case(
            lambda b, w: graph.on_edges(whole(b, w), triangle), (REAL, REAL)
        ),
        "rbm.graph.energy": Case(
            lambda b, w, z: graph.energy(whole(b, w), z), (REAL, REAL, POINT), keeps_dtype=False
        ),
        "rbm.graph.log_z": Case(
            lambda b, w: graph.log_z(whole(b, w)), (REAL, REAL), keeps_dtype=False
        ),
        "rbm.graph.moments": Case(lambda b, w: graph.moments(whole(b, w)), (REAL, REAL)),
        "rbm.graph.init": Case(
            lambda b, w: graph.init(key(0), whole(b, w), 4), (REAL, REAL), differentiable=False
        ),
        "rbm.graph.step": Case(step, (REAL, REAL), keeps_dtype=None, differentiable=False),
    }.items()


def vq_cases() -> Iterator[tuple[str, Case]]:
    codes = jnp.array([0, 3, 1, 1])

    def update(codebook, vectors):
        return vq.ema_update(vq.ema_init(codebook), vectors, codes, decay=0.9)

    def restart(codebook, vectors):
        return vq.restart_dead_codes(key(0), update(codebook, vectors), vectors, threshold=0.95)

    def nearest_in_blocks(vectors, codebook):
        return vq.nearest_code(jnp.repeat(jnp.asarray(vectors), 2**14, axis=0), codebook)

    yield from {
        "vq.squared_distances": Case(vq.squared_distances, (REAL, REAL), keeps_dtype=False),
        "vq.nearest_code": Case(vq.nearest_code, (REAL, REAL), differentiable=False),
        "vq.nearest_code, blocks": Case(nearest_in_blocks, (REAL, REAL), differentiable=False),
        "vq.lookup": Case(lambda codebook: vq.lookup(codes, codebook), (REAL,)),
        "vq.straight_through": Case(vq.straight_through, (REAL, REAL)),
        "vq.codebook_loss": Case(vq.codebook_loss, (REAL, REAL), keeps_dtype=False),
        "vq.commitment_loss": Case(vq.commitment_loss, (REAL, REAL), keeps_dtype=False),
        "vq.usage": Case(
            lambda x: vq.usage(jnp.int32(3 * x), 4),
            (POINT,),
            keeps_dtype=None,
            differentiable=False,
        ),
        "vq.perplexity": Case(lambda x: vq.perplexity(x[0]), (TEMPERATURE,), keeps_dtype=None),
        "vq.num_dead": Case(lambda x: vq.num_dead(x[0]), (TEMPERATURE,), differentiable=False),
        "vq.ema_init": Case(vq.ema_init, (REAL,), keeps_dtype=None),
        "vq.ema_update": Case(update, (REAL, REAL), keeps_dtype=None, differentiable=False),
        "vq.restart_dead_codes": Case(
            restart, (REAL, REAL), keeps_dtype=None, differentiable=False
        ),
        "vq.kmeans_plus_plus": Case(
            keyed(vq.kmeans_plus_plus, num_codes=2, chunk_size=3),
            (REAL,),
            keeps_dtype=None,
            differentiable=False,
        ),
        "vq.kmeans": Case(
            keyed(vq.kmeans, num_codes=2, num_iters=2, chunk_size=3),
            (REAL,),
            keeps_dtype=None,
            differentiable=False,
        ),
    }.items()


CASES: dict[str, Case] = {
    **dict(energy_cases()),
    **dict(relaxed_cases()),
    **dict(sampler_cases()),
    **dict(graph_cases()),
    **dict(vq_cases()),
}
