"""Writes small sets of images as their owners might have them."""

import gzip

import numpy as np
from PIL import Image


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_images(folder, images, ending="png"):
    """Writes images [N, H, W, C] as 00.png, 01.png, ...; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02}.{ending}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(path, **({"lossless": True} if ending == "webp" else {}))
    return paths


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = head + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
