"""Compresses one image by vector quantization: k-means on its pixels, or on its p x p patches.

    python -m experiments.vq_compress                        # a sample photograph, 16 colors
    python -m experiments.vq_compress photo.jpg --num_codes=64 --patch_size=4

Every pixel (or patch) is replaced by the nearest of C codes, so that log2(C) bits name it; the
codes themselves, 8 bits a channel, are the palette that the decoder needs besides. The folder of
the results, --workdir or --out, receives

    comparison.png    the original, the compressed image and the palette side by side
    compressed.png    the compressed image (a true palette PNG for pixels and at most 256 codes)
    summary.json      the rates in bits/pixel, the PSNR in dB, and the settings
"""

import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image

from dvae import vq
from dvae._replacing import replace_text, replacing
from dvae.train import paths
from experiments.common import flag_help, flags
from experiments.common import images as image_files
from experiments.common.flags import option


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run."""

    num_codes: int = option(16, "Codes in the codebook: colors, or patches.", minimum=1)
    patch_size: int = option(1, "Side of a patch in pixels; 1: single pixels.", minimum=1)
    num_iters: int = option(20, "Lloyd iterations.", minimum=1)
    seed: int = option(
        0, "Seed of the k-means++ initialization.", minimum=0, maximum=flags.MAX_SEED
    )
    workdir: str = option("runs/vq_compress", "Folder of the results.", path=True, alias="out")

    def __post_init__(self) -> None:
        """Raises ValueError for a setting that suits no image."""
        flags.check_fields(self)


class Compressed(NamedTuple):
    """A vector-quantized image."""

    image: np.ndarray  # [H, W, 3], uint8: the reconstruction
    codes: np.ndarray  # [ceil(H / p), ceil(W / p)], int32: the code of every patch
    codebook: np.ndarray  # [C, p, p, 3], uint8: the patch that each code stands for


class Rates(NamedTuple):
    """What the compressed image costs, in bits per pixel of the original (which costs 24)."""

    codes: float  # log2(C) for every patch
    entropy: float  # the same, were the codes entropy coded by their frequencies
    codebook: float  # 8 bits for every number in the codebook


def check_settings(
    shape: tuple[int, ...], *, num_codes: int, patch_size: int, num_iters: int
) -> None:
    """Raises ValueError unless an image of this shape can be compressed with these settings."""
    height, width = shape[:2]
    if not 1 <= patch_size <= min(height, width):
        raise ValueError(
            f"--patch_size must be between 1 and {min(height, width)}, the shorter side of the "
            f"{width} x {height} image, got {patch_size}"
        )
    num_patches = math.ceil(height / patch_size) * math.ceil(width / patch_size)
    if not 1 <= num_codes <= num_patches:
        raise ValueError(
            f"--num_codes must be between 1 and {num_patches}, the number of {patch_size} x "
            f"{patch_size} patches of the {width} x {height} image, got {num_codes}"
        )
    if num_iters < 1:
        raise ValueError(f"--num_iters must be at least 1 (20 is usual), got {num_iters}")


def compress(
    key: jax.Array, image: np.ndarray, *, num_codes: int, patch_size: int, num_iters: int
) -> Compressed:
    """Quantizes the p x p patches of an image by k-means.

    Edge pixels are repeated to fill the last row and column of patches, and cut off again.

    Args:
        key: typed PRNG key, for the k-means++ seeds.
        image: [H, W, 3], uint8.
        num_codes: C, at most the number of patches.
        patch_size: p, in pixels, at most H and W.
        num_iters: Lloyd iterations.

    Returns:
        Compressed. The codebook is rounded to uint8 once; the image is made of the rounded codes.

    Raises:
        ValueError: a setting does not suit the image, see `check_settings`.
    """
    check_settings(image.shape, num_codes=num_codes, patch_size=patch_size, num_iters=num_iters)
    height, width = image.shape[:2]
    p = patch_size
    padded = np.pad(image, ((0, -height % p), (0, -width % p), (0, 0)), mode="edge")
    rows, cols = padded.shape[0] // p, padded.shape[1] // p
    patches = padded.reshape(rows, p, cols, p, 3).swapaxes(1, 2).reshape(rows * cols, -1)
    centers, nearest = vq.kmeans(
        key, jnp.asarray(patches), num_codes=num_codes, num_iters=num_iters
    )
    codebook = np.asarray(jnp.clip(jnp.round(centers), 0, 255).astype(jnp.uint8))
    codebook = codebook.reshape(num_codes, p, p, 3)
    codes = np.asarray(nearest).reshape(rows, cols)
    decoded = codebook[codes].swapaxes(1, 2).reshape(padded.shape)
    return Compressed(decoded[:height, :width], codes, codebook)


def rates(compressed: Compressed) -> Rates:
    """Computes the rates of a compressed image in bits/pixel."""
    height, width = compressed.image.shape[:2]
    num_codes = len(compressed.codebook)
    patches_per_pixel = compressed.codes.size / (height * width)
    perplexity = vq.perplexity(vq.usage(jnp.asarray(compressed.codes), num_codes))
    return Rates(
        codes=math.log2(num_codes) * patches_per_pixel,
        entropy=math.log2(float(perplexity)) * patches_per_pixel,
        codebook=8 * compressed.codebook.size / (height * width),
    )


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Computes 10 log10(255^2 / mean squared error) of two uint8 images, in dB; inf if equal."""
    error = float(np.mean(np.square(image.astype(np.float64) - other.astype(np.float64))))
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _describe_psnr(decibels: float) -> str:
    return "lossless" if math.isinf(decibels) else f"PSNR {decibels:.1f} dB"


def _mosaic(compressed: Compressed, aspect: float) -> np.ndarray:
    """The codes from dark to light as tiles on white, in a grid of about the given aspect."""
    codebook = compressed.codebook
    num_codes, p = codebook.shape[:2]
    order = np.argsort(codebook.mean(axis=(1, 2)) @ [0.299, 0.587, 0.114], kind="stable")
    columns = min(num_codes, math.ceil(math.sqrt(num_codes * aspect)))
    scale = max(1, min(24, 1024 // columns) // p)  # pixels of the drawing per pixel of a code
    gap = max(1, scale * p // 8)
    tile = scale * p + gap
    grid_rows = math.ceil(num_codes / columns)
    canvas = np.full((grid_rows * tile - gap, columns * tile - gap, 3), 255, np.uint8)
    for position, code in enumerate(order):
        top, left = position // columns * tile, position % columns * tile
        drawn = codebook[code].repeat(scale, axis=0).repeat(scale, axis=1)
        canvas[top : top + scale * p, left : left + scale * p] = drawn
    return canvas


def _show(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, interpolation="nearest" if pixels.shape[1] < 400 else "antialiased")
    axes.set_title(title, loc="left", fontsize=11, color="0.2", linespacing=1.4)
    axes.set_axis_off()
    axes.set_anchor("NW")


def draw(image: np.ndarray, compressed: Compressed) -> Figure:
    """Draws the original, the compressed image and its codebook side by side."""
    height, width = image.shape[:2]
    num_codes, p = compressed.codebook.shape[:2]
    rate = rates(compressed)
    quality = _describe_psnr(psnr(image, compressed.image))
    panel = 4.6  # inches, height of an image
    image_width = min(max(panel * width / height, 3.6), 9.0)  # room for the titles
    figure = Figure(figsize=(2.45 * image_width + 0.6, panel + 0.9), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 0.4])
    figure.subplots_adjust(left=0.015, right=0.985, top=0.87, bottom=0.02, wspace=0.04)
    unit = "colors" if p == 1 else f"patches of {p} x {p} pixels"
    _show(axes[0], image, f"original, {width} x {height}\n24 bits/pixel")
    _show(
        axes[1],
        compressed.image,
        f"{num_codes} {unit}, {quality}\n"
        f"{rate.codes:.3g} bits/pixel + {rate.codebook:.2g} for the codebook",
    )
    _show(axes[2], _mosaic(compressed, 0.4 * width / height), "codebook\ndark to light")
    return figure


def save_png(path: Path, compressed: Compressed) -> int:
    """Writes the compressed image, a palette PNG where it can be one; returns its size in bytes."""
    codebook = compressed.codebook
    if codebook.shape[1] == 1 and len(codebook) <= 256:
        picture = Image.fromarray(compressed.codes.astype(np.uint8))
        picture.putpalette(codebook.tobytes())
    else:
        picture = Image.fromarray(compressed.image)
    with replacing(path) as part:
        picture.save(part, format="PNG", optimize=True)
    return path.stat().st_size


def prepare(config: Config, path: str | None) -> image_files.Loaded:
    """Loads the image and checks everything that could fail later, before anything is compiled.

    Without a path the image is scikit-learn's photograph china.jpg.

    Raises:
        ValueError: the image cannot be read, a setting does not suit it, or the workdir cannot be
            written to.
    """
    sample = lambda: image_files.Loaded(load_sample_image("china.jpg"), [])
    image = sample() if path is None else image_files.load(path)
    check_settings(
        image.pixels.shape,
        num_codes=config.num_codes,
        patch_size=config.patch_size,
        num_iters=config.num_iters,
    )
    try:
        Path(config.workdir).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=config.workdir).close()
    except OSError as error:
        raise ValueError(
            f"cannot write to {config.workdir}: {error.strerror}; name a folder with --workdir"
        ) from None
    return image


def run(config: Config, loaded: image_files.Loaded, name: str) -> dict[str, object]:
    """Compresses an image, writes the results to `config.workdir` and returns the summary."""
    image, notes = loaded
    height, width = image.shape[:2]
    workdir = Path(config.workdir)
    flag_help.tell(f"{name}: {width} x {height} pixels, 24 bits/pixel")
    for note in notes:
        flag_help.tell(f"note: {note}")
    compressed = compress(
        jax.random.key(config.seed),
        image,
        num_codes=config.num_codes,
        patch_size=config.patch_size,
        num_iters=config.num_iters,
    )
    rate, decibels = rates(compressed), psnr(image, compressed.image)
    with replacing(workdir / "comparison.png") as part:
        draw(image, compressed).savefig(part, format="png")
    num_bytes = save_png(workdir / "compressed.png", compressed)
    summary: dict[str, object] = {
        "image": name,
        "notes": notes,
        "height": height,
        "width": width,
        **dataclasses.asdict(config),
        "bits_per_pixel_original": 24,
        "bits_per_pixel_codes": rate.codes,
        "bits_per_pixel_codes_and_codebook": rate.codes + rate.codebook,
        "bits_per_pixel_entropy": rate.entropy,
        "psnr_db": None if math.isinf(decibels) else decibels,  # JSON has no infinity
        "lossless": math.isinf(decibels),
        "compressed_png_bytes": num_bytes,
    }
    replace_text(workdir / "summary.json", json.dumps(summary, indent=2) + "\n")
    flag_help.tell(
        f"{config.num_codes} codes of {config.patch_size} x {config.patch_size} pixels: "
        f"{_describe_psnr(decibels)}\n"
        f"  codes                 {rate.codes:8.3f} bits/pixel\n"
        f"  codes and codebook    {rate.codes + rate.codebook:8.3f} bits/pixel\n"
        f"  entropy of the codes  {rate.entropy:8.3f} bits/pixel\n"
        f"  compressed.png        {8 * num_bytes / (height * width):8.3f} bits/pixel "
        f"({num_bytes:,} bytes)\n"
        f"wrote {workdir}/comparison.png, compressed.png, summary.json"
    )
    return summary


def main(arguments: list[str]) -> None:
    """Compresses the image of the command line."""
    with flags.setup():
        if len(arguments) > 2:
            raise ValueError(
                f"expected one image, got {len(arguments) - 1}: {', '.join(arguments[1:])}"
            )
        config = flags.parse(Config)
        path = str(paths.local(arguments[1], "IMAGE")) if len(arguments) == 2 else None
        image = prepare(config, path)
    run(config, image, path or "china.jpg of scikit-learn")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
