"""More of `property_cases`: Boltzmann machines on graphs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from property_cases import LOGIT, POINT, REAL, Case, key

from dvae import boltzmann, rbm

PATH = boltzmann.Graph(6, [(0, 1), (2, 1), (2, 3), (4, 3), (4, 5)])  # neighbor lists
DENSE = boltzmann.graphs.complete(3)  # products
CLAMP = np.array([True, False, False, False, True, False])
FEW = {"num_temperatures": 5}


def machine(bias, weights, graph=PATH):
    """A machine of the first entries."""
    bias, weights = bias.ravel()[: graph.num_units], weights.ravel()[: graph.num_edges]
    return boltzmann.Machine(bias, weights, graph)


def units(x):
    """Of six units, two of each."""
    return x.reshape(2, 6)


def bits(x):
    return jnp.round(units(x))


def sum_cases() -> Iterator[tuple[str, Case]]:
    for name, graph in (("", PATH), (", dense", DENSE)):
        shaped = units if graph is PATH else lambda x: x
        for field in ("energy", "logits"):
            f = lambda b, w, z, k=field, g=graph, s=shaped: getattr(boltzmann, k)(
                machine(b, w, g), s(z)
            )
            yield f"boltzmann.{field}{name}", Case(f, (REAL, REAL, POINT), keeps_dtype=False)
    of_machine = {
        "centered_bias": (lambda m: boltzmann.centered_bias(m), False),
        "condition": (lambda m: boltzmann.condition(m, CLAMP, np.ones(6)), False),
        "exact.log_z": (boltzmann.exact.log_z, False),
        "exact.moments": (boltzmann.exact.moments, True),
    }
    for name, (function, keeps) in of_machine.items():
        call = lambda b, w, f=function: f(machine(b, w))
        yield f"boltzmann.{name}", Case(call, (REAL, REAL), keeps_dtype=keeps)
    embed = lambda b, w: boltzmann.from_rbm(rbm.RBM(b[0], b[1], w[:3]))
    yield "boltzmann.from_rbm", Case(embed, (REAL, REAL))


def posterior_cases() -> Iterator[tuple[str, Case]]:
    kl, log_z = boltzmann.kl, jnp.float32(9)
    parts = lambda x: (units(x)[:, :2], units(x)[:, 2:])
    some = lambda x: (units(x)[:, :2], units(x)[:, 2:5])
    groups = ((4, 0), (1, 3, 5))  # unit 2 is hidden
    yield from {
        "boltzmann.kl.hierarchical": Case(
            lambda b, w, x, r: kl.hierarchical(machine(b, w), parts(x), parts(r), log_z),
            (REAL, REAL, LOGIT, LOGIT),
            keeps_dtype=False,
        ),
        "boltzmann.kl.hierarchical, hidden": Case(
            lambda b, w, x, r: kl.hierarchical(
                machine(b, w), some(x), some(r), log_z, groups=groups, samples=np.ones((3, 2, 6))
            ),
            (REAL, REAL, LOGIT, LOGIT),
            keeps_dtype=False,
        ),
        "boltzmann.kl.sample_bits": Case(
            lambda b, w, x, r: kl.sample_bits(
                jax.random.key(0), machine(b, w), some(x), some(r), groups=groups
            ),
            (REAL, REAL, LOGIT, LOGIT),
            differentiable=False,
        ),
        "boltzmann.log_z_with_gradient": Case(
            lambda b, w, z: boltzmann.log_z_with_gradient(machine(b, w), log_z, bits(z)),
            (REAL, REAL, POINT),
            keeps_dtype=False,
        ),
    }.items()


def sampler_cases() -> Iterator[tuple[str, Case]]:

    def stepped(module, graph=PATH, **settings):
        def call(bias, weights):
            m = machine(bias, weights, graph)
            return module.step(key(0), m, module.init(key(1), m, 4, **settings), num_sweeps=2)

        return call

    def clamped(bias, weights, z):
        m, held = machine(bias, weights), {"clamp": CLAMP, "values": bits(z)}
        return boltzmann.gibbs.step(key(0), m, boltzmann.gibbs.init(key(1), m, 2, **held), **held)

    def adapted(bias, weights):
        m = machine(bias, weights)
        state = boltzmann.tempering.init(key(0), m, 4, **FEW)
        state, info = boltzmann.tempering.step(key(1), m, state)
        return boltzmann.tempering.adapt(state, info.swap_rates)

    b = boltzmann
    of_machine = {
        "gibbs.init": lambda m: b.gibbs.init(key(0), m, 4),
        "tempering.init": lambda m: b.tempering.init(key(0), m, 4, **FEW),
        "annealing.init": lambda m: b.annealing.init(key(0), m, 4, **FEW),
        "annealing.anneal": lambda m: b.annealing.anneal(key(0), m, 4, **FEW),
        "ais.log_z": lambda m: b.ais.log_z(key(0), m, num_chains=4, **FEW),
    }
    of_arrays = {
        "gibbs.step": stepped(b.gibbs),
        "gibbs.step, dense": stepped(b.gibbs, DENSE),
        "tempering.step": stepped(b.tempering, **FEW),
        "tempering.adapt": adapted,
        "annealing.step": stepped(b.annealing, **FEW),
        **{n: lambda b, w, f=f: f(machine(b, w)) for n, f in of_machine.items()},
    }
    settings = {"keeps_dtype": None, "differentiable": False}
    for name, function in of_arrays.items():
        yield f"boltzmann.{name}", Case(function, (REAL, REAL), **settings)
    yield "boltzmann.gibbs.step, clamped", Case(clamped, (REAL, REAL, POINT), **settings)


CASES: dict[str, Case] = {
    **dict(sum_cases()),
    **dict(posterior_cases()),
    **dict(sampler_cases()),
}
