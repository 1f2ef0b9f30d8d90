"""The drawn network in PyTorch, at the settings that people try for speed."""

from itertools import pairwise

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

    def shown():
        return (slices.float() / 255).contiguous(memory_format=layout)

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

    def predict():
        network.eval()
        with torch.no_grad(), autocast():
            return forward(shown()).numpy()

    kept = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    return work.System(train, predict, sum(one.numel() for one in kept))
