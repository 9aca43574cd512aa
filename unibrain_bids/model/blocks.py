"""Building blocks shared by the networks; volumes are (batch, channel, X, Y, Z)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

NEGATIVE_SLOPE = 0.01


class ConvBlock(nn.Module):
    """Two 3x3x3 convolutions, each with instance normalisation and LeakyReLU (NPP, Fig. 1).

    `groups` > 0 takes group normalisation instead: it keeps what a channel says of the whole volume, which instance
    normalisation takes away.

    With a modulation, every normalised channel is scaled and shifted before the activation (NPP eq. 3). `middle` is
    the width between the two, if it is another than `outputs`.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 0, *, middle: int = 0) -> None:
        super().__init__()
        widths = (inputs, middle or outputs, outputs)
        self.convs = nn.ModuleList([nn.Conv3d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths)])
        self.norms = nn.ModuleList(
            [nn.GroupNorm(groups, n) if groups else nn.InstanceNorm3d(n, affine=True) for n in widths[1:]]
        )

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Apply the block; `modulation` is (batch, 2 layers, 2, outputs): relative scale and bias per channel."""
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if modulation is not None:
                scale, bias = modulation[:, layer].unbind(1)
                x = x * (1 + scale)[..., None, None, None] + bias[..., None, None, None]
            x = functional.leaky_relu(x, NEGATIVE_SLOPE)
        return x


def twice_as_fine(volume: Tensor) -> Tensor:
    """A volume (batch, channels, X, Y, Z) on the grid of half the spacing, trilinear."""
    # With the channels last a CPU takes a fraction of the time.
    volume = volume.contiguous(memory_format=torch.channels_last_3d)
    return functional.interpolate(volume, scale_factor=2.0, mode="trilinear", align_corners=False)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP over a sequence (batch, tokens, width)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the tokens."""
        normed = self.norm_attention(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm_mlp(tokens))


class BottleneckTransformer(nn.Module):
    """Transformer blocks over the bottleneck, one token a voxel (NPP: 3 blocks, 8 heads, MLP ratio 1)."""

    def __init__(self, width: int, blocks: int = 3, heads: int = 8, mlp_ratio: float = 1.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TransformerBlock(width, heads, mlp_ratio) for _ in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        """Flatten the grid to tokens, mix, and fold back."""
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class Hypernetwork(nn.Module):
    """Lambda to a scale and a bias for every decoder channel (NPP: 3-layer MLP; here on log10 lambda).

    Parameters
    ----------
    channels
        Width of each conditioned decoder block (two layers each).
    hidden
        Widths of the two hidden layers.
    """

    def __init__(self, channels: tuple[int, ...], hidden: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        layers = [nn.Linear(1, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], hidden[1]), nn.ReLU()]
        output = nn.Linear(hidden[1], 4 * sum(channels))
        self.mlp = nn.Sequential(*layers, output)
        # At the start every lambda gives the unconditioned network.
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)

    def forward(self, smoothness: Tensor) -> list[Tensor]:
        """Modulations (batch, 2, 2, width) for lambda (batch,) > 0, one per decoder block."""
        flat = self.mlp(torch.log10(smoothness)[:, None])
        parts = flat.split([4 * width for width in self.channels], dim=1)
        return [part.view(-1, 2, 2, width) for part, width in zip(parts, self.channels, strict=True)]
