"""Folders that cannot be written are refused before the data are loaded, and left as they are."""

import dataclasses
import errno
from pathlib import Path

import pytest
import tiny

from experiments.common import workdirs

pytestmark = pytest.mark.usefixtures("one_device")


def test_a_file_is_no_folder(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/run"):
        with pytest.raises(ValueError, match=rf"{place}: .*file is a file; choose another --workd"):
            workdirs.examine(tiny.Config(), tmp_path / place)


@pytest.mark.parametrize(("workdir", "name"), [("new/run", "new."), ("", ".")])
def test_a_folder_in_which_nothing_can_be_made(tmp_path, monkeypatch, workdir, name) -> None:
    assert workdirs.examine(tiny.Config(), tmp_path / workdir) is None
    tried = []

    def refuse(path, *_):
        tried.append(Path(path))
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(workdirs.os, "mkdir", refuse)
    dry = tiny.Config(dry_run=True)
    assert workdirs.examine(dry, tmp_path / workdir) is None
    assert not tried
    with pytest.raises(ValueError, match=rf"{tmp_path} is not writable \(Permission denied\); c"):
        workdirs.examine(dataclasses.replace(dry, dry_run=False), tmp_path / workdir)
    assert tried[0].parent == tmp_path
    assert tried[0].name.startswith(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has this folder")
def test_permissions_are_not_taken_for_an_answer(monkeypatch, capsys) -> None:
    """The administrator may write to /proc, and nothing can be made there."""
    monkeypatch.setattr(tiny, "prepare", lambda *_: pytest.fail("the data were loaded"))
    with pytest.raises(SystemExit) as stopped:
        tiny.run(tiny.Config(workdir="/proc/none/run"))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write to workdir /proc/none/run: /proc is not writable (")
