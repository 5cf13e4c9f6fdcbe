"""With which options a task is compiled."""

import jax
import optax
import pytest
from resuming import walk

from dvae.train import _compiler, sharding

QUICK = {"xla_backend_optimization_level": 1}
OF_STEP = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_copy_insertion_use_region_analysis": True,
}


@pytest.mark.parametrize(("is_large", "level"), [(True, QUICK), (False, {})])
def test_the_step_of_a_large_program_is_compiled_soon(is_large, level, monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    task, mesh = walk(optax.adam(0.1))._replace(quick_to_compile=is_large), sharding.make_mesh(1)
    assert _compiler.of_step(task, mesh) == {**OF_STEP, **level}
    assert _compiler.quick(mesh) == QUICK
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert _compiler.quick(mesh) is None, "what the user asks for stays"
    assert _compiler.of_step(task, mesh) == OF_STEP
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    rest = {"xla_cpu_copy_insertion_use_region_analysis": True}
    assert _compiler.of_step(task, mesh) == {**rest, **level}


def test_options_that_xla_lacks_are_left_out(monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(_compiler, "_OF_STEP", {**OF_STEP, "xla_cpu_no_such_option": True})
    task, mesh = walk(optax.adam(0.1)), sharding.make_mesh(1)
    options = _compiler.of_step(task, mesh)
    assert options == OF_STEP
    jax.jit(lambda x: x + 1, compiler_options=options)(1.0)


def test_mistaken_values_are_not_taken_for_unknown_options(monkeypatch) -> None:
    monkeypatch.setattr(_compiler, "_OF_STEP", {"xla_cpu_prefer_vector_width": "wide"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_cpu_prefer_vector_width"):
        _compiler.of_step(walk(optax.adam(0.1)), sharding.make_mesh(1))
