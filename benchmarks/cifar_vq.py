"""A train step of the convolutional VQ model: 64 maps, batch 64, 8x8x8 latents of 512 codes.

    python benchmarks/cifar_vq.py

`experiments.cifar_vq` against the same model in PyTorch, for the VQ rule and for Gumbel-Softmax.
"""

import jax
import torch
from _timing import Comparison, compare, noise, show
from torch import nn

from dvae.train import sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq.config import Config

FEATURES, BATCH, LATENTS, CODES, DIM = 64, 64, 8, 512, 64
BLOCKS = 4


class Residual(nn.Module):
    """relu, 3x3, relu, 1x1, skip."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Model(nn.Module):
    """Encoder, codebooks, decoder and 256-way pixel likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, FEATURES, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 4, 2, 1),
            *(Residual() for _ in range(BLOCKS)),
            nn.ReLU(),
            nn.Conv2d(FEATURES, LATENTS * DIM, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENTS * DIM, FEATURES, 1),
            *(Residual() for _ in range(BLOCKS)),
            nn.ReLU(),
            nn.ConvTranspose2d(FEATURES, FEATURES, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(FEATURES, 3 * 256, 4, 2, 1),
        )
        self.codebook = nn.Parameter(torch.randn(LATENTS, CODES, DIM))
        self.prior = nn.Parameter(torch.zeros(LATENTS, CODES))
        self.log_scale = nn.Parameter(torch.zeros(LATENTS))

    def loss(self, x: torch.Tensor, rule: str) -> torch.Tensor:
        """The negative objective of a batch uint8 [B, 3, 32, 32]."""
        vectors = self.encoder(x.float() / 127.5 - 1)
        batch, _, h, w = vectors.shape
        flat = vectors.reshape(batch, LATENTS, DIM, h * w).permute(1, 0, 3, 2)
        flat = flat.reshape(LATENTS, -1, DIM)
        products = torch.bmm(flat, self.codebook.transpose(1, 2))
        norms = (self.codebook**2).sum(-1)[:, None]
        distances = (flat**2).sum(-1, keepdim=True) + norms - 2 * products
        log_prior = self.prior.log_softmax(-1)
        if rule == "vq":
            codes = distances.argmin(-1)
            quantized = torch.gather(self.codebook, 1, codes[..., None].expand(-1, -1, DIM))
            kl = -torch.gather(log_prior, 1, codes).sum() / batch
            penalty = ((quantized - flat.detach()) ** 2).mean(-1).sum()
            penalty = (penalty + 0.25 * ((quantized.detach() - flat) ** 2).mean(-1).sum()) / batch
            chosen = flat + (quantized - flat).detach()
        else:
            logits = -self.log_scale.exp()[:, None, None] * distances
            y = nn.functional.gumbel_softmax(logits, tau=0.5)
            log_q = logits.log_softmax(-1)
            kl = (log_q.exp() * (log_q - log_prior[:, None])).sum() / batch
            chosen, penalty = torch.bmm(y, self.codebook), 0.0
        decoded = chosen.reshape(LATENTS, batch, h * w, DIM).permute(1, 0, 3, 2)
        pixels = self.decoder(decoded.reshape(batch, LATENTS * DIM, h, w))
        pixels = pixels.reshape(batch, 3, 256, 4 * h, 4 * w).transpose(1, 2)
        distortion = nn.functional.cross_entropy(pixels, x.long(), reduction="sum") / batch
        return distortion + kl + penalty


def step(rule: str) -> Comparison:
    """One optimizer step."""
    data = noise((32, 32, 3), 256, 512)
    config = Config(
        dataset="cifar10",
        estimator={"vq": "vq", "gumbel": "gs_soft"}[rule],
        features=FEATURES,
        num_latents=LATENTS,
        codebook_size=CODES,
        code_dim=DIM,
        num_residual_blocks=BLOCKS,
        batch_size=BATCH,
    )
    task = cifar_vq.make_task(config, data, sharding.make_mesh(1))
    run = jax.jit(task.step)
    state = jax.jit(task.init)(task.key_init, task.data)
    model, x = Model(), torch.from_numpy(data.train[:BATCH].transpose(0, 3, 1, 2).copy())
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def pytorch() -> None:
        optimizer.zero_grad()
        model.loss(x, rule).backward()
        optimizer.step()

    calls = {
        "experiments.cifar_vq": lambda: run(state, task.data, task.key_train),
        "PyTorch": pytorch,
    }
    title = f"train step of the VQ model ({rule}), {FEATURES} maps, batch {BATCH}"
    return compare(title, calls, repeats=5, mark="1.4 times PyTorch's speed")


def comparisons() -> list[Comparison]:
    """Times both rules."""
    return [step("vq"), step("gumbel")]


if __name__ == "__main__":
    show(comparisons())
