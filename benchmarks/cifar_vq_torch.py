"""The models `gs_soft` and `vq` of cifar_vq and their step in PyTorch, a peer on CPUs and GPUs.

The same layers, codebooks, objective and optimizer: channels last, fused Adam, in bfloat16
convolutions by autocast; distances, divergence and likelihood in float32. `load` copies our
parameters, so that both give the same loss for the same noise.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from experiments.cifar_vq.config import Config

REPEATS = 7


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class Model(nn.Module):
    """Encoder, codebooks, decoder and 256-way pixel likelihood of color images."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, f = config, config.features
        channels, blocks = config.num_latents * config.code_dim, config.num_residual_blocks
        self.encoder = nn.ModuleList(
            [nn.Conv2d(3, f, 4, 2, 1), nn.Conv2d(f, f, 4, 2, 1), nn.Conv2d(f, channels, 1)]
        )
        self.encoder_blocks = nn.Sequential(*(Residual(f) for _ in range(blocks)))
        self.decoder = nn.ModuleList([nn.Conv2d(channels, f, 1), nn.ConvTranspose2d(f, f, 4, 2, 1)])
        self.decoder_blocks = nn.Sequential(*(Residual(f) for _ in range(blocks)))
        self.head = nn.ConvTranspose2d(f, 3 * 256, 4, 2, 1)
        shape = config.num_latents, config.codebook_size
        self.codebook = nn.Parameter(torch.randn(*shape, config.code_dim))
        self.prior_logits = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(config.num_latents))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors float32 [n, B h w, D] of uint8 images [B, 3, H, W]."""
        y = F.relu(self.encoder[0](x.float() / 127.5 - 1))
        y = F.relu(self.encoder_blocks(self.encoder[1](y)))
        y = self.encoder[2](y).float().permute(0, 2, 3, 1)
        return y.reshape(-1, self.config.num_latents, self.config.code_dim).transpose(0, 1)

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """Minus the scaled squared distances, float32 [n, B h w, C]."""
        with torch.autocast(vectors.device.type, enabled=False):
            root = torch.exp(0.5 * self.log_scale)[:, None, None]
            v, m = vectors * root, self.codebook * root
            products = torch.bmm(v, m.transpose(1, 2))
            norms = (v**2).sum(-1, keepdim=True) + (m**2).sum(-1)[:, None]
            return -(norms - 2 * products).clamp(min=0)

    def loss(self, x: torch.Tensor, gumbels: torch.Tensor | None = None) -> torch.Tensor:
        """The negative objective, nats a sub-pixel, of uint8 images [B, 3, H, W]."""
        vectors = self.encode(x)
        if self.config.estimator == "vq":
            return self.of_nearest(x, vectors)
        logits = self.logits(vectors)
        if gumbels is None:
            gumbels = -torch.empty_like(logits).exponential_().log()
        y = F.softmax((logits + gumbels) / self.config.temperature, -1)
        log_q, log_p = F.log_softmax(logits, -1), F.log_softmax(self.prior_logits, -1)
        kl = (log_q.exp() * (log_q - log_p[:, None])).sum()
        return (self.distortion(x, torch.bmm(y, self.codebook)) + kl) / x.numel()

    def of_nearest(self, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """The loss of the nearest codes, straight-through, with both VQ losses."""
        with torch.autocast(vectors.device.type, enabled=False), torch.no_grad():
            norms = (self.codebook**2).sum(-1)[:, None]
            distances = norms - 2 * torch.bmm(vectors, self.codebook.transpose(1, 2))
            codes = distances.argmin(-1)
        dim = self.config.code_dim
        quantized = torch.gather(self.codebook, 1, codes[..., None].expand(-1, -1, dim))
        rate = -torch.gather(F.log_softmax(self.prior_logits, -1), 1, codes).sum()
        penalty = ((quantized - vectors.detach()) ** 2).sum()
        penalty = penalty + self.config.commitment * ((quantized.detach() - vectors) ** 2).sum()
        chosen = vectors + (quantized - vectors).detach()
        return (self.distortion(x, chosen) + rate + penalty / dim) / x.numel()

    def distortion(self, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """-log p of all images at decoder inputs [n, B h w, D], nats."""
        batch, _, height, width = x.shape
        codes = vectors.transpose(0, 1)
        codes = codes.reshape(batch, height // 4, width // 4, -1).permute(0, 3, 1, 2)
        hidden = F.relu(self.decoder_blocks(self.decoder[0](codes)))
        pixels = self.head(F.relu(self.decoder[1](hidden)))
        pixels = pixels.reshape(batch, 3, 256, height, width).transpose(1, 2)
        return F.cross_entropy(pixels.float(), x.long(), reduction="sum")


def load(model: Model, params: dict[str, Any]) -> None:
    """Copies the parameters of `experiments.cifar_vq`."""
    network = params["network"]

    def copy(layer: nn.Module, ours: dict[str, Any]) -> None:
        kernel, order = np.asarray(ours["kernel"]), (3, 2, 0, 1)
        if isinstance(layer, nn.ConvTranspose2d):  # taps are counted from the other end there
            kernel, order = kernel[::-1, ::-1], (2, 3, 0, 1)
        layer.weight.copy_(torch.tensor(kernel.transpose(order).copy()))
        layer.bias.copy_(torch.tensor(np.asarray(ours["bias"]).ravel()))

    with torch.no_grad():
        for side, layers, blocks in (
            ("encoder", model.encoder, model.encoder_blocks),
            ("decoder", model.decoder, model.decoder_blocks),
        ):
            ours = network[side]
            names = [f"Conv_{i}" for i in range(3)] if side == "encoder" else ["Conv_0"]
            names += ["ConvTranspose_0"] if side == "decoder" else []
            for layer, name in zip(layers, names, strict=True):
                copy(layer, ours[name])
            for i, block in enumerate(blocks):
                copy(block.first, ours[f"ResidualBlock_{i}"]["Conv_0"])
                copy(block.second, ours[f"ResidualBlock_{i}"]["Conv_1"])
        copy(model.head, network["head"])
        for own, theirs in (
            (model.codebook, params["codebook"]),
            (model.prior_logits, network["prior_logits"]),
            (model.log_scale, network["log_scale"]),
        ):
            own.copy_(torch.tensor(np.asarray(theirs)))


def make_step(
    config: Config,
    images: np.ndarray,
    params: dict[str, Any] | None = None,
    *,
    compiled: bool,
    device: str,
) -> Callable[[], None]:
    """Returns a train step, from our parameters where they are given."""
    torch.backends.cudnn.benchmark = True  # shapes stay, so the fastest kernels can be looked for
    torch.manual_seed(0)
    model = Model(config)
    if params is not None:
        load(model, params)
    model = model.to(device, memory_format=torch.channels_last)
    data = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    loss = torch.compile(model.loss) if compiled else model.loss

    def step() -> None:
        index = torch.randint(len(data), (config.batch_size,), device=device)
        batch = data[index].contiguous(memory_format=torch.channels_last)
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            value = loss(batch)
        value.backward()
        adam.step()

    return step


def timed(config: Config, images: np.ndarray, num_steps: int, *, compiled: bool) -> dict[str, Any]:
    """Time and images a second of a step, on a GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    step = make_step(config, images, compiled=compiled, device=device)
    began = time.perf_counter()
    step()
    wait()
    compile_seconds = time.perf_counter() - began
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        for _ in range(num_steps):
            step()
        wait()
        times.append((time.perf_counter() - began) / num_steps)
    seconds = statistics.median(times[2:])
    return {
        "peer": "PyTorch, torch.compile of the loss" if compiled else "PyTorch, eager",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "steps_a_call": num_steps,
        "compile_seconds": round(compile_seconds, 1),
        "step_ms": round(1e3 * seconds, 4),
        "images_per_s": round(config.batch_size / seconds),
    }
