"""Kills a run with -9 again and again, and compares its end with that of an undisturbed one.

    python benchmarks/soak.py                    # an hour and a bit more, twice
    python benchmarks/soak.py --minutes=2 --kills=3

Both runs are `binary_vae` with a Boltzmann prior (networks, optimizer, Markov chains, the best
parameters so far) on the embedded digits. The result is written to docs/results/soak.json.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments import run_record

OUT = Path(__file__).parents[1] / "docs" / "results" / "soak.json"
COMMAND = (
    *(sys.executable, "-m", "experiments.binary_vae", "--preset=demo", "--prior=rbm"),
    *("--method=dvaepp", "--num_chains=100", "--num_sweeps=10"),
)
CALIBRATION_STEPS = 2_000


def start(workdir: Path, num_steps: int, interval: int) -> subprocess.Popen[bytes]:
    """Starts, or continues, the run."""
    flags = (
        f"--workdir={workdir}",
        f"--num_steps={num_steps}",
        f"--checkpoint_interval={interval}",
        f"--eval_interval={interval}",
    )
    log = (workdir.parent / f"{workdir.name}.log").open("ab")
    return subprocess.Popen([*COMMAND, *flags], stdout=log, stderr=log)


def timed(workdir: Path, num_steps: int, interval: int) -> float:
    """Runs to the end; returns the seconds."""
    began = time.monotonic()
    if start(workdir, num_steps, interval).wait():
        raise RuntimeError(f"the run in {workdir} failed; see the log beside it")
    return time.monotonic() - began


def disturbed(workdir: Path, num_steps: int, interval: int, seconds: float, kills: int) -> int:
    """Runs to the end, killed on the way at random times; returns how often it was."""
    rng, done = random.Random(0), 0
    while True:
        process = start(workdir, num_steps, interval)
        if done >= kills:
            if process.wait():
                raise RuntimeError(f"the run in {workdir} failed; see the log beside it")
            return done
        try:
            # Long enough, on average, for all kills to fall into the run.
            if process.wait(rng.uniform(0.2, 1.8) * seconds / kills):
                raise RuntimeError(f"the run in {workdir} failed; see the log beside it")
            return done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1


def final_state(workdir: Path, step: int) -> list[np.ndarray]:
    """Every array of the last checkpoint."""
    reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    path = (workdir / "checkpoints" / str(step) / "state").absolute()
    return [np.asarray(x) for x in jax.tree.leaves(reader.restore(path))]


def records(workdir: Path) -> list[dict[str, object]]:
    """The metrics, less those of speed."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    unwanted = ("train/steps_per_second", "train/images_per_second")
    return [{k: v for k, v in json.loads(x).items() if k not in unwanted} for x in lines]


def main() -> None:
    """Runs both and compares them bit for bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the undisturbed run")
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    first = timed(folder / "short", CALIBRATION_STEPS, CALIBRATION_STEPS)
    second = timed(folder / "longer", 2 * CALIBRATION_STEPS, CALIBRATION_STEPS)
    rate = CALIBRATION_STEPS / (second - first)  # steps a second, without what every run costs
    interval = max(100, int(60 * rate) // 100 * 100)  # a checkpoint a minute
    num_steps = max(1, round(60 * options.minutes * rate / interval)) * interval
    seconds = timed(folder / "whole", num_steps, interval)
    kills = disturbed(folder / "killed", num_steps, interval, seconds, options.kills)
    pairs = zip(*(final_state(folder / d, num_steps) for d in ("whole", "killed")), strict=True)
    same_state = all(a.tobytes() == b.tobytes() for a, b in pairs)
    summaries = [json.loads((folder / d / "summary.json").read_text()) for d in ("whole", "killed")]
    result = {
        "experiment": " ".join(COMMAND[2:]),
        "num_steps": num_steps,
        "checkpoint_interval": interval,
        "undisturbed_seconds": round(seconds, 1),
        "kills": kills,
        "same_final_state_bit_for_bit": same_state,
        "same_metrics": records(folder / "whole") == records(folder / "killed"),
        "same_test_results": summaries[0]["test"] == summaries[1]["test"],
        "hardware": run_record.describe_hardware(),
    }
    print(json.dumps(result, indent=1))
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
