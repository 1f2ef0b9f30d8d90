"""The plain ResUNet in PyTorch, with the options that people try for speed.

B slices, S x S pixels, C channels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench import workload


class Residual(nn.Module):  # type: ignore[misc]  # PyTorch is optional, so its types are not read
    """A residual block: 1x1 and 3x3 convolution, and a 1x1 shortcut."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, width, 1), norm(width), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), norm(width))
        self.short = nn.Sequential(nn.Conv2d(channels, width, 1), norm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.wide(self.narrow(x)) + self.short(x))


class ResUNet(nn.Module):  # type: ignore[misc]  # PyTorch is optional, so its types are not read
    """Maps (B, 3, S, S) in [0, 1] to (B, 1, S, S) float32 probability.

    filters: five widths, from the full resolution to the bottom.
    """

    def __init__(self, filters: Sequence[int] = workload.FILTERS):
        super().__init__()
        top = filters[0]
        opening: list[nn.Module] = []
        for channels in (3, top):
            opening += [nn.Conv2d(channels, top, 3, padding=1), nn.ReLU(), norm(top)]
        self.opening = nn.Sequential(*opening)
        pairs = list(pairwise(filters))
        self.down = nn.ModuleList([Residual(above, below) for above, below in pairs])
        self.rise = nn.ModuleList([Residual(above + below, above) for above, below in pairs])
        self.last = nn.Conv2d(top, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.opening(x)]
        for block in self.down:
            skips.append(block(functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block, skip in zip(reversed(self.rise), reversed(skips), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), skip], 1))
        return torch.sigmoid(self.last(x).float())


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


def loss_of(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the focal Tversky loss over the batch, as in `pipeline.network.losses`."""
    weight = workload.MISSED_WEIGHT
    true_positives = (predicted * truth).sum()
    missed, false_positives = truth.sum() - true_positives, predicted.sum() - true_positives
    cost = weight * missed + (1 - weight) * false_positives
    index = (true_positives + 1) / (true_positives + cost + 1)
    return (1 - index).clamp_min(1e-6) ** workload.EXPONENT


def pytorch(*, channels_last: bool, bfloat16: bool, compiled: bool) -> workload.System:
    """Train and predict on a CPU.

    Args:
        channels_last: memory layout; otherwise contiguous.
        bfloat16: autocast to it.
        compiled: use torch.compile.
    """
    torch.manual_seed(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = ResUNet().to(memory_format=layout)
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), workload.LEARNING_RATE)
    slices, masks = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in workload.batch())

    def run(images: torch.Tensor) -> torch.Tensor:
        scaled = (images.float() / 255).contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return forward(scaled)

    def train() -> float:
        network.train()
        optimizer.zero_grad()
        loss = loss_of(run(slices), masks)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def predict(images: torch.Tensor = slices) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return np.asarray(run(images).numpy())

    def predict_arrays(images: np.ndarray) -> np.ndarray:
        return predict(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0]

    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    return workload.System(
        train=train,
        predict=predict,
        segment=lambda folder, out: workload.by_files(folder, out, predict_arrays),
        parameters=sum(values.numel() for values in [*network.parameters(), *buffers]),
    )


def resident(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    device: str,
    bfloat16: bool,
    mode: str | None,
    filters: Sequence[int] = workload.FILTERS,
) -> Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]:
    """Prepare training steps on slices that are resident on a device and augmented there.

    Args:
        images: (N, S, S, 3) uint8; masks: (N, S, S) uint8, share of tumour times 255.
        mode: of torch.compile, such as `default`; None runs each operation by itself.

    Returns:
        A function of (T, B) positions and what `augment.stack` returns for them, which takes
        T steps and returns their (T,) losses.
    """
    torch.manual_seed(1)
    _allow_fast_float32()
    network = ResUNet(filters).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), workload.LEARNING_RATE, fused=True)
    all_images, all_masks = (torch.from_numpy(array).to(device) for array in (images, masks))

    def cost(
        slices: torch.Tensor, shares: torch.Tensor, transforms: torch.Tensor, gains: torch.Tensor
    ) -> torch.Tensor:
        augmented, truth = changed(slices, shares, transforms, gains)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            predicted = network(augmented.contiguous(memory_format=torch.channels_last))
        return loss_of(predicted, truth)

    step = cost if mode is None else torch.compile(cost, mode=mode)

    def train(chosen: np.ndarray, augmentation: Sequence[np.ndarray]) -> np.ndarray:
        arrays = (chosen, *augmentation[:2])
        losses = []
        for positions, transforms, gains in zip(
            *(torch.from_numpy(array).to(device) for array in arrays), strict=True
        ):
            optimizer.zero_grad()
            loss = step(all_images[positions], all_masks[positions], transforms, gains)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
        return np.asarray(torch.stack(losses).cpu().numpy())

    return train


def changed(
    images: torch.Tensor, masks: torch.Tensor, transforms: torch.Tensor, gains: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment slices as `augment.apply` does.

    Args:
        images: (B, S, S, 3) uint8; masks: (B, S, S) uint8.
        transforms, gains: as in `augment.Sampled`.

    Returns:
        (B, 3, S, S) and (B, 1, S, S), both in [0, 1].
    """
    side = images.shape[1]
    both = torch.cat([images, masks[..., None]], -1).permute(0, 3, 1, 2).float()
    position = torch.arange(side, device=both.device, dtype=torch.float32)
    y, x = torch.meshgrid(position, position, indexing="ij")
    a, b, right, c, d, down = (column[:, None, None] for column in transforms[:, :6].unbind(1))
    sampled_at = torch.stack([a * x + b * y + right, c * x + d * y + down], -1)
    grid = sampled_at * 2 / (side - 1) - 1
    moved = functional.grid_sample(both, grid, align_corners=True)
    scaled = (moved[:, :3] * gains.permute(0, 3, 1, 2)).clamp(0, 255).round()
    return scaled / 255, moved[:, 3:] / 255


def _allow_fast_float32() -> None:
    """Allow TF32 (factors of ten bits), as XLA does, and let cuDNN pick the fastest kernels."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
