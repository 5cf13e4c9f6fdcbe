"""What it takes to compile the programs of a `dvaepp` run: CPU seconds and sizes.

    python benchmarks/compile_time.py [--rows=initial_state,step,validation]

The settings are those of a preset, the images noise of its size. Seconds are of user and system
time of all threads. Nothing runs. Writes docs/results/compile_time.json.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _timing import noise

from dvae.train import _compiler, sharding
from experiments.common import records
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import evaluation
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import PRESETS

OUT = Path(__file__).parents[1] / "docs" / "results" / "compile_time.json"
PRESET = "table3_cpu_rbm_normal"
ROWS = ("initial_state", "step", "validation")


def measure(function: Any, *arguments: Any) -> dict[str, Any]:
    """Compiles a jitted function."""
    marks = [time.process_time()]
    lowered = function.lower(*arguments)
    marks.append(time.process_time())
    compiled = lowered.compile()
    marks.append(time.process_time())
    text = compiled.as_text()
    return {
        "trace_and_lower_cpu_seconds": round(marks[1] - marks[0], 1),
        "compile_cpu_seconds": round(marks[2] - marks[1], 1),
        "stablehlo_lines": lowered.as_text().count("\n"),
        "optimized_instructions": len(re.findall(r"^\s+(?:ROOT )?%?\S+ = ", text, re.M)),
        "fusions": len(re.findall(r" fusion\(", text)),
    }


def programs() -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns what measures each program of a run."""
    config = Config(**PRESETS[PRESET])
    images, mesh = noise((28, 28, 1), 2, 500), sharding.make_mesh(1)
    task = dvaepp.make_task(config, images, mesh)
    everywhere = sharding.replicated(mesh)
    state = jax.eval_shape(task.init, task.key_init, task.data)
    quick, of_step = _compiler.quick(mesh), _compiler.of_step(task, mesh)
    init = jax.jit(task.init, out_shardings=everywhere, compiler_options=quick)
    steps = task.call(config.steps_per_call)
    step = jax.jit(steps, donate_argnums=0, out_shardings=everywhere, compiler_options=of_step)

    def validation() -> dict[str, Any]:
        functions = evaluation.Evaluator(config, images, mesh)._functions
        model = {"network": state.params["network"], "prior": state.params["prior"]}
        model["log_z"] = jax.ShapeDtypeStruct((), jnp.float32)
        evaluate = jax.jit(functions.evaluate, static_argnames="num_samples")
        bound = jax.jit(lambda *args: evaluate(*args, num_samples=config.eval_samples))
        return measure(bound, model, jax.random.key(0), images.validation)

    return {
        "initial_state": lambda: measure(init, task.key_init, task.data),
        "step": lambda: measure(step, state, task.data, task.key_train),
        "validation": validation,
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="Programs, comma-separated.")
    rows = parser.parse_args().rows.split(",")
    jax.config.update("jax_enable_compilation_cache", False)
    result: dict[str, Any] = {
        "preset": PRESET,
        "hardware": records.describe_hardware(),
        "versions": records.versions(),
        "programs": {},
    }
    known = programs()
    for row in rows:
        result["programs"][row] = known[row]()
        print(row, result["programs"][row], flush=True)
        OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
