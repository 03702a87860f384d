"""Small definitions of known networks, for the tests of tracing; imported only where torch is."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Bottleneck(nn.Module):
    """He et al. 2016, figure 5 right; the stride in the 3x3 convolution."""

    def __init__(self, inside: int, width: int, outside: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        cut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = cut if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet_50() -> tuple[nn.Module, torch.Tensor]:
    """Table 1 of the article, one image."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inside = 64
    for width, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(repeats):
            layers.append(
                Bottleneck(inside, width, 4 * width, stride if number == 0 else 1, first=number == 0)
            )
            inside = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*layers).eval(), torch.zeros(1, 3, 224, 224)


HIDDEN, HEADS, TOKENS = 12288, 96, 2048


class GptBlock(nn.Module):
    """One layer of GPT-3: Brown et al. 2020, table 2.1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, hidden = x.shape
        heads = self.qkv(self.first(x)).view(batch, tokens, 3, HEADS, hidden // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, hidden))
        return x + self.down(F.gelu(self.up(self.second(x))))


def gpt_block() -> tuple[nn.Module, torch.Tensor]:
    """A layer of 1.8 billion parameters, one sequence."""
    return GptBlock(), torch.zeros(1, TOKENS, HIDDEN)


def tied() -> tuple[nn.Module, torch.Tensor]:
    """Embedding and head share their weights."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(100, 8), nn.Linear(8, 100, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(words))

    return Tied(), torch.zeros(2, 5, dtype=torch.long)


def nothing() -> int:
    """Not a model."""
    return 3


def looks_at_values() -> tuple[nn.Module, torch.Tensor]:
    """A model whose path depends on data."""

    class Choosy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0] if bool(x.sum() > 0) else x

    return Choosy(), torch.zeros(3)
