"""Paths that settings name, and files that cannot be written."""

import errno
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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device; make room on the disk and start the same command again",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/a/x.npz"),
            "Disk quota exceeded: /a/x.npz; make room on the disk and start the same command again",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "/a"),
            "Permission denied: /a; allow this user to use it, or choose another place",
        ),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (OSError("123 requested and 45 written"), None),
        (ValueError("no file"), None),
    ],
)
def test_what_is_wrong_with_a_disk(error, line) -> None:
    assert paths.trouble(error) == line
