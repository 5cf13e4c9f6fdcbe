"""Where numbers go while a model trains: `metrics.jsonl`, TensorBoard and the terminal."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from dvae import _replacing
from dvae.train import status

__all__ = [
    "METRICS_FILE",
    "MetricsWriter",
    "NoMetrics",
    "Progress",
    "read_metrics",
]

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads the records of a run until the first line that is none.

    A kill may cut the last line off, and a crash of the machine leave any bytes behind.

    Args:
      workdir: of the run.

    Returns:
      One dictionary a record, in the order of writing; none if there is no `metrics.jsonl`.
    """
    path = workdir / METRICS_FILE
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                break
            records.append(record)
    return records


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard event files.

    One record a line, {"step": ..., name: value}; several seeds give a list a name, of which
    TensorBoard shows the mean.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        """Opens both outputs.

        Args:
          workdir: of the run.
          first_step: steps done. What an earlier process wrote beyond them will be written again,
            and is dropped.
        """
        kept = [r for r in read_metrics(workdir) if r["step"] <= first_step]
        self._validated = {r["step"] for r in kept if _is_validation(r)}
        path = workdir / METRICS_FILE
        _replacing.replace_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._events = _event_writer(workdir / "tensorboard", first_step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one record.

        Args:
          step: steps done.
          values: scalars, or arrays with one entry a seed, by name.
        """
        record: dict[str, Any] = {"step": step}
        for name, value in values.items():
            array = np.asarray(value, dtype=np.float64)
            record[name] = array.tolist()
            if self._events is not None:
                self._events.add_scalar(name, float(array.mean()), step)
        self._file.write(json.dumps(record) + "\n")
        if _is_validation(record):
            self._validated.add(step)

    def has_validation(self, step: int) -> bool:
        """Returns whether the records hold a validation of `step`."""
        return step in self._validated

    def close(self) -> None:
        """Flushes and closes both outputs."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _is_validation(record: Mapping[str, Any]) -> bool:
    return any(name.startswith("validation/") for name in record)


def _event_writer(folder: Path, first_step: int) -> Any:
    """Returns what writes event files; None, with a line that says so, without tensorboardX."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        status.say(f"no TensorBoard events: tensorboardX is missing; {METRICS_FILE} has them all")
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)


class NoMetrics:
    """The writer of a process whose records another one writes."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Ignores a record."""

    def has_validation(self, step: int) -> bool:
        """Returns True: there is nothing to write."""
        return True

    def close(self) -> None:
        """Does nothing: no output is open."""


class Progress:
    """A live bar in a terminal, plain lines elsewhere, nothing if silent."""

    def __init__(
        self, first_step: int, num_steps: int, images_per_step: int, *, silent: bool = False
    ) -> None:
        """Starts the bar and the measurement of the speed.

        Args:
          first_step: steps done.
          num_steps: of the whole run.
          images_per_step: for the speed in images.
          silent: shows nothing, as all processes of a run but the main one.
        """
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

    @property
    def speed(self) -> float:
        """Steps a second, as last shown; 0 until there is something to measure."""
        return self._speed

    def skip_time(self, step: int) -> None:
        """Measures the speed anew from `step` on, so that the time until now does not count."""
        self._last_step, self._last_time = step, time.perf_counter()

    def advance(self, step: int) -> None:
        """Moves the bar to `step` steps."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def update(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Shows values beside the bar, or in a line.

        Args:
          step: steps done.
          values: what to show, by name.

        Returns:
          `steps_per_second` and `images_per_second` since the last call.
        """
        passed = time.perf_counter() - self._last_time
        if step > self._last_step:
            self._speed = (step - self._last_step) / max(passed, 1e-9)
        images = self._speed * self._images_per_step
        parts = [f"{name} {value:.4g}" for name, value in values.items()]
        if self._speed:  # else all steps were in the first call, whose time is that of compiling
            left = tqdm.format_interval((self._num_steps - step) / self._speed)
            speeds = [f"{self._speed:.3g} steps/s", f"{images:.0f} images/s"]
            parts = [*speeds, *parts, f"{left} left"]
        text = "  ".join(parts)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self.advance(step)
        else:
            self.note(f"step {step}/{self._num_steps}  {text}")
        self.skip_time(step)
        return {"steps_per_second": self._speed, "images_per_second": images}

    def note(self, message: str) -> None:
        """Prints a line without disturbing the bar, unless silent."""
        if not self._silent:
            status.say(message)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
