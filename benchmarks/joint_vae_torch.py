"""JointVAE on MNIST in PyTorch: are the accuracies of `experiments.joint_vae` the method's own?

    python benchmarks/joint_vae_torch.py --data_dir=DIR --num_steps=25000 --seed=0

The settings of `joint_vae --preset=mnist` with PyTorch's layers, initialization and Adam, decoder
maps of 64, 32, 32 as in the publication's program, logarithms of variances, and loss divided by
the pixels. Prints the accuracy of the code, each code naming the commonest digit of its training
images, every 2,500 steps.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dvae import data

PIXELS, BATCH, NORMAL, CLASSES = 32 * 32, 64, 10, 10
GAMMA, CAPACITY, CAPACITY_STEPS, TEMPERATURE = 30.0, 5.0, 25_000, 0.67


class JointVAE(nn.Module):
    """The networks."""

    def __init__(self) -> None:
        super().__init__()
        down = lambda a, b: [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
        up = lambda a, b: nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)
        self.encoder = nn.Sequential(
            *down(1, 32),
            *down(32, 64),
            *down(64, 64),
            nn.Flatten(),
            nn.Linear(1024, 256),
            nn.ReLU(),
        )
        self.mean, self.log_variance = nn.Linear(256, NORMAL), nn.Linear(256, NORMAL)
        self.class_logits = nn.Linear(256, CLASSES)
        self.decoder = nn.Sequential(
            *(nn.Linear(NORMAL + CLASSES, 256), nn.ReLU(), nn.Linear(256, 1024), nn.ReLU()),
            *(nn.Unflatten(1, (64, 4, 4)), up(64, 32), nn.ReLU(), up(32, 32), nn.ReLU(), up(32, 1)),
        )

    def loss(
        self, x: torch.Tensor, step: int, noise: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Cross entropy and the penalties of both kinds of variables, nats an image.

        The noise of h and c [B, 10], normal and Gumbel, is drawn unless it is given.
        """
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        log_q = F.log_softmax(self.class_logits(hidden), -1)
        normals, gumbels = noise or (
            torch.randn_like(mean),
            -torch.log(-torch.log(torch.rand_like(log_q).clamp(1e-12, 1 - 1e-7))),
        )
        h = mean + torch.exp(log_variance / 2) * normals
        c = F.softmax((log_q + gumbels) / TEMPERATURE, -1)
        logits = self.decoder(torch.cat([h, c], -1))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl_h = (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1).mean() / 2
        kl_c = math.log(CLASSES) + (log_q.exp() * log_q).sum(-1).mean()
        capacity = min(CAPACITY * step / CAPACITY_STEPS, CAPACITY)
        penalty = (kl_h - capacity).abs() + (kl_c - min(capacity, math.log(CLASSES))).abs()
        return distortion + GAMMA * penalty

    @torch.no_grad()
    def codes(self, x: torch.Tensor) -> np.ndarray:
        """The likeliest code of each image."""
        chunks = (self.class_logits(self.encoder(part)).argmax(-1) for part in x.split(1000))
        return torch.cat(list(chunks)).numpy()


def load(model: JointVAE, params: dict[str, Any]) -> None:
    """Copies the parameters of `experiments.joint_vae`."""
    maps = torch.arange(1024).reshape(4, 4, 64).permute(2, 0, 1).ravel()  # ours are channels last

    def copy(layer: nn.Module, ours: dict[str, Any], scale: float = 1.0) -> None:
        kernel, order = np.asarray(ours["kernel"]), (3, 2, 0, 1)
        if isinstance(layer, nn.Linear):
            order = (1, 0)
        elif isinstance(layer, nn.ConvTranspose2d):  # taps are counted from the other end there
            kernel, order = kernel[::-1, ::-1], (2, 3, 0, 1)
        layer.weight.copy_(scale * torch.tensor(kernel.transpose(order).copy()))
        layer.bias.copy_(scale * torch.tensor(np.asarray(ours["bias"])))

    encoder = [layer for layer in model.encoder if hasattr(layer, "weight")]
    decoder = [layer for layer in model.decoder if hasattr(layer, "weight")]
    with torch.no_grad():
        for i in range(3):
            copy(encoder[i], params[f"convolutions_{i}"])
            copy(decoder[2 + i], params[f"transposed_{i}"])
        copy(encoder[3], params["hidden"])
        encoder[3].weight.copy_(encoder[3].weight[:, maps])
        copy(decoder[0], params["from_latents"])
        copy(decoder[1], params["to_maps"])
        decoder[1].weight.copy_(decoder[1].weight[maps])
        decoder[1].bias.copy_(decoder[1].bias[maps])
        copy(model.mean, params["mean"])
        copy(model.log_variance, params["log_scale"], 2.0)
        copy(model.class_logits, params["class_logits_0"])


def make_step(
    images: np.ndarray, params: dict[str, Any], *, compiled: bool, step: int
) -> Callable[[], None]:
    """Returns a train step of uint8 images [N, 32, 32, 1] at a step's capacities, on the CPU."""
    model = JointVAE()
    load(model, params)
    data = torch.from_numpy(images).movedim(-1, 1).contiguous()
    adam = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)
    loss = torch.compile(model.loss) if compiled else model.loss

    def run() -> None:
        batch = data[torch.randint(len(data), (BATCH,))].float() / 255
        adam.zero_grad(set_to_none=True)
        (loss(batch, step) / PIXELS).backward()
        adam.step()

    return run


def accuracy(model: JointVAE, train: tuple, test: tuple) -> float:
    """Share of test images whose code's commonest training digit is theirs."""
    counts = np.zeros((CLASSES, 10), np.int64)
    np.add.at(counts, (model.codes(train[0]), train[1]), 1)
    return float((counts.argmax(-1)[model.codes(test[0])] == test[1]).mean())


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir")
    parser.add_argument("--num_steps", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    images = data.resized(data.load_grey("mnist", options.data_dir), 32)
    pixels = lambda x: torch.from_numpy(np.asarray(x, np.float32) / 255).movedim(-1, 1)
    train = pixels(images.train), np.asarray(images.train_labels)
    test = pixels(images.test), np.asarray(images.test_labels)
    model = JointVAE()
    adam = torch.optim.Adam(model.parameters(), lr=5e-4)
    began, order = time.perf_counter(), torch.empty(0, dtype=torch.long)
    for step in range(1, options.num_steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(train[0]))
        batch, order = order[:BATCH], order[BATCH:]
        adam.zero_grad()
        (model.loss(train[0][batch], step) / PIXELS).backward()
        adam.step()
        if step % 2_500 == 0 or step == options.num_steps:
            found = {"step": step, "accuracy": accuracy(model, train, test)}
            seconds = round(time.perf_counter() - began, 1)
            print(json.dumps({**found, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
