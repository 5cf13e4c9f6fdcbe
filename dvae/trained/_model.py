"""A trained model: pure functions, bound to the parameters that they were trained to."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from dvae._checks import check_count, check_key
from dvae.models.checks import LEVELS

__all__ = ["Functions", "Model"]

PyTree = Any


class Functions(Protocol):
    """What every kind of model can do, given its parameters."""

    @property
    def kind(self) -> str:
        """Program that trains such models."""

    @property
    def pixels(self) -> str:
        """Kind of the pixels, see `models.checks`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless the model takes these images."""

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless these are codes of the model."""

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> Any:
        """Draws the latent variables of images; without a key takes the posterior's mode."""

    def decode(self, params: PyTree, codes: Any) -> jax.Array:
        """Makes images of latent variables, uint8 [N, H, W, C]."""

    def sample(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Draws images from the model, uint8 [num_images, H, W, C]."""

    def elbo(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        """Estimates the ELBO, nats [N]."""

    def log_likelihood(
        self, params: PyTree, key: jax.Array, images: jax.Array, *, num_samples: int
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]."""


@dataclass(frozen=True)
class Model:
    """A trained model.

    Its methods compile once for each shape of their arguments. They compute all images in one
    batch: pass some hundreds at a time. Images are levels 0..255 (uint8) or pixels 0 or 1, as
    `functions.pixels` says, [N, *functions.image_shape].
    """

    functions: Functions  # pure functions of (params, ...), see the module of the kind
    params: PyTree  # arrays by name
    info: Mapping[str, Any] = field(default_factory=dict)  # what model.json says

    @property
    def kind(self) -> str:
        """The program that trained the model."""
        return self.functions.kind

    @property
    def codebook(self) -> jax.Array:
        """The codebooks [n, C, D] of a `cifar_vq` model."""
        if "codebook" not in self.params:
            raise AttributeError(f"a {self.kind} model has no codebook; its codes are variables")
        return self.params["codebook"]

    def apply(self, params: PyTree, method: str, *args: Any, **options: Any) -> Any:
        """Calls a function of `functions` at other parameters, for jit, vmap and grad.

        Args:
            params: a tree like `self.params`.
            method: a name such as "elbo".
            *args: the arrays that the function takes after the parameters.
            **options: what is static, by name: `num_images=4` of "sample", `num_samples=100` of
                "log_likelihood".

        Raises:
            ValueError: there is no such function, or it takes other arguments.
        """
        function = getattr(self.functions, method, None)
        if not callable(function):
            raise ValueError(
                f"a {self.kind} model has no function {method!r}; it has "
                f"{', '.join(_names(self.functions))}"
            )
        _check_arguments(method, function, params, *args, **options)
        return function(params, *args, **options)

    @functools.cached_property
    def _compiled(self) -> dict[str, Any]:
        """The functions compiled; what is counted is part of the program."""
        static = {"sample": "num_images", "log_likelihood": "num_samples"}
        return {
            name: jax.jit(getattr(self.functions, name), static_argnames=static.get(name))
            for name in ("encode", "decode", "sample", "elbo", "log_likelihood")
        }

    def encode(self, key: jax.Array | None, images: Any, *, labels: Any = None) -> Any:
        """Draws the latent variables of images; without a key takes the posterior's mode.

        Args:
            key: typed PRNG key, or None.
            images: [N, H, W, C].
            labels: of the images, of a model that was trained with labels: int [N], or finite
                float [N, C] where they were real vectors.

        Returns:
            int32 [N, h, w, n] of `cifar_vq`, bits uint8 [N, n] of `binary_vae`, `Latents` of
            `joint_vae` and `dvaepp`.

        Raises:
            ValueError: images have another shape, dtype or kind of pixels; labels are missing, in
                vain or unknown.
        """
        if key is not None:
            check_key(key)
        images = self._checked(images)
        given = self._labels(labels, len(images))
        return self._compiled["encode"](self.params, key, images, **given)

    def decode(self, codes: Any, *, labels: Any = None) -> jax.Array:
        """Makes images of latent variables: uint8 levels [N, H, W, C].

        They are means of the pixels, but where the decoder of a `dvaepp` model draws them.

        Args:
            codes: as `encode` returns them.
            labels: as for `encode`.

        Raises:
            ValueError: codes or labels are not those of this model.
        """
        # A list is one array, as in `encode`, and no tree of numbers.
        codes = jax.tree.map(_as_array, codes, is_leaf=lambda x: isinstance(x, list))
        self.functions.check_codes(jax.tree.map(_known, codes))
        given = self._labels(labels, len(jax.tree.leaves(codes)[0]))
        return self._compiled["decode"](self.params, codes, **given)

    def sample(self, key: jax.Array, num_images: int, *, labels: Any = None) -> jax.Array:
        """Draws images from the model, uint8 levels [num_images, H, W, C].

        Args:
            key: typed PRNG key.
            num_images: at least 1.
            labels: of num_images images, what these are to be of; see `encode`.

        Raises:
            ValueError: `num_images` is below 1, or labels are not those of this model.
        """
        check_key(key)
        num_images = check_count("num_images", num_images)
        given = self._labels(labels, num_images)
        return self._compiled["sample"](self.params, key, num_images=num_images, **given)

    def elbo(self, key: jax.Array, images: Any, *, labels: Any = None) -> jax.Array:
        """Estimates the ELBO of images with one sample, nats [N]; given labels that of p(x | y).

        Args:
            key: typed PRNG key.
            images: [N, H, W, C].
            labels: as for `encode`.

        Raises:
            ValueError: as for `encode`.
        """
        check_key(key)
        images = self._checked(images)
        given = self._labels(labels, len(images))
        return self._compiled["elbo"](self.params, key, images, **given)

    def log_likelihood(
        self, key: jax.Array, images: Any, *, num_samples: int, labels: Any = None
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]: at most log p(x) in the mean.

        Given labels it is log p(x | y).

        Args:
            key: typed PRNG key.
            images: [N, H, W, C].
            num_samples: K, at least 1.
            labels: as for `encode`.

        Raises:
            ValueError: as for `encode`, or `num_samples` is below 1.
        """
        check_key(key)
        num_samples = check_count("num_samples", num_samples)
        images = self._checked(images)
        given = self._labels(labels, len(images))
        log_likelihood = self._compiled["log_likelihood"]
        return log_likelihood(self.params, key, images, num_samples=num_samples, **given)

    def _checked(self, images: Any) -> Any:
        images = _as_array(images)
        self.functions.check_images(images if self.functions.pixels == LEVELS else _known(images))
        return images

    def _labels(self, labels: Any, count: int) -> dict[str, Any]:
        """Returns the labels of count images as an argument; nothing where there are to be none."""
        labels = None if labels is None else _as_array(labels)
        check = getattr(self.functions, "check_labels", None)
        if check is not None:
            check(labels, count)
        elif labels is not None:
            raise ValueError(f"a {self.kind} model has no labels; leave labels out")
        return {} if labels is None else {"labels": labels}

    def __repr__(self) -> str:
        """Describes the model in a line."""
        data = self.info.get("dataset", "unknown data")
        count = sum(x.size for x in jax.tree.leaves(self.params))
        shape = "x".join(map(str, self.functions.image_shape))
        return f"Model({self.kind}, {shape} images of {data}, {count:,} numbers)"


def _names(functions: Functions) -> list[str]:
    """Returns the functions of parameters that `Model.apply` calls."""
    public = inspect.getmembers(type(functions), inspect.isfunction)
    return [
        name
        for name, function in public
        if not name.startswith("_") and "params" in inspect.signature(function).parameters
    ]


def _check_arguments(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Raises ValueError unless a function takes these arguments."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        static = [p.name for p in bare if p.kind == p.KEYWORD_ONLY]
        by_name = f", what follows * by name, as in {static[0]}=4" if static else ""
        takes = signature.replace(parameters=bare, return_annotation=signature.empty)
        raise ValueError(f"{name} takes {takes}{by_name}; got {error}") from error


def _as_array(x: Any) -> Any:
    return x if hasattr(x, "dtype") else np.asarray(x)


def _known(x: Any) -> Any:
    """Brings the values of an array to the host, where checks read them, if there are some."""
    traced = isinstance(x, jax.core.Tracer)
    return x if traced or not getattr(x, "is_fully_addressable", False) else np.asarray(x)
