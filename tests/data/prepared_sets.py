"""Writes small data sets as TFDS would prepare them."""

import io
import json

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_generated_pb2


def png(image):
    encoded = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, "PNG")
    return encoded.getvalue()


def write_prepared(data_dir, name, version, splits, *, encode=png):
    """Writes splits {split: (images, labels or None)} as TFDS would prepare them."""
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    infos = []
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(
            str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        for i, image in enumerate(images):
            example = tf_example_generated_pb2.Example()
            features = example.features.feature
            features["image"].bytes_list.value.append(encode(image))
            if labels is not None:
                features["label"].int64_list.value.append(int(labels[i]))
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append(
            {"name": split, "filepathTemplate": template, "shardLengths": [str(len(images))]}
        )
    info = {"fileFormat": "array_record", "name": name, "splits": infos, "version": version}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features = {"image": tfds.features.Image(shape=images.shape[1:])}
    if labels is not None:
        features["label"] = tfds.features.ClassLabel(num_classes=10)
    tfds.features.FeaturesDict(features).save_config(str(folder))


def random_images(seed, count, *shape):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
