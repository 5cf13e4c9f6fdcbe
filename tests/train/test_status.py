"""What is said while something takes long."""

import io
import re
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from dvae.train import status


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(status, "DELAY_SECONDS", 0.05)


def test_a_long_phase_is_said_once_before_it_ends(capsys) -> None:
    with status.phase("compiling"):
        for _ in range(200):
            time.sleep(0.02)
            if said := capsys.readouterr().err:
                break
        assert said == "compiling\n"
    assert re.fullmatch(r"compiling: \d\.\d s\n", capsys.readouterr().err)


def test_a_phase_says_how_long_was_compiled(capsys, monkeypatch) -> None:
    before = status.compile_seconds()
    with status.phase("evaluating"):
        jax.jit(lambda x: jnp.sin(x) + before)(1.0)
        found = status.compile_seconds() - before
        monkeypatch.setitem(status._compiled, "seconds", before + 2.5)
        time.sleep(0.1)
    assert 0 < found < 2.5
    assert capsys.readouterr().err.endswith(" s, 2.5 s of it compiling\n")


def test_a_short_or_silent_phase_says_nothing(capsys, monkeypatch) -> None:
    with status.phase("compiling", silent=True):
        time.sleep(0.1)
    monkeypatch.setattr(status, "DELAY_SECONDS", 60.0)
    start = time.monotonic()
    with status.phase("compiling"):
        pass
    assert time.monotonic() - start < 5
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_time(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with status.phase("compiling"):
        time.sleep(1.5)
    text = terminal.getvalue()
    assert "compiling [00:00]" in text
    assert "compiling [00:01]" in text
    assert re.search(r"compiling: 1\.\d s\n", text)


def test_an_error_passes_through(capsys) -> None:
    with pytest.raises(KeyError), status.phase("compiling"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_a_closed_terminal_is_no_error(monkeypatch) -> None:
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Closed())
    status.say("anything")
    with status.phase("compiling"):
        time.sleep(0.2)
