"""What a run would take: memory, arithmetic and time, measured without training it.

    measured = dry_run.measure(task, config, mesh)
    measured.call_seconds * config.num_steps / config.steps_per_call

Nothing is written. The first steps are made and thrown away.
"""

import itertools
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from dvae.train import _compiler, sharding, status
from dvae.train._schedule import LoopConfig
from dvae.train._task import Task
from dvae.train._timing import Timed, timed

__all__ = ["Measured", "Memory", "measure"]

PyTree = Any
_MIN_CALLS, _MAX_CALLS, _SECONDS = 3, 1_000, 3.0  # of timing


class Memory(NamedTuple):
    """What the compiled call of the step needs on one device, in bytes."""

    state: int  # parameters, optimizer, model state
    data: int  # the training set, or what stands for it
    temporary: int  # activations and the like, while the call runs
    total: int  # of all three, as the compiler lays them out

    @classmethod
    def of(cls, compiled: Any, state: PyTree, data: PyTree) -> "Memory | None":
        """Returns what the compiler says, or None where it does not."""
        found = compiled.memory_analysis()
        if found is None:
            return None
        arguments = found.argument_size_in_bytes + found.output_size_in_bytes
        total = arguments - found.alias_size_in_bytes + found.temp_size_in_bytes
        return cls(_size(state), _size(data), found.temp_size_in_bytes, total)


class Measured(NamedTuple):
    """What a run would take."""

    num_parameters: int  # that the optimizer trains, of all seeds
    memory: Memory | None  # None where the compiler does not say
    flops: float | None  # of a step, loops inside of it counted once; None where unknown
    compile_seconds: float  # of the step, the initial state included
    calls: int  # that were timed
    call_seconds: float  # of `steps_per_call` steps
    validation_seconds: float  # compilation excluded
    validation_fixed_seconds: float  # of them those of `status.fixed_length`
    validation_compile_seconds: float


def measure(task: Task, config: LoopConfig, mesh: Mesh) -> Measured:
    """Compiles a step, makes a few, and validates once.

    Args:
      task: the functions, keys and data.
      config: lengths and intervals; without `eval_interval` nothing is validated.
      mesh: the devices.

    Returns:
      Sizes and times; times are of this machine as busy as it is now.
    """
    silent = jax.process_index() > 0
    began = time.perf_counter()
    everywhere = sharding.replicated(mesh)
    on_devices = lambda x: x if isinstance(x, jax.Array) else sharding.replicate(mesh, x)
    data = jax.tree.map(on_devices, task.data)
    key_init, key_train = sharding.replicate(mesh, (task.key_init, task.key_train))
    with status.phase("compiling the step", silent=silent):
        options = _compiler.quick(mesh)
        init = jax.jit(task.init, out_shardings=everywhere, compiler_options=options)
        state = init(key_init, data)
        num_steps, fed = config.steps_per_call, task.feed is not None
        feed = itertools.repeat(data) if task.feed is None else task.feed(0, num_steps)
        data = next(feed)
        of_step = jax.tree.map(lambda x: x[0], data) if fed and num_steps > 1 else data
        options = _compiler.of_step(task, mesh)
        run = jax.jit(
            task.call(num_steps),
            donate_argnums=0,
            out_shardings=everywhere,
            compiler_options=options,
        )
        compiled = run.lower(state, data, key_train).compile()
        flops = _flops(jax.jit(task.step).lower(state, of_step, key_train))
    memory = Memory.of(compiled, state, data)
    num_parameters = sum(x.size for x in jax.tree.leaves(state.params))
    compile_seconds = time.perf_counter() - began
    with status.phase("timing the step", silent=silent):
        state, _ = jax.block_until_ready(compiled(state, data, key_train))
        began, calls = time.perf_counter(), 0
        while calls < _MIN_CALLS or (calls < _MAX_CALLS and _passed(began) < _SECONDS):
            state, _ = jax.block_until_ready(compiled(state, next(feed), key_train))
            calls += 1
        call_seconds = _passed(began) / calls
    first = validation = Timed(0.0, 0.0, 0.0)
    if config.eval_interval:
        with status.phase("timing a validation", silent=silent):
            first = validation = timed(lambda: task.evaluate(state))
            if first.compiling > first.seconds:  # then tracing may be most of the rest
                validation = timed(lambda: task.evaluate(state))
    return Measured(
        num_parameters,
        memory,
        flops,
        compile_seconds,
        calls,
        call_seconds,
        validation.seconds,
        validation.fixed,
        first.compiling,
    )


def _passed(began: float) -> float:
    return time.perf_counter() - began


def _size(tree: PyTree) -> int:
    """Returns the bytes of arrays on one device; keys are of no weight."""
    arrays = [
        x for x in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    ]
    return sum(x.addressable_shards[0].data.nbytes for x in arrays)


def _flops(lowered: Any) -> float | None:
    """Returns the arithmetic of a lowered function, where it is known."""
    found = lowered.cost_analysis()
    found = found[0] if isinstance(found, list) and found else found
    return float(found["flops"]) if found and found.get("flops", 0) > 0 else None
