"""The drawn network in PyTorch, at the settings that people try for speed."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench import work


class Residual(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, width, 1), norm(width), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), norm(width))
        self.short = nn.Sequential(nn.Conv2d(channels, width, 1), norm(width))

    def forward(self, x):
        return functional.relu(self.wide(self.narrow(x)) + self.short(x))


class ResUNet(nn.Module):
    def __init__(self, filters=work.FILTERS):
        super().__init__()
        top = filters[0]
        steps = []
        for channels in (3, top):
            steps += [nn.Conv2d(channels, top, 3, padding=1), nn.ReLU(), norm(top)]
        self.opening = nn.Sequential(*steps)
        pairs = list(pairwise(filters))
        self.down = nn.ModuleList([Residual(above, below) for above, below in pairs])
        self.rise = nn.ModuleList([Residual(above + below, above) for above, below in pairs])
        self.last = nn.Conv2d(top, 1, 1)

    def forward(self, x):
        skips = [self.opening(x)]
        for block in self.down:
            skips.append(block(functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block, skip in zip(reversed(self.rise), reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], 1))
        return torch.sigmoid(self.last(x).float())


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


def loss_of(predicted, truth):
    """Focal Tversky over the batch, as `pipeline.network.losses`."""
    weight = work.MISSED_WEIGHT
    hit = (predicted * truth).sum()
    cost = weight * (truth.sum() - hit) + (1 - weight) * (predicted.sum() - hit)
    index = (hit + 1) / (hit + cost + 1)
    return (1 - index).clamp_min(1e-6) ** work.EXPONENT


def pytorch(*, channels_last: bool, bfloat16: bool, compiled: bool) -> work.System:
    torch.manual_seed(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = ResUNet().to(memory_format=layout)
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), work.LEARNING_RATE)
    slices, masks = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in work.batch())

    def shown(own=slices):
        return (own.float() / 255).contiguous(memory_format=layout)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def train():
        network.train()
        optimizer.zero_grad()
        with autocast():
            predicted = forward(shown())
        loss = loss_of(predicted, masks)
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict(own=slices):
        network.eval()
        with torch.no_grad(), autocast():
            return forward(shown(own)).numpy()

    def of_files(images: np.ndarray) -> np.ndarray:
        return predict(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0]

    kept = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    return work.System(
        train=train,
        predict=predict,
        segment=lambda folder, out: work.by_files(folder, out, of_files),
        parameters=sum(one.numel() for one in kept),
    )


def resident(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    device: str,
    bfloat16: bool,
    mode: str | None,
    filters=work.FILTERS,
) -> Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]:
    """Training steps on slices that lie on a device, changed there as `augment.apply` does.

    Args:
        images: (N, S, S, 3) uint8; masks: (N, S, S) uint8, share of tumour times 255.
        mode: None runs each operation by itself; else torch.compile's, such as `default`.

    Returns:
        Takes (T, B) positions and what `augment.stacked` gives for them, and gives (T,) losses.
    """
    torch.manual_seed(1)
    _allow_fast_float32()
    network = ResUNet(filters).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), work.LEARNING_RATE, fused=True)
    images, masks = (torch.from_numpy(part).to(device) for part in (images, masks))

    def cost(slices, shares, transforms, gains):
        shown, truth = changed(slices, shares, transforms, gains)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            predicted = network(shown.contiguous(memory_format=torch.channels_last))
        return loss_of(predicted, truth)

    step = cost if mode is None else torch.compile(cost, mode=mode)

    def train(chosen: np.ndarray, drawn: Sequence[np.ndarray]) -> np.ndarray:
        parts = [torch.from_numpy(part).to(device) for part in (chosen, *drawn[:2])]
        losses = []
        for own, *change in zip(*parts, strict=True):
            optimizer.zero_grad()
            loss = step(images[own], masks[own], *change)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
        return torch.stack(losses).cpu().numpy()

    return train


def changed(images, masks, transforms, gains):
    """`augment.apply`: (B, S, S, 3) and (B, S, S) uint8 to (B, 3, S, S) and (B, 1, S, S) in [0, 1]."""
    side = images.shape[1]
    both = torch.cat([images, masks[..., None]], -1).permute(0, 3, 1, 2).float()
    place = torch.arange(side, device=both.device, dtype=torch.float32)
    y, x = torch.meshgrid(place, place, indexing="ij")
    a, b, right, c, d, down = (part[:, None, None] for part in transforms[:, :6].unbind(1))
    where = torch.stack([a * x + b * y + right, c * x + d * y + down], -1) * 2 / (side - 1) - 1
    moved = functional.grid_sample(both, where, align_corners=True)
    shown = (moved[:, :3] * gains.permute(0, 3, 1, 2)).clamp(0, 255).round()
    return shown / 255, moved[:, 3:] / 255


def _allow_fast_float32() -> None:
    """Factors of ten bits where the card has them, as XLA takes them, and the fastest kernels."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
