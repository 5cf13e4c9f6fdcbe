"""Kills a run with -9 again and again, and compares its end with that of an undisturbed one.

    python benchmarks/soak.py                    # an hour and a bit more, twice
    python benchmarks/soak.py --minutes=2 --kills=3
    python benchmarks/soak.py --minutes=75 --undisturbed=DIR --command="cifar_vq --preset=small"

The last form compares with a run in DIR that has ended, or is going on, of the command given.

Unless a run is named, both are `binary_vae` with a Boltzmann prior (networks, optimizer, Markov
chains, the best parameters so far) on the embedded digits. The result is written to
docs/results/soak.json.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.common import records

OUT = Path(__file__).parents[1] / "docs" / "results" / "soak.json"
COMMAND = (
    *("binary_vae", "--preset=demo", "--prior=rbm"),
    *("--method=dvaepp", "--num_chains=100", "--num_sweeps=10"),
)
CALIBRATION_STEPS = 2_000


@dataclass(frozen=True)
class Run:
    """A command of the experiments and its length."""

    command: tuple[str, ...]
    num_steps: int
    interval: int  # steps between checkpoints

    def start(self, workdir: Path) -> subprocess.Popen[bytes]:
        """Starts, or continues, the run."""
        name, *flags = self.command
        flags += [
            f"--workdir={workdir}",
            f"--num_steps={self.num_steps}",
            f"--checkpoint_interval={self.interval}",
        ]
        command = [sys.executable, "-m", f"experiments.{name}", *flags]
        with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def finish(self, workdir: Path) -> None:
        """Runs to the end."""
        check(self.start(workdir).wait(), workdir)

    def disturbed(self, workdir: Path, seconds: float, kills: int) -> int:
        """Runs to the end, killed on the way at random times; returns how often it was."""
        rng = random.Random(0)
        for done in range(kills):
            process = self.start(workdir)
            try:
                # Long enough, on average, for all kills to fall into the run.
                check(process.wait(rng.uniform(0.2, 1.8) * seconds / kills), workdir)
                return done
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self.finish(workdir)
        return kills


def check(returncode: int, workdir: Path) -> None:
    """Raises RuntimeError for a run that ended otherwise than well."""
    if returncode:
        raise RuntimeError(f"the run in {workdir} failed; see the log beside it")


def calibrated(folder: Path, minutes: float) -> Run:
    """Returns a run of about so many minutes, with a checkpoint a minute."""
    times = []
    for factor in (1, 2):
        began = time.monotonic()
        short = Run(COMMAND, factor * CALIBRATION_STEPS, CALIBRATION_STEPS)
        short.finish(folder / f"calibration{factor}")
        times.append(time.monotonic() - began)
    rate = CALIBRATION_STEPS / (times[1] - times[0])  # steps a second, without what all runs cost
    interval = max(100, int(60 * rate) // 100 * 100)
    num_steps = max(1, round(60 * minutes * rate / interval)) * interval
    return Run((*COMMAND, f"--eval_interval={interval}"), num_steps, interval)


def like(workdir: Path, command: str, minutes: float) -> Run:
    """Returns the run in `workdir`, with a checkpoint a minute if it takes so many minutes."""
    config = json.loads((workdir / "config.json").read_text())
    interval = max(1, int(config["num_steps"] / minutes / config["steps_per_call"]))
    return Run(tuple(command.split()), config["num_steps"], interval * config["steps_per_call"])


def final_state(workdir: Path, step: int) -> list[np.ndarray]:
    """Every array of the last checkpoint."""
    reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    path = (workdir / "checkpoints" / str(step) / "state").absolute()
    return [np.asarray(x) for x in jax.tree.leaves(reader.restore(path))]


def metrics_of(workdir: Path) -> dict[tuple[int, int], dict[str, object]]:
    """The metrics, less those of speed, by the steps that they are of, first and last."""
    unwanted = ("train/steps_per_second", "train/images_per_second")
    found, last = {}, 0
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = {k: v for k, v in json.loads(line).items() if k not in unwanted}
        step = record["step"]
        if "train/loss" not in record:  # a validation
            found[step, step] = record
            continue
        found[last + 1, step] = record
        last = step
    return found


def compare(whole: Path, killed: Path, num_steps: int) -> dict[str, object]:
    """What the two runs ended with; metrics where they are means over the same steps.

    A checkpoint ends a record, so runs with other intervals share but some.
    """
    pairs = zip(*(final_state(d, num_steps) for d in (whole, killed)), strict=True)
    tests = [json.loads((d / "summary.json").read_text())["test"] for d in (whole, killed)]
    metrics = [metrics_of(d) for d in (whole, killed)]
    shared = metrics[0].keys() & metrics[1].keys()
    return {
        "same_final_state_bit_for_bit": all(a.tobytes() == b.tobytes() for a, b in pairs),
        "same_test_results": tests[0] == tests[1],
        "same_metrics": all(metrics[0][key] == metrics[1][key] for key in shared),
        "metrics_records_compared": f"{len(shared)} of {len(metrics[0])}",
    }


def main() -> None:
    """Runs both and compares them bit for bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the undisturbed run")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--undisturbed", type=Path, help="workdir of a run to compare with")
    parser.add_argument("--command", default="", help="of that run: experiment and flags")
    options = parser.parse_args()
    if bool(options.undisturbed) != bool(options.command):
        parser.error("--undisturbed and --command go together")
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    whole, killed = options.undisturbed or folder / "whole", folder / "killed"
    if options.undisturbed:
        run = like(whole, options.command, options.minutes)
    else:
        run = calibrated(folder, options.minutes)
        run.finish(whole)
    began = time.monotonic()
    kills = run.disturbed(killed, 60 * options.minutes, options.kills)
    seconds = time.monotonic() - began
    while not (whole / "summary.json").exists():  # a run that is still going on
        time.sleep(10)
    result = {
        "experiment": " ".join(run.command),
        "num_steps": run.num_steps,
        "checkpoint_interval": run.interval,
        "kills": kills,
        "disturbed_seconds": round(seconds, 1),
        "undisturbed_seconds": json.loads((whole / "summary.json").read_text())["wall_seconds"],
        **compare(whole, killed, run.num_steps),
        "hardware": records.describe_hardware(),
    }
    print(json.dumps(result, indent=1))
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
