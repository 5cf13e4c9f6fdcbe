"""Image data sets as uint8 arrays, and the batches drawn from them inside a jitted step.

`load(name)` reads one data set whole into host memory (`sources`, `embedded`, `omniglot`):

    dataset = data.load("cifar10", data_dir="/path/to/tfds")   # or data.load("patches"): no files
    images = jax.device_put(dataset.train)                      # uint8 [N, H, W, C]

and `batches` draws from the device-resident array with pure functions of a key and the step:

    batch = data.batches.draw(key_order, images, step, batch_size=64)
    pixels = data.batches.binarize(key_pixels, batch)           # for "dynamic" sets

Own images come by their path, `load("photos/", test_share=0.1)`, or as arrays:

    dataset = data.from_arrays(train, test, train_labels=labels, name="stamps")

TensorFlow is needed only to download and prepare a set, never to read a prepared one.
"""

from dvae.data import batches, embedded
from dvae.data._arrays import from_arrays
from dvae.data._dataset import (
    Binarization,
    Dataset,
    DataUnavailableError,
    KeepRows,
    binarized,
    binarized_once,
    joined,
    resized,
    sample_once,
    thresholded,
    whole,
)
from dvae.data.sources import NAMES, load, load_grey, settled

__all__ = [
    "NAMES",
    "Binarization",
    "DataUnavailableError",
    "Dataset",
    "KeepRows",
    "batches",
    "binarized",
    "binarized_once",
    "embedded",
    "from_arrays",
    "joined",
    "load",
    "load_grey",
    "resized",
    "sample_once",
    "settled",
    "thresholded",
    "whole",
]
