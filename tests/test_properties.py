"""Properties of the public functions at values and shapes that hypothesis makes up.

Values: what is finite and inside the documented ranges gives finite values and gradients, in the
dtype that came in. Shapes: batch axes pass through, whatever their number and size, zero included.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dvae import bounds, estimators, rbm, relax, vq
from dvae.distributions import bernoulli, categorical, discretized_logistic, normal

SHAPE = (4, 3)  # of all arrays: a function is compiled once

LOGIT = (-80.0, 80.0)
UNIT = (1e-6, 1 - 1e-6)
POINT = (0.0, 1.0)
BETA = (0.5, 100.0)
TEMPERATURE = (0.1, 10.0)
NATS = (-1e6, 1e6)
REAL = (-1e3, 1e3)
LOG_SCALE = (-15.0, 15.0)


class Case(NamedTuple):
    """A function of float arrays of one shape, and the ranges of their values."""

    function: Callable[..., Any]
    ranges: tuple[tuple[float, float], ...]
    keeps_dtype: bool = True  # otherwise half precision becomes float32


def keyed(function, *first, **settings):
    """Gives a random function the same key at each call."""
    return lambda *arrays: function(jax.random.key(0), *first, *arrays, **settings)


def smoothing_cases():
    for name, module in relax.SMOOTHINGS.items():
        if name == "step":
            continue
        yield f"{name}.icdf", Case(module.icdf, (UNIT, LOGIT, BETA))
        yield f"{name}.sample", Case(keyed(module.sample), (LOGIT, BETA))
        # The power family's density, its derivative, is infinite at the ends.
        inside = UNIT if name == "power" else POINT
        yield f"{name}.cdf", Case(module.cdf, (inside, LOGIT, BETA))
        if hasattr(module, "log_prob"):
            yield f"{name}.log_prob", Case(module.log_prob, (POINT, LOGIT, BETA))
            yield f"{name}.log_ratio", Case(module.log_ratio, (UNIT, BETA))
            yield f"{name}.posterior_logits", Case(module.posterior_logits, (UNIT, LOGIT, BETA))


def estimator_cases():
    f = lambda z: jnp.square(z.sum(-1) - 0.5)
    simple = {
        "reinforce": keyed(estimators.reinforce, f),
        "reinforce_loo": keyed(estimators.reinforce_loo, f, num_samples=3),
        "vimco": keyed(estimators.vimco, f, num_samples=3),
        "muprop": keyed(estimators.muprop, f),
        "rebar": keyed(estimators.rebar, f, temperature=0.5, eta=1.0),
        "disarm": keyed(estimators.disarm, f),
        "exact": functools.partial(estimators.exact, f),
    }
    for name, estimate in simple.items():
        surrogate = lambda logits, e=estimate: getattr(e(logits), "surrogate", e(logits))
        yield f"estimators.{name}", Case(surrogate, (LOGIT,))


def machine(bias, weights):
    return rbm.RBM(bias[0], bias[1], weights[:3])


CASES = {
    **dict(smoothing_cases()),
    **dict(estimator_cases()),
    "binary_concrete.icdf": Case(relax.binary_concrete.icdf, (UNIT, LOGIT, TEMPERATURE)),
    "binary_concrete.log_prob": Case(relax.binary_concrete.log_prob, (UNIT, LOGIT, TEMPERATURE)),
    "gumbel_softmax.sample": Case(
        lambda logits: relax.gumbel_softmax.sample(jax.random.key(0), logits, 0.5), (LOGIT,)
    ),
    "gumbel_softmax.sample, hard": Case(
        lambda logits: relax.gumbel_softmax.sample(jax.random.key(0), logits, 0.5, hard=True),
        (LOGIT,),
    ),
    "gumbel_softmax.log_prob": Case(
        lambda y, logits: relax.gumbel_softmax.log_prob(y, logits, 0.5), (POINT, LOGIT)
    ),
    "straight_through.bernoulli": Case(keyed(relax.straight_through.bernoulli), (LOGIT,)),
    "straight_through.categorical": Case(keyed(relax.straight_through.categorical), (LOGIT,)),
    "bernoulli.log_prob": Case(bernoulli.log_prob, (POINT, LOGIT)),
    "bernoulli.entropy": Case(bernoulli.entropy, (LOGIT,)),
    "bernoulli.kl": Case(bernoulli.kl, (LOGIT, LOGIT)),
    "categorical.log_prob": Case(categorical.log_prob, (POINT, LOGIT)),
    "categorical.entropy": Case(categorical.entropy, (LOGIT,)),
    "categorical.kl": Case(categorical.kl, (LOGIT, LOGIT)),
    "normal.sample": Case(keyed(normal.sample), (REAL, LOG_SCALE)),
    "normal.log_prob": Case(normal.log_prob, (REAL, REAL, LOG_SCALE)),
    "normal.kl": Case(normal.kl, (REAL, LOG_SCALE, REAL, LOG_SCALE)),
    "discretized_logistic.log_prob": Case(
        lambda params: discretized_logistic.log_prob(
            jnp.full((4, 1, 1), 128, jnp.uint8), params[:, None]
        ),
        ((-30.0, 30.0),),
        keeps_dtype=False,
    ),
    "iwae": Case(bounds.iwae, (NATS,)),
    "dreg": Case(bounds.dreg, (NATS,)),
    "elbo": Case(lambda x, kl: bounds.elbo(x[:, 0], kl[:, 0], kl_weight=0.5), (NATS, (0.0, 1e6))),
    "joint_elbo": Case(lambda x, q, p: bounds.joint_elbo(x[:, 0], [q], [p]), (NATS, LOGIT, LOGIT)),
    "balanced_kl": Case(
        lambda kl: bounds.balanced_kl(kl[0], (1, 20, 300), kl_weight=0.3), ((0.0, 1e6),)
    ),
    "free_bits": Case(lambda kl: bounds.free_bits(kl[0], min_nats=0.5), ((0.0, 1e6),)),
    "bits_per_dim": Case(lambda nats: bounds.bits_per_dim(nats, 3072), (NATS,)),
    "rbm.energy": Case(
        lambda b, w, z: rbm.energy(machine(b, w), z, z[::-1]),
        (REAL, REAL, POINT),
        keeps_dtype=False,
    ),
    "rbm.free_energy_1": Case(
        lambda b, w, z: rbm.free_energy_1(machine(b, w), z), (REAL, REAL, POINT), keeps_dtype=False
    ),
    "rbm.exact.log_z": Case(
        lambda b, w: rbm.exact.log_z(machine(b, w)), (REAL, REAL), keeps_dtype=False
    ),
    "rbm.kl.hierarchical": Case(
        lambda b, w, x, r: rbm.kl.hierarchical(machine(b, w), (x, x[::-1]), (r, r), jnp.float32(9)),
        (REAL, REAL, LOGIT, LOGIT),
        keeps_dtype=False,
    ),
    "vq.squared_distances": Case(vq.squared_distances, (REAL, REAL), keeps_dtype=False),
    "vq.straight_through": Case(vq.straight_through, (REAL, REAL)),
    "vq.codebook_loss": Case(vq.codebook_loss, (REAL, REAL), keeps_dtype=False),
}


@functools.cache
def compiled(name: str):
    """Value, and the gradient of its sum in all arguments."""
    case = CASES[name]

    def total(*arrays):
        value = case.function(*arrays)
        return value.astype(jnp.float32).sum(), value

    def both(*arrays):
        gradients, value = jax.grad(total, range(len(arrays)), has_aux=True)(*arrays)
        return value, gradients

    return jax.jit(both)


def arrays_of(case: Case, dtype):
    def rounded(array, high):
        # What is below 1 stays below 1.
        largest = 1 - float(jnp.finfo(dtype).epsneg) if high == UNIT[1] else high
        return jnp.minimum(jnp.asarray(array).astype(dtype), jnp.asarray(largest, dtype))

    return st.tuples(
        *(
            hnp.arrays(
                np.float32,
                SHAPE,
                elements=st.floats(np.float32(low), np.float32(high), width=32),
                fill=st.nothing(),
            ).map(functools.partial(rounded, high=high))
            for low, high in case.ranges
        )
    )


def check_values(name: str, dtype, examples: int) -> None:
    case = CASES[name]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # of twelve numbers each is told; shrinking takes minutes
    )
    @given(arrays_of(case, dtype))
    def run(arrays):
        value, gradients = compiled(name)(*arrays)
        expected = dtype if case.keeps_dtype else jnp.float32
        assert value.dtype == expected
        assert np.all(np.isfinite(value.astype(jnp.float32))), f"value {value} at {arrays}"
        for gradient, array in zip(gradients, arrays, strict=True):
            assert gradient.dtype == array.dtype
            assert np.all(np.isfinite(gradient.astype(jnp.float32))), f"{gradient} at {arrays}"

    run()


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_finite(name) -> None:
    check_values(name, jnp.float32, examples=30)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_half_precision_stays_finite_and_of_its_dtype(name) -> None:
    check_values(name, jnp.bfloat16, examples=30)


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ELEMENTWISE = {
    **{
        f"{name}.icdf": (module.icdf, 3)
        for name, module in relax.SMOOTHINGS.items()
        if name != "step"
    },
    "binary_concrete.icdf": (relax.binary_concrete.icdf, 3),
    "bernoulli.log_prob": (bernoulli.log_prob, 2),
    "bernoulli.entropy": (bernoulli.entropy, 1),
    "bernoulli.kl": (bernoulli.kl, 2),
    "normal.log_prob": (normal.log_prob, 3),
    "normal.kl": (normal.kl, 4),
}
OVER_LAST = {
    "gumbel_softmax.sample": (
        lambda x: relax.gumbel_softmax.sample(jax.random.key(0), x, 0.5),
        False,
    ),
    "categorical.entropy": (categorical.entropy, True),
    "categorical.log_prob": (lambda x: categorical.log_prob(x, x), True),
    "vq.nearest_code": (lambda x: vq.nearest_code(x, jnp.zeros((5, x.shape[-1]), x.dtype)), True),
    "rbm.free_energy_1": (
        lambda x: rbm.free_energy_1(
            rbm.RBM(*(jnp.zeros(s, x.dtype) for s in (x.shape[-1], 2, (x.shape[-1], 2)))), x
        ),
        True,
    ),
}
QUICK = settings(
    max_examples=10, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_broadcast_and_keep_the_wider_dtype(name) -> None:
    function, count = ELEMENTWISE[name]

    @QUICK
    @given(
        hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, min_side=1, max_side=3),
        st.lists(st.sampled_from([jnp.float32, jnp.bfloat16]), min_size=count, max_size=count),
    )
    def run(shapes, dtypes):
        arrays = [jax.ShapeDtypeStruct(*x) for x in zip(shapes.input_shapes, dtypes, strict=True)]
        found = jax.eval_shape(function, *arrays)
        assert found.shape == shapes.result_shape
        # An inverse temperature follows the other two.
        deciding = dtypes[:2] if name.endswith("icdf") else dtypes
        assert found.dtype == jnp.result_type(*deciding)

    run()


@pytest.mark.parametrize("name", OVER_LAST)
def test_batch_axes_pass_through(name) -> None:
    function, reduces = OVER_LAST[name]

    @QUICK
    @given(SHAPES, st.sampled_from([jnp.float32, jnp.bfloat16]))
    def run(batch, dtype):
        found = jax.eval_shape(function, jax.ShapeDtypeStruct((*batch, 3), dtype))
        assert found.shape == (batch if reduces else (*batch, 3))
        wide = name in ("rbm.free_energy_1",)  # a sum over units, float32 at least
        assert found.dtype in (jnp.float32 if wide else dtype, jnp.int32)

    run()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].ranges[-1] == BETA])
@given(beta=st.floats(max_value=0.0, allow_nan=False) | st.just(float("nan")))
@QUICK
def test_a_number_that_is_no_inverse_temperature_is_refused(name, beta) -> None:
    case = CASES[name]
    arrays = [jnp.full(SHAPE, 0.5)] * (len(case.ranges) - 1)
    with pytest.raises(ValueError, match="beta must be positive"):
        case.function(*arrays, beta)
