"""With which options a task is compiled."""

import optax
import pytest
from resuming import walk

from dvae.train import _compiler, sharding


@pytest.mark.parametrize(
    ("is_large", "level"), [(True, {"xla_backend_optimization_level": 1}), (False, None)]
)
def test_the_step_of_a_large_program_is_compiled_soon(is_large, level, monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    task, mesh = walk(optax.adam(0.1))._replace(quick_to_compile=is_large), sharding.make_mesh(1)
    assert _compiler.of_step(task, mesh) == level
    assert _compiler.quick(mesh) == {"xla_backend_optimization_level": 1}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert _compiler.of_step(task, mesh) is None, "what the user asks for stays"
