"""Paths that settings name."""

from pathlib import Path

import pytest

from dvae.train import paths


def test_the_home_directory_is_expanded(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert paths.local("~/runs", "--workdir") == Path("/home/somebody/runs")
    assert paths.local("runs/~", "--workdir") == Path("runs/~")
    assert paths.local("/a/b", "--out") == Path("/a/b")


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://b", "hdfs://x", "file:///tmp/run"])
def test_addresses_are_refused_in_one_line(text) -> None:
    with pytest.raises(ValueError, match=f"--out={text} is an address.*mount") as error:
        paths.local(text, "--out")
    assert "\n" not in str(error.value)


def test_an_unknown_home() -> None:
    with pytest.raises(ValueError, match=r"--out=~nobody-of-this-name/x: the home directory"):
        paths.local("~nobody-of-this-name/x", "--out")
