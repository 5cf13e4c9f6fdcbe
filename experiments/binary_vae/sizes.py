"""What is too large for `binary_vae`: states that `exact` decodes, networks that XLA compiles."""

import math

from experiments.binary_vae import names

MAX_COMPILE_SECONDS = 600.0  # on one core; beyond, a run is refused
LONG_COMPILE_SECONDS = 30.0  # worth a word before


def check_exact(num_latents: int, batch_size: int) -> None:
    """Raises ValueError where `exact` would decode too many states."""
    # 2^n of a mistyped n would fill the memory by itself.
    if num_latents >= names.MAX_EXACT_ROWS.bit_length() or (
        batch_size << num_latents > names.MAX_EXACT_ROWS
    ):
        raise ValueError(
            f"--estimator=exact decodes all 2^n states of every image, at most "
            f"{names.MAX_EXACT_ROWS} in all, got --num_latents={num_latents} and "
            f"--batch_size={batch_size}; use fewer latents, a smaller batch or another "
            "estimator"
        )


def compile_seconds(num_groups: int, num_layers: int) -> float:
    """Estimates how long one core compiles the initialization and the train step, in seconds.

        3 + 0.9 G + 0.034 G^2 + 0.3 * 2 G (L + 1)

    for G groups and 2 G networks (encoders, the priors of all groups but the first, the decoder)
    of L tanh layers and an output. Every group sees all earlier ones, so that no loop can hold
    them: hence the square. Fitted to 1 to 64 groups and 1 to 64 layers of tiny widths.

    Args:
      num_groups: G, at least 1.
      num_layers: L, 0 for affine networks.
    """
    per_group = 0.9 + 0.034 * num_groups + 0.3 * 2 * (num_layers + 1)
    return 3.0 + num_groups * per_group


def check_compilation(num_groups: int, num_layers: int) -> None:
    """Raises ValueError where XLA would take longer than MAX_COMPILE_SECONDS."""
    seconds = compile_seconds(num_groups, num_layers)
    if seconds <= MAX_COMPILE_SECONDS:
        return
    flags, remedies = [], []
    if num_groups > 1:
        flags.append(f"--num_groups={num_groups}")
        remedies.append("fewer groups (of more --num_latents each)")
    if num_layers:
        flags.append(f"--hidden_layers={num_layers}")
        remedies.append("fewer layers (of more --hidden_units)")
    raise ValueError(
        f"{' and '.join(flags)}: these networks would take {_minutes(math.ceil(seconds / 60))} to "
        f"compile on one core, and may take at most {_minutes(round(MAX_COMPILE_SECONDS / 60))}; "
        f"use {' or '.join(remedies)}"
    )


def compile_notice(num_groups: int, num_layers: int) -> str:
    """Returns a line on a long compilation; empty where it takes LONG_COMPILE_SECONDS at most."""
    seconds = compile_seconds(num_groups, num_layers)
    if seconds <= LONG_COMPILE_SECONDS:
        return ""
    what = f"{num_groups} groups" if num_groups > 1 else f"networks of {num_layers} layers"
    return f"compiling {what} takes about {_minutes(max(1, round(seconds / 60)))}"


def _minutes(minutes: int) -> str:
    """Writes a time."""
    return f"{minutes:,} minute{'s' if minutes > 1 else ''}"
