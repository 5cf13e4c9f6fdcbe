"""The image compressor, as functions and from the command line."""

import io
import json
import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments import vq_compress

PHOTO = load_sample_image("china.jpg")[100:160, 200:300]
TINY = np.random.default_rng(0).integers(0, 2, (9, 7, 3), np.uint8) * 201  # at most 8 colors


def compress(image, num_codes, patch_size=1):
    return vq_compress.compress(
        jax.random.key(0), image, num_codes=num_codes, patch_size=patch_size, num_iters=8
    )


def by_hand(num_codes, patch_size, shape):
    """A Compressed of random codes."""
    rng = np.random.default_rng(1)
    codebook = rng.integers(0, 256, (num_codes, patch_size, patch_size, 3), np.uint8)
    codes = rng.integers(0, num_codes, shape)
    image = np.block([[[codebook[code]] for code in row] for row in codes])
    return vq_compress.Compressed(image, codes.astype(np.int32), codebook)


@pytest.mark.thorough
def test_quality_grows_with_the_codebook():
    results = [compress(PHOTO, num_codes) for num_codes in (2, 16)]
    quality = [vq_compress.psnr(PHOTO, result.image) for result in results]
    assert quality[0] + 5 < quality[1]
    assert results[1].image.shape == PHOTO.shape
    assert results[1].image.dtype == np.uint8
    assert results[1].codebook.shape == (16, 1, 1, 3)


@pytest.mark.thorough
def test_as_many_codes_as_colors_is_lossless():
    assert len(np.unique(TINY.reshape(-1, 3), axis=0)) == 8
    result = compress(TINY, 11)
    np.testing.assert_array_equal(result.image, TINY)
    assert vq_compress.psnr(TINY, result.image) == math.inf


@pytest.mark.thorough
def test_patches_are_put_back_where_they_were():  # the width, 7, needs padding
    result = compress(TINY, num_codes=9, patch_size=3)  # one code per patch
    assert result.codes.shape == (3, 3)
    np.testing.assert_array_equal(result.image, TINY)


def test_psnr_of_a_known_error():
    shifted = (PHOTO.astype(int) + np.where(PHOTO > 127, -5, 5)).astype(np.uint8)
    np.testing.assert_allclose(vq_compress.psnr(PHOTO, shifted), 20 * math.log10(255 / 5))


def test_rates_count_codes_entropy_and_codebook():
    codes = np.array([[0, 0, 1], [0, 0, 2]], np.int32)
    image = np.zeros((4, 6, 3), np.uint8)
    rate = vq_compress.rates(vq_compress.Compressed(image, codes, np.zeros((4, 2, 2, 3), np.uint8)))
    p = np.array([4, 1, 1]) / 6
    np.testing.assert_allclose(rate.codes, 2 / 4)  # log2(C) / p^2
    np.testing.assert_allclose(rate.entropy, -(p * np.log2(p)).sum() / 4, rtol=1e-6)
    np.testing.assert_allclose(rate.codebook, 4 * 12 * 8 / 24)


@pytest.mark.thorough
@pytest.mark.parametrize(("num_codes", "mode"), [(5, "P"), (300, "RGB")])
def test_compressed_png_shows_the_compressed_image(tmp_path, num_codes, mode):
    result = by_hand(num_codes, 1, (30, 40))
    num_bytes = vq_compress.save_png(tmp_path / "x.png", result)
    assert num_bytes == (tmp_path / "x.png").stat().st_size
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), result.image)


@pytest.mark.thorough
@pytest.mark.parametrize("patch_size", [1, 3])
def test_the_drawing_shows_every_code(patch_size):
    result = by_hand(8, patch_size, (9, 7))
    figure = vq_compress.draw(result.image, result)
    figure.savefig(io.BytesIO(), format="png")
    mosaic = figure.axes[2].images[0].get_array()
    drawn = {tuple(color) for color in np.asarray(mosaic).reshape(-1, 3)}
    assert drawn >= {tuple(color) for color in result.codebook.reshape(-1, 3)}


BAD = [
    ({"num_codes": 64}, "num_codes must be between 1 and 63, .* got 64"),
    ({"num_codes": 7, "patch_size": 3}, None),
    ({"num_codes": 10, "patch_size": 3}, "num_codes must be between 1 and 9, .* got 10"),
    ({"patch_size": 8}, "patch_size must be between 1 and 7, .* got 8"),
]


@pytest.mark.parametrize("name", ["num_codes", "patch_size", "num_iters"])
def test_settings_that_suit_no_image_are_refused_before_one_is_loaded(name):
    with pytest.raises(ValueError, match=f"--{name}=0 must be at least 1"):
        vq_compress.Config(**{name: 0})


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_fail_before_anything_is_written(tmp_path, settings, message):
    Image.fromarray(TINY).save(tmp_path / "tiny.png")
    workdir = tmp_path / "new"
    config = vq_compress.Config(workdir=str(workdir), **settings)
    if message is None:
        vq_compress.prepare(config, str(tmp_path / "tiny.png"))
        assert workdir.is_dir()
        return
    with pytest.raises(ValueError, match=message):
        vq_compress.prepare(config, str(tmp_path / "tiny.png"))
    assert not workdir.exists()


def test_unusable_files_are_named(tmp_path):
    Image.fromarray(TINY).save(tmp_path / "tiny.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    config = vq_compress.Config(workdir=str(tmp_path / "new"))
    with pytest.raises(ValueError, match=r"cannot read .*none\.png: No such file"):
        vq_compress.prepare(config, str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match=r"text\.png is no image"):
        vq_compress.prepare(config, str(text))
    with pytest.raises(ValueError, match=r"cannot write to .*text\.png: .*--workdir"):
        vq_compress.prepare(vq_compress.Config(workdir=str(text)), str(tmp_path / "tiny.png"))


TRANSPARENT = np.dstack([TINY, np.where(TINY[..., :1] > 0, 255, 100).astype(np.uint8)])
GRAY16 = (np.arange(63, dtype=np.uint16) * 1040).reshape(9, 7)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("picture", "suffix", "notes"),
    [
        (Image.fromarray(TINY), "png", []),
        (Image.fromarray(TINY[..., 0]), "png", []),
        (Image.fromarray(TRANSPARENT), "png", ["transparent pixels are laid on white"]),
        (Image.fromarray(np.dstack([TINY, 0 * TINY[..., :1] + 255])), "png", []),
        (Image.fromarray(GRAY16), "png", ["16 bits a channel are reduced to 8"]),
        (Image.fromarray(TINY).convert("CMYK"), "tiff", ["CMYK is converted to RGB"]),
        (Image.fromarray(TINY).convert("P"), "png", []),
        (Image.fromarray(TINY).convert("1"), "png", []),
    ],
    ids=["RGB", "L", "RGBA", "opaque", "16 bits", "CMYK", "P", "1"],
)
def test_what_is_changed_in_an_image_is_said(tmp_path, capsys, picture, suffix, notes):
    path = tmp_path / f"picture.{suffix}"
    picture.save(path)
    loaded = vq_compress.image_files.load(str(path))
    assert loaded.notes == notes
    assert loaded.pixels.shape == TINY.shape
    assert loaded.pixels.dtype == np.uint8
    config = vq_compress.Config(workdir=str(tmp_path), num_codes=2, num_iters=1)
    assert vq_compress.run(config, loaded, "picture")["notes"] == notes
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert told == [f"note: {note}" for note in notes]


def test_transparency_and_sixteen_bits_have_their_values(tmp_path):
    Image.fromarray(TRANSPARENT).save(tmp_path / "a.png")
    alpha = TRANSPARENT[..., 3:] / 255
    expected = alpha * TINY + (1 - alpha) * 255
    found = vq_compress.image_files.load(str(tmp_path / "a.png")).pixels
    np.testing.assert_allclose(found, expected, atol=1)
    Image.fromarray(GRAY16).save(tmp_path / "b.png")
    gray = vq_compress.image_files.load(str(tmp_path / "b.png")).pixels
    np.testing.assert_array_equal(gray[..., 0], np.rint(GRAY16 / 257))
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])


def test_frames_and_deeper_pixels(tmp_path):
    frames = [Image.fromarray(TINY + np.uint8(i)) for i in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (
        "the first of 3 frames is taken"
        in vq_compress.image_files.load(str(tmp_path / "x.gif")).notes
    )
    Image.fromarray(GRAY16.astype(np.int32) * 70_000).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match="beyond 16 bits; scale them"):
        vq_compress.image_files.load(str(tmp_path / "x.tiff"))
    Image.fromarray(GRAY16.astype(np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(ValueError, match="mode F, not 8 or 16 bits a channel"):
        vq_compress.image_files.load(str(tmp_path / "f.tiff"))


def command(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "experiments.vq_compress", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.thorough
def test_command_line(tmp_path):
    Image.fromarray(TINY).save(tmp_path / "tiny.png")
    workdir = tmp_path / "out"
    done = command(str(tmp_path / "tiny.png"), "--num_codes=8", f"--out={workdir}")
    assert done.returncode == 0, done.stderr
    assert "lossless" in done.stdout
    summary = json.loads((workdir / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["lossless"]
    assert summary["psnr_db"] is None
    assert summary["bits_per_pixel_codes"] == 3
    np.testing.assert_allclose(summary["bits_per_pixel_codes_and_codebook"], 3 + 8 * 3 * 8 / 63)
    assert summary["compressed_png_bytes"] == (workdir / "compressed.png").stat().st_size
    with Image.open(workdir / "comparison.png") as picture:
        assert picture.width > 500


@pytest.mark.thorough
def test_command_line_mistakes_end_in_one_line(tmp_path):
    done = command(str(tmp_path / "none.png"), f"--workdir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
