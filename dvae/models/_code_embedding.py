"""What the networks over codes share: embedded codes, and logits that start at a constant."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dvae.models import checks, vq_conv


class CodeEmbedding(nn.Module):
    """A table of vectors for the codes of each latent variable."""

    num_latents: int
    codebook_size: int
    features: int

    def setup(self) -> None:
        """Makes the table, [n, C, F]."""
        shape = (self.num_latents, self.codebook_size, self.features)
        stddev = nn.initializers.normal(self.num_latents**-0.5)
        self.table = self.param("table", stddev, shape, jnp.float32)

    def __call__(self, codes: jax.Array) -> jax.Array:
        """Looks up codes [..., n] of all latent variables: [..., n, F]."""
        return vq_conv.lookup(codes, self.table)

    def of(self, latent: jax.Array, codes: jax.Array) -> jax.Array:
        """Looks up codes [...] of one latent variable: [..., F]."""
        return self.table[latent, codes]


class CodeLogits(nn.Module):
    """Logits of the codes of each latent variable, an affine map of its features.

    The kernel starts at zero, and with it the logits at the bias.
    """

    num_latents: int
    codebook_size: int
    features: int
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes kernels [n, F, C] and biases [n, C]."""
        n, size, zeros = self.num_latents, self.codebook_size, nn.initializers.zeros
        self.kernel = self.param("kernel", zeros, (n, self.features, size), jnp.float32)
        self.bias = self.param("bias", zeros, (n, size), jnp.float32)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [..., n, F] to float32 [..., n, C]."""
        product = jnp.einsum(
            "...nf,nfc->...nc",
            x.astype(self.dtype),
            self.kernel.astype(self.dtype),
            preferred_element_type=jnp.float32,
        )
        return product + self.bias.reshape((1,) * (x.ndim - 2) + self.bias.shape)

    def of(self, latent: jax.Array, x: jax.Array) -> jax.Array:
        """Maps floats [B, F] of one latent variable to float32 [B, C]."""
        kernel = self.kernel[latent].astype(self.dtype)
        product = jnp.matmul(x.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias[latent][None]


def check_codes(
    codes: jax.Array, grid: tuple[int | str, int | str], num_latents: int, codebook_size: int
) -> None:
    """Raises ValueError unless codes are integers [B, *grid, n], the known ones below C."""
    checks.check_codes("codes", codes, ("B", *grid, num_latents), codebook_size)
