"""Progress and records."""

import io
import json
import time

import numpy as np
import pytest

from dvae.train import metrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_progress_shows_step_speed_and_values(monkeypatch, stream) -> None:
    monkeypatch.setattr(metrics.sys, "stderr", stream)
    progress = metrics.Progress(0, 200, images_per_step=32)
    progress.skip_time(10)
    progress.advance(20)
    time.sleep(0.05)
    speed = progress.update(100, {"bits_per_dim": 5.25, "rate": 130.0})
    assert speed["steps_per_second"] < 90 / 0.05, "steps before skip_time do not count"
    progress.note("a note")
    progress.close()
    text = stream.getvalue()
    assert speed["images_per_second"] == pytest.approx(32 * speed["steps_per_second"])
    assert "100/200" in text
    assert "images/s" in text
    assert "bits_per_dim 5.25" in text
    assert "rate 130" in text
    assert "a note" in text
    if not stream.isatty():
        assert "\r" not in text
        assert "left" in text


def test_a_speed_that_was_not_measured_is_not_shown(capsys) -> None:
    progress = metrics.Progress(0, 200, images_per_step=32)
    progress.skip_time(100)  # all steps so far were in the first call
    assert progress.update(100, {"loss": 0.5})["steps_per_second"] == 0
    assert capsys.readouterr().err == "step 100/200  loss 0.5\n"
    progress.update(150, {"loss": 0.25})
    assert " steps/s  " in capsys.readouterr().err


def test_records_of_several_seeds(tmp_path) -> None:
    writer = metrics.MetricsWriter(tmp_path, 0)
    writer.write(3, {"train/loss": np.float32(0.5), "train/rate": np.array([1.0, 2.0])})
    writer.close()
    assert metrics.read_metrics(tmp_path) == [
        {"step": 3, "train/loss": 0.5, "train/rate": [1.0, 2.0]}
    ]


def test_records_beyond_the_checkpoint_are_dropped(tmp_path) -> None:
    for first, steps in ((0, (2, 4, 6)), (4, (6,))):
        writer = metrics.MetricsWriter(tmp_path, first)
        for step in steps:
            writer.write(step, {"a": float(first)})
        writer.close()
    found = metrics.read_metrics(tmp_path)
    assert [(r["step"], r["a"]) for r in found] == [(2, 0.0), (4, 0.0), (6, 4.0)]


def test_validations_are_known_without_reading_the_records_again(tmp_path, monkeypatch) -> None:
    for first, steps in ((0, (2, 4, 6)), (4, (8,))):
        writer = metrics.MetricsWriter(tmp_path, first)
        for step in steps:
            writer.write(step, {"train/loss": 1.0})
            writer.write(step, {"validation/nll": 1.0} if step != 2 else {"train/a": 1.0})
        monkeypatch.setattr(metrics, "read_metrics", None) if first else None
        found = [step for step in range(10) if writer.has_validation(step)]
        assert found == ([4, 8] if first else [4, 6])
        writer.close()


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": 4, "a"',
        b'{"a": 1.0}',
        b'{"step": "4"}',
        b'{"step": true}',
        b"[4]",
        b"\x00\x00\xff\xfe",
        b'{"step": \xff}',
        b"[" * 100_000,
    ],
)
def test_records_end_where_they_are_damaged(tmp_path, damaged) -> None:
    whole = {"step": 2, "validation/a": 1.0}
    path = tmp_path / metrics.METRICS_FILE
    path.write_bytes(json.dumps(whole).encode() + b"\n" + damaged + b'\n{"step": 6}\n')
    assert metrics.read_metrics(tmp_path) == [whole]
    writer = metrics.MetricsWriter(tmp_path, 8)
    writer.write(10, {"a": 3.0})
    writer.close()
    assert writer.has_validation(2)
    assert metrics.read_metrics(tmp_path) == [whole, {"step": 10, "a": 3.0}]


def test_no_records(tmp_path) -> None:
    assert metrics.read_metrics(tmp_path) == []
