"""Bilinear maps with gradients in a form of their own, for every mode of differentiation.

    product = Bilinear(value, to_left, to_right)       # y = value(x, w); x, w and y any arrays
    y = product(x, w)

The three functions belong to one trilinear form <y, value(x, w)>: each is its derivative by one
argument, a bilinear map of the other two.

    value(x, w) -> y        to_left(w, y) -> x        to_right(x, y) -> w

So the transpose of each by one of its arguments is another of them, tangents are the same maps of
tangents, and derivatives of any order, forward or reverse, consist of the three. `jax.custom_vjp`
would refuse forward mode, and the transposes that JAX derives are those of the operations inside.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

from dvae._numerics import vary_like

Map = Callable[[jax.Array, jax.Array], jax.Array]
_X, _W, _Y = range(3)  # the slots of the form
# Which of them hold an array in vmapped calls, one triple of flags a vmap, the innermost first.
Levels = tuple[tuple[bool, bool, bool], ...]


class Bilinear:
    """y = value(x, w), by the forms that it is made of; see the module's docstring.

    Results are rounded to the dtypes of the arguments, those of `value` have the dtype of x.
    """

    def __init__(self, value: Map, to_left: Map, to_right: Map) -> None:
        self._maps = (to_left, to_right, value)

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """Returns value(x, w)."""
        x, w = vary_like((x, w), x, w)
        dtypes = (x.dtype, w.dtype, x.dtype)
        return _primitive.bind(x, w, maps=self._maps, slot=_Y, levels=(), dtypes=dtypes)


def _operands(slot: int) -> tuple[int, int]:
    """Returns the slots of the two arguments of the map into a slot, in their order."""
    first, second = (s for s in range(3) if s != slot)
    return first, second


def _evaluate(
    a: jax.Array,
    b: jax.Array,
    *,
    maps: tuple[Map, Map, Map],
    slot: int,
    levels: Levels,
    dtypes: tuple[DTypeLike, ...],
) -> jax.Array:
    """Computes the map into a slot; where its result is not mapped, the sum over the axis."""
    function = maps[slot]
    for flags in levels:
        function = _mapped(function, flags, slot)
    return function(a, b).astype(dtypes[slot])


def _mapped(function: Map, flags: tuple[bool, bool, bool], slot: int) -> Map:
    """Maps the function over one axis, and sums over it where the result is not mapped."""
    axes = [0 if flags[s] else None for s in _operands(slot)]
    mapped = jax.vmap(function, axes)
    return mapped if flags[slot] else lambda a, b: mapped(a, b).sum(0)


def _transpose(
    which: int, cotangent: jax.Array, a: Any, b: Any, *, slot: int, **params: Any
) -> jax.Array:
    """Computes the cotangent of argument `which` by the map into its slot."""
    target, other = _operands(slot)[which], _operands(slot)[1 - which]
    values = {slot: cotangent, other: (b, a)[which]}
    return _primitive.bind(*(values[s] for s in _operands(target)), slot=target, **params)


def _batch(
    arguments: tuple[jax.Array, jax.Array],
    axes: tuple[int | None, int | None],
    *,
    slot: int,
    levels: Levels,
    **params: Any,
) -> tuple[jax.Array, int]:
    """Adds a level whose axis is the first of what is mapped; the result always is."""
    flags = {slot: True}
    moved = []
    for s, argument, axis in zip(_operands(slot), arguments, axes, strict=True):
        flags[s] = axis is not None
        moved.append(argument if axis is None else jnp.moveaxis(argument, axis, 0))
    level = (flags[_X], flags[_W], flags[_Y])
    return _primitive.bind(*moved, slot=slot, levels=(*levels, level), **params), 0


def _abstract(a: Any, b: Any, **params: Any) -> Any:
    """Infers shape, dtype and sharding of the result."""
    (out,) = jax.make_jaxpr(lambda a, b: _evaluate(a, b, **params))(a, b).out_avals
    return out


_primitive = Primitive("bilinear")
_primitive.def_impl(_evaluate)
_primitive.def_abstract_eval(_abstract)
ad.defbilinear(
    _primitive,
    lambda *args, **params: _transpose(0, *args, **params),
    lambda *args, **params: _transpose(1, *args, **params),
)
batching.primitive_batchers[_primitive] = _batch
mlir.register_lowering(_primitive, mlir.lower_fun(_evaluate, multiple_results=False))
