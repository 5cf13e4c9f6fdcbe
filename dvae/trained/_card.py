"""The card of a model, README.md: what it is, where it comes from and how it is used."""

from collections.abc import Mapping
from typing import Any

__all__ = ["describe"]

_WHAT = {
    "cifar_vq": "images by discrete codes of learned codebooks",
    "binary_vae": "binary images by binary latent variables",
    "joint_vae": "images by discrete and continuous latent variables together",
    "dvaepp": "images by global and local latent variables (DVAE++)",
}
_PIXELS = {"levels": "uint8 levels 0..255", "bits": "pixels 0 or 1"}


def describe(record: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """Returns the text of the card.

    Args:
        record: what model.json says.
        arrays: by name.
    """
    images = record["images"]
    shape = " x ".join(map(str, images["shape"]))
    lines = [
        f"# A `{record['kind']}` model of {record['dataset']}",
        "",
        f"It describes {_WHAT[record['kind']]}.",
        "",
        "    import dvae, jax",
        "",
        '    model = dvae.load("FOLDER")  # of this file',
        f"    images = model.sample(jax.random.key(0), 16{_labels(record)})",
        "",
        f"- Images: {shape}, {_PIXELS[images['pixels']]}"
        + (f"; {images['preparation']}" if images["preparation"] else ""),
        f"- Numbers stored: {sum(x.size for x in arrays.values()):,}",
        f"- Step: {record['step']}, seed: {record['seed']}",
        f"- License: {record['license']}",
        f"- Written by dvae {record['dvae_version']}",
    ]
    if (graph := record["settings"].get("topology", {})) and graph["num_units"]:
        edges = len(graph["edges"].split())
        lines.append(
            f"- Prior: a Boltzmann machine of {graph['num_units']} units and {edges:,} edges on "
            f"the graph {graph['name']}"
        )
    if log_z := record.get("log_z"):
        values, errors = (_as_list(log_z[name]) for name in ("nats", "standard_error"))
        pairs = zip(values, errors, strict=True)
        listed = ", ".join(f"{value:.4f} +- {error:.4f}" for value, error in pairs)
        of_labels = " given each label" if len(values) > 1 else ""
        lines.append(f"- log Z of the prior{of_labels}: {listed} nats")
    if record["metrics"]:
        lines += ["", "Measured on test images:", ""]
        lines += [f"- {name}: {value}" for name, value in record["metrics"].items()]
    return "\n".join(lines) + "\n"


def _as_list(x: float | list[float]) -> list[float]:
    return x if isinstance(x, list) else [x]


def _labels(record: Mapping[str, Any]) -> str:
    """Writes what samples are given: a label each, or a vector of zeros."""
    network = record["settings"].get("network", {})
    if not network.get("num_labels"):
        return ""
    if network.get("real_labels"):
        return f", labels=[[0.0] * {network['num_labels']}] * 16"
    return ", labels=[0] * 16"
