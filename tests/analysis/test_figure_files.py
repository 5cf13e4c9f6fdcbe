"""Style of all figures, and the files they are saved to."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from test_figures import lines, stack

from dvae.analysis import figures


def test_an_estimator_has_one_color_in_all_figures():
    others = {"mine": [(8, 4.9)], "yours": [(8, 4.8)]}
    alone = lines(figures.bits_per_dim_by_codebook_size({"gs_soft": [(8, 4.6)]}))
    among = lines(figures.bits_per_dim_by_codebook_size({**others, "gs_soft": [(8, 4.6)]}))
    curve = lines(figures.learning_curve({"vq": ([1], [2]), "gs_soft": ([1], [2])}))
    variance = lines(figures.explained_variance({"gs_soft": stack()}))
    same = [alone["gs_soft"], among["gs_soft"], curve["gs_soft, train"], variance["gs_soft"]]
    assert {to_hex(line.get_color()) for line in same} == {"#0072b2"}
    assert len({line.get_color() for line in among.values()}) == 3


def test_the_callers_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    figures.learning_curve({"vq": ([1], [2])})
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported():
    code = "import sys, dvae.analysis; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_save_writes_a_png_and_makes_its_folder(tmp_path):
    figure = figures.learning_curve({"vq": ([1, 2], [2, 1])})
    path = tmp_path / "deep" / "curve.png"
    figures.save(figure, path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        np.testing.assert_array_equal(image.size, 150 * figure.get_size_inches())
        assert len(np.unique(np.asarray(image.convert("L")))) > 10  # not blank
    assert list(path.parent.iterdir()) == [path]
    first = path.read_bytes()
    figures.save(figures.learning_curve({"vq": ([1, 2], [2, 1])}), str(path))
    assert path.read_bytes() == first


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"the old figure")

    def fail_halfway(self, target, **kwargs):
        target.write_bytes(b"half a fig")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        figures.save(Figure(), path)
    assert path.read_bytes() == b"the old figure"
    assert list(tmp_path.iterdir()) == [path]


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, got .*curve\.pdf"):
        figures.save(Figure(), tmp_path / "curve.pdf")
