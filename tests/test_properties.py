"""Properties of the public functions at values and shapes that hypothesis makes up.

Values: what is finite and inside the documented ranges gives finite values and gradients, in the
dtype that came in. Shapes: batch axes pass through, whatever their number and size, zero included.
"""

import functools
import inspect
from collections.abc import Iterator

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import property_cases
import property_cases_quantizers
import property_cases_rbm
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from property_cases import BETA, SHAPE, UNIT, Case

from dvae import bounds, distributions, estimators, rbm, relax, vq
from dvae.distributions import bernoulli, categorical, normal

CASES = {
    **property_cases.CASES,
    **property_cases_rbm.CASES,
    **property_cases_quantizers.CASES,
}

# Without floats that could be extreme, or parts of functions that have a case.
WITHOUT_CASE = {
    *("bernoulli.support", "categorical.support", "categorical.all_codes"),
    *("discretized_logistic.num_parameters", "bounds.max_discrete_capacity"),
    *("estimators.nvil_init", "rbm.graph.color"),
    *("step.icdf", "step.sample"),  # thresholds, without a gradient
}


def public_functions() -> Iterator[str]:
    """Names of all, as the keys of `CASES` have them."""
    for package in (bounds, distributions, estimators, rbm, relax, vq):
        name = package.__name__.removeprefix("dvae.")
        members = {key: getattr(package, key) for key in package.__all__}
        functions = {
            key: value
            for key, value in members.items()
            if callable(value) and not inspect.isclass(value)
        }
        yield from (f"{name}.{key}" for key in functions)
        for module_name, module in members.items():
            if not inspect.ismodule(module):
                continue
            short = f"rbm.{module_name}" if package is rbm else module_name
            for key in module.__all__:
                value = getattr(module, key)
                if inspect.isfunction(value) and value not in functions.values():
                    yield f"{short}.{key}"


def test_every_public_function_has_a_case() -> None:
    public = set(public_functions())
    covered = {name.split(",")[0] for name in CASES}
    assert public - covered == WITHOUT_CASE
    assert not covered - public, "a case of what is not there"


def floats(tree) -> list[jax.Array]:
    """The leaves of floating point."""
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


@functools.cache
def compiled(name: str):
    """Value, and the gradient of the sum of its floats in all arguments."""
    case = CASES[name]
    if not case.differentiable:
        return jax.jit(lambda *arrays: (case.function(*arrays), ()))

    def total(*arrays):
        value = case.function(*arrays)
        return sum(x.astype(jnp.float32).sum() for x in floats(value)), value

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
        allowed = {True: (dtype,), False: (jnp.float32,), None: (dtype, jnp.float32)}
        for leaf in floats(value):
            assert leaf.dtype in allowed[case.keeps_dtype]
            assert np.all(np.isfinite(leaf.astype(jnp.float32))), f"value {value} at {arrays}"
        for gradient, array in zip(gradients, arrays, strict=case.differentiable):
            assert gradient.dtype == array.dtype
            assert np.all(np.isfinite(gradient.astype(jnp.float32))), f"{gradient} at {arrays}"

    run()


@pytest.mark.many_cases(every=10)
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


@pytest.mark.many_cases
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


@pytest.mark.many_cases
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].ranges[-1] == BETA])
@given(beta=st.floats(max_value=0.0, allow_nan=False) | st.just(float("nan")))
@QUICK
def test_a_number_that_is_no_inverse_temperature_is_refused(name, beta) -> None:
    case = CASES[name]
    arrays = [jnp.full(SHAPE, 0.5)] * (len(case.ranges) - 1)
    with pytest.raises(ValueError, match="beta must be positive"):
        case.function(*arrays, beta)
