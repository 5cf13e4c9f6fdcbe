"""Where numbers go while a model trains: `metrics.jsonl`, TensorBoard and the terminal."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from dvae.train import status

__all__ = [
    "METRICS_FILE",
    "MetricsWriter",
    "NoMetrics",
    "Progress",
    "has_validation",
    "read_metrics",
]

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`; a last line cut off by a kill is left out."""
    path = workdir / METRICS_FILE
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def has_validation(workdir: Path, step: int) -> bool:
    """Tells whether the records hold a validation of `step`."""
    records = (record for record in read_metrics(workdir) if record["step"] == step)
    return any(name.startswith("validation/") for record in records for name in record)


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard event files.

    One record a line, {"step": ..., name: value}; several seeds give a list a name, of which
    TensorBoard shows the mean. What an earlier process wrote beyond `first_step` will be written
    again, and is dropped.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        """Opens the files, without the records beyond `first_step`."""
        kept = [r for r in read_metrics(workdir) if r["step"] <= first_step]
        path = workdir / METRICS_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(
            "".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8"
        )
        os.replace(temporary, path)
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one record of scalars, or of arrays with one entry a seed."""
        record: dict[str, Any] = {"step": step}
        for name, value in values.items():
            array = np.asarray(value, dtype=np.float64)
            record[name] = array.tolist()
            self._events.add_scalar(name, float(array.mean()), step)
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Flushes both outputs."""
        self._file.close()
        self._events.close()


class NoMetrics:
    """The writer of a process whose records another one writes."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Progress:
    """A live bar in a terminal, plain lines elsewhere, nothing if silent."""

    def __init__(
        self, first_step: int, num_steps: int, images_per_step: int, *, silent: bool = False
    ) -> None:
        """Starts the display at `first_step` of `num_steps`."""
        self._silent = silent
        self._images_per_step = images_per_step
        self._num_steps = num_steps
        self._speed = 0.0  # steps a second; 0 until there is something to measure
        self._last_step = first_step
        self._last_time = self.created = time.perf_counter()
        self._stream: TextIO = sys.stderr
        # tqdm's own speed would count compilation and validation; ours is in the postfix.
        layout = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self._bar = (
            tqdm(total=num_steps, initial=first_step, dynamic_ncols=True, bar_format=layout)
            if self._stream.isatty() and not silent
            else None
        )

    def skip_time(self, step: int) -> None:
        """Measures the speed from here on, so that what lies behind does not count into it."""
        self._last_step, self._last_time = step, time.perf_counter()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def update(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Shows the values after `step` steps; returns the speed since the last call."""
        passed = time.perf_counter() - self._last_time
        if step > self._last_step:
            self._speed = (step - self._last_step) / max(passed, 1e-9)
        left = tqdm.format_interval((self._num_steps - step) / self._speed) if self._speed else "?"
        images = self._speed * self._images_per_step
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        text = f"{self._speed:.3g} steps/s  {images:.0f} images/s  {shown}  {left} left"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self.advance(step)
        else:
            self.note(f"step {step}/{self._num_steps}  {text}")
        self.skip_time(step)
        return {"steps_per_second": self._speed, "images_per_second": images}

    def note(self, message: str) -> None:
        """Prints a line without disturbing the bar."""
        if not self._silent:
            status.say(message)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
