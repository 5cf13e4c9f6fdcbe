"""Mixtures of discretized logistics over the levels 0..255 of a pixel with coupled channels.

    params = head(features)     # [..., H, W, num_parameters(num_mixtures)], a network's raw output
    log_px = bounds.sum_per_example(discretized_logistic.log_prob(image, params))
    image = discretized_logistic.sample(key, params)

The law of one pixel x = (x_0, ..., x_{C-1}), of Salimans et al., "PixelCNN++" (2017), eqs. 1-3:

    p(x) = sum_m pi_m prod_c P(x_c | center_mc, s_mc)
    P(k | center, s) = sigmoid((k + 1/2 - center) / s) - sigmoid((k - 1/2 - center) / s)
    center_mc = 127.5 (1 + mean_mc) + sum_{j<c} coupling_mcj (x_j - 127.5)

where for k = 255 the first sigmoid is 1 and for k = 0 the second is 0: the end levels take the
tails, and P sums to 1. All channels of a pixel share the mixture component, so the log-probability
is one number a pixel, not one a channel. One channel (gray) is the case without coupling.

The last axis of `params` holds, for M components and C channels, in this order (each block with its
component index varying fastest; `split` takes it apart):

    [M]             logits of pi
    [C, M]          means; -1, 0 and 1 are the levels 0, 127.5 and 255
    [C, M]          log scales, log(s / 127.5), raised to MIN_LOG_SCALE
    [C (C-1)/2, M]  arctanh of the coupling of channels (c, j): (1, 0), (2, 0), (2, 1), ...

so 10 M numbers for RGB and 3 M for gray. Everything is computed in float32 at least, and is finite
with finite gradients for means of any size up to 1e4 and log scales up to 80.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._checks import check_key
from dvae._numerics import ArrayLike, logit, open_uniform, same_rank, upcast
from dvae.distributions import categorical

__all__ = ["MIN_LOG_SCALE", "Mixture", "log_prob", "num_parameters", "sample", "split"]

# PixelCNN++'s floor, 0.12 levels: the level at the center has mass 0.973 there. A smaller scale
# could only raise that to 1, at the price of gradients of the mean that grow as 1 / s.
MIN_LOG_SCALE = -7.0
_HALF_RANGE = 127.5  # levels between the middle of 0..255 and either end


class Mixture(NamedTuple):
    """The parts of `params`, in at least float32."""

    logits: jax.Array  # [..., M], of the component probabilities, not normalized
    means: jax.Array  # [..., C, M], -1 and 1 the end levels, without the coupling
    log_scales: jax.Array  # [..., C, M], of s / 127.5, at least MIN_LOG_SCALE
    coupling: jax.Array  # [..., C (C-1)/2, M], in [-1, 1]; pairs (1, 0), (2, 0), (2, 1), ...


def num_parameters(num_mixtures: int, num_channels: int = 3) -> int:
    """Counts the parameters of one pixel, the last axis of `params`: M (1 + 2 C + C (C-1)/2).

    Args:
        num_mixtures: M.
        num_channels: C.

    Returns:
        10 M for three channels, 3 M for one.

    Raises:
        ValueError: if either is below 1.
    """
    if num_mixtures < 1 or num_channels < 1:
        raise ValueError(
            "num_mixtures and num_channels must be at least 1, got "
            f"{num_mixtures} and {num_channels}"
        )
    return num_mixtures * (1 + 2 * num_channels + math.comb(num_channels, 2))


def split(params: ArrayLike, *, num_channels: int = 3) -> Mixture:
    """Takes raw parameters apart, with the floor on the log scales and tanh on the coupling.

    Below the floor a log scale gets no gradient.

    Args:
        params: [..., P] float, P = num_parameters(M, C) for some M.
        num_channels: C.

    Returns:
        Mixture of float32 arrays (float64 if params are).

    Raises:
        ValueError: if P is not a multiple of num_parameters(1, C).
    """
    params = jnp.asarray(params)
    unit = num_parameters(1, num_channels)
    if not params.ndim:
        raise ValueError("params must have a last axis of parameters, got a number")
    num_mixtures, rest = divmod(params.shape[-1], unit)
    if rest or not num_mixtures:
        raise ValueError(
            f"the last axis of params must be a multiple of {unit}, the parameters of one "
            f"component with {num_channels} channels (see num_parameters), got shape {params.shape}"
        )
    blocks = upcast(params).reshape(*params.shape[:-1], unit, num_mixtures)
    log_scales = blocks[..., 1 + num_channels : 1 + 2 * num_channels, :]
    return Mixture(
        logits=blocks[..., 0, :],
        means=blocks[..., 1 : 1 + num_channels, :],
        log_scales=jnp.maximum(log_scales, MIN_LOG_SCALE),
        coupling=jnp.tanh(blocks[..., 1 + 2 * num_channels :, :]),
    )


def log_prob(pixels: ArrayLike, params: ArrayLike) -> jax.Array:
    """Evaluates log p(x) of whole pixels, their channels coupled.

    The equation is the module's, PixelCNN++ eqs. 1-3. Like `categorical.log_prob_of_codes` it
    returns float32 for half-precision parameters: these terms are summed over thousands of pixels.

    Args:
        pixels: [..., H, W, C] integer in 0..255.
        params: [..., H, W, P] float; batch axes broadcast with those of pixels.

    Returns:
        [..., H, W] float32 (float64 if params are), nats a pixel: all C channels in one number.
        NaN for a pixel with a level outside 0..255.

    Raises:
        ValueError: if pixels are not integers, or P does not fit their number of channels.
    """
    pixels, params = jnp.asarray(pixels), jnp.asarray(params)
    if not jnp.issubdtype(pixels.dtype, jnp.integer):
        raise ValueError(
            f"pixels must be integers in 0..255, got {pixels.dtype}; images scaled to [0, 1] must "
            "be brought back to levels"
        )
    num_channels = pixels.shape[-1]
    pixels, params = same_rank(pixels, params)
    mixture = split(params, num_channels=num_channels)
    # Counted from the middle, levels and the ends of their bins are exact.
    levels = pixels[..., None].astype(mixture.means.dtype) - _HALF_RANGE
    if pixels.dtype != jnp.uint8:
        levels = jnp.where(jnp.abs(levels) > _HALF_RANGE, jnp.nan, levels)
    channels = [levels[..., c, :] for c in range(num_channels)]
    log_p = jax.nn.log_softmax(mixture.logits)
    for c, level in enumerate(channels):
        center = _center(mixture, channels[:c])
        log_p = log_p + _log_mass(level, center, mixture.log_scales[..., c, :])
    return jax.nn.logsumexp(log_p, axis=-1)


def sample(
    key: jax.Array,
    params: ArrayLike,
    shape: int | tuple[int, ...] = (),
    *,
    num_channels: int = 3,
) -> jax.Array:
    """Draws pixels: a component, then one channel after the other; no gradient flows.

        x_c = clip(round(center_c(x_<c) + s_c logit(u_c)), 0, 255),    u_c uniform in (0, 1)

    which has exactly the law that `log_prob` evaluates, since the channels are coupled through the
    rounded and clipped levels.

    Args:
        key: typed PRNG key.
        params: [..., H, W, P] float.
        shape: sample shape, put in front.
        num_channels: C.

    Returns:
        [*shape, ..., H, W, C] uint8, which has no value to show a NaN in params; `log_prob` has.

    Raises:
        ValueError: if P does not fit `num_channels`.
    """
    check_key(key)
    key_component, key_noise = jax.random.split(key)
    mixture = split(params, num_channels=num_channels)
    component = categorical.sample_codes(key_component, mixture.logits, shape)
    mixture = Mixture(
        *(_pick(part, component) for part in (mixture.logits[..., None, :], *mixture[1:]))
    )
    noise = logit(open_uniform(key_noise, (*component.shape, num_channels)))
    channels: list[jax.Array] = []
    for c in range(num_channels):
        scale = _HALF_RANGE * jnp.exp(mixture.log_scales[..., c, :])
        value = _center(mixture, channels) + scale * noise[..., c, None]
        channels.append(jnp.clip(jnp.round(value + _HALF_RANGE), 0, 255) - _HALF_RANGE)
    return (jnp.concatenate(channels, axis=-1) + _HALF_RANGE).astype(jnp.uint8)


def _center(mixture: Mixture, previous: list[jax.Array]) -> jax.Array:
    """Returns the next channel's centers [..., M] from the levels [..., 1] of the channels before.

    Centers and levels are counted from 127.5.
    """
    channel = len(previous)
    pair = math.comb(channel, 2)  # pairs with an earlier first channel
    center = _HALF_RANGE * mixture.means[..., channel, :]
    for j, level in enumerate(previous):
        center = center + mixture.coupling[..., pair + j, :] * level
    return center


def _log_mass(level: jax.Array, center: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Returns log P(level | center, s), broadcast; levels and centers counted from 127.5.

    With a and b the standardized ends of the bin, a - b = 1 / s, it is

        log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(-1 / s))

    The difference as written is 0, and its logarithm -inf, once both sigmoids round to the same
    number: a few scales away from the center, or in the center of a wide scale.
    """
    rate = jnp.exp(-log_scale) / _HALF_RANGE
    # The upper end of a bin and the lower end of the next are the same float, so that masses add
    # up to 1 whatever the rounding of center and scale.
    log_below = jax.nn.log_sigmoid((level + 0.5 - center) * rate)
    log_above = jax.nn.log_sigmoid((center - (level - 0.5)) * rate)
    log_width = jnp.log(-jnp.expm1(-rate))
    is_first, is_last = level == -_HALF_RANGE, level == _HALF_RANGE
    # All three are finite, so that none sends a NaN through the branch not taken.
    return (
        jnp.where(is_last, 0, log_below)
        + jnp.where(is_first, 0, log_above)
        + jnp.where(is_first | is_last, 0, log_width)
    )


def _pick(part: jax.Array, component: jax.Array) -> jax.Array:
    """Picks the component [*shape, ...] out of a part [..., R, M]: [*shape, ..., R, 1]."""
    missing = component.ndim + 2 - part.ndim
    part = part.reshape((1,) * missing + part.shape)
    return jnp.take_along_axis(part, component[..., None, None], axis=-1)
