"""Small families of real networks to time: the dummies of a crash test, built like what people drive.

Plain torch as frameworks write it, nothing fused by hand: a decoder (dense or mixture of experts), ResNet-50 and
a recommender. Layers and whole steps are timed with the same modules, so that one explains the other. Importing
this module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its customary name


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder layer, with the names of published-run tables."""

    hidden: int
    heads: int
    kv_heads: int
    ffn_hidden: int
    experts: int = 0
    """0 = a dense layer."""
    topk: int = 0

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


class RmsNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467) by torch's own kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The norm over the last axis; in the format of ``x``, as under mixed precision frameworks do."""
        if not hasattr(F, "rms_norm"):  # torch before 2.4
            return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5).to(x.dtype) * self.weight
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-5)


class Attention(nn.Module):
    """Grouped-query attention with one projection for queries, keys and values; causal."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.qkv = nn.Linear(shape.hidden, width, bias=False)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Attention of ``x`` [batch, tokens, hidden] to itself, or of its one token to a ``cache`` of keys, values.

        The cache holds [batch, kv_heads, keys, head_dim]; the new token takes its last place.
        """
        s, (batch, tokens, _) = self.shape, x.shape
        parts = self.qkv(x).view(batch, tokens, s.heads + 2 * s.kv_heads, s.head_dim).transpose(1, 2)
        query, key, value = parts.split((s.heads, s.kv_heads, s.kv_heads), dim=1)
        if cache is not None:
            cache[0][:, :, -1:], cache[1][:, :, -1:] = key, value
            key, value = cache
        seen = attend(query, key, value, causal=cache is None)
        return self.out(seen.transpose(1, 2).reshape(batch, tokens, s.hidden))


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """Scaled dot-product attention on [batch, heads, tokens, head_dim]; fewer key heads are shared."""
    if key.shape[1] == query.shape[1]:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    try:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)
    except TypeError:  # torch before 2.5
        group = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(group, dim=1) for one in (key, value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)


class Mlp(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202) with gate and up projection in one matrix."""

    def __init__(self, hidden: int, ffn_hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(hidden, 2 * ffn_hidden, bias=False)
        self.down = nn.Linear(ffn_hidden, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both matrices around the gated activation."""
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Mixture(nn.Module):
    """Router and experts; routing is dealt out evenly, as training makes it by loss or bias.

    Tokens are sorted by expert, and every expert takes the same number: one batched product for each matrix.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.topk = shape.topk
        self.router = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.up = nn.Parameter(torch.randn(shape.experts, shape.hidden, 2 * shape.ffn_hidden) * 0.02)
        self.down = nn.Parameter(torch.randn(shape.experts, shape.ffn_hidden, shape.hidden) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Weighted sum of ``topk`` experts for each token; topk x tokens must be a multiple of the experts."""
        flat = x.reshape(-1, x.shape[-1])
        experts = self.up.shape[0]
        weight, _ = self.router(flat).float().softmax(-1).topk(self.topk, dim=-1)
        pairs = torch.arange(flat.shape[0] * self.topk, device=x.device)
        place = (pairs % experts).argsort(
            stable=True
        )  # even routing: token t visits experts t k, t k + 1, ...
        gathered = flat[place // self.topk].view(experts, -1, x.shape[-1])
        gate, up = torch.bmm(gathered, self.up.to(x.dtype)).chunk(2, dim=-1)
        made = torch.bmm(F.silu(gate) * up, self.down.to(x.dtype)).view(-1, x.shape[-1])
        scaled = made * weight.reshape(-1)[place].unsqueeze(-1).to(made.dtype)
        return torch.zeros_like(flat, dtype=made.dtype).index_add(0, place // self.topk, scaled).view_as(x)


class Layer(nn.Module):
    """Norm, attention, residual, norm, MLP or experts, residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norms = nn.ModuleList([RmsNorm(shape.hidden), RmsNorm(shape.hidden)])
        self.attention = Attention(shape)
        self.mlp = Mixture(shape) if shape.experts else Mlp(shape.hidden, shape.ffn_hidden)

    def forward(self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The residual stream [batch, tokens, hidden] after the layer."""
        x = x + self.attention(self.norms[0](x), cache)
        return x + self.mlp(self.norms[1](x))


class Decoder(nn.Module):
    """Embedding, layers, norm and head; untied."""

    def __init__(
        self, shape: Shape, layers: int, vocab: int, *, recompute: bool = False, stream: Any = None
    ) -> None:
        """``stream``: number format of the residual stream where it is not that of the weights (autocast)."""
        super().__init__()
        self.recompute, self.stream = recompute, stream
        self.embedding = nn.Embedding(vocab, shape.hidden)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(layers)])
        self.norm = RmsNorm(shape.hidden)
        self.head = nn.Linear(shape.hidden, vocab, bias=False)

    def hidden(self, tokens: Tensor, caches: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Residual stream after the last layer for ``tokens`` [batch, tokens]."""
        from torch.utils.checkpoint import checkpoint

        x = self.embedding(tokens)
        if self.stream is not None:
            x = x.to(self.stream)
        for number, layer in enumerate(self.layers):
            if self.recompute:
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x, None if caches is None else caches[number])
        return x

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the next token over ``tokens`` [batch, sequence + 1]."""
        logits = self.head(self.norm(self.hidden(tokens[:, :-1])))
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def serve(self, tokens: Tensor, caches: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Logits of the last position: a prefill, or with ``caches`` one decode step."""
        return self.head(self.norm(self.hidden(tokens, caches)[:, -1]))


def caches(
    shape: Shape, layers: int, batch: int, keys: int, device: str, dtype: Any
) -> list[tuple[Tensor, Tensor]]:
    """Key and value caches of every layer, filled with normal random numbers."""
    size = (batch, shape.kv_heads, keys, shape.head_dim)

    def filled() -> Tensor:
        return torch.randn(size, device=device).to(dtype)

    return [(filled(), filled()) for _ in range(layers)]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut (He et al. 2016, arXiv 1512.03385; stride in the 3x3, v1.5)."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(into, width, 1, bias=False),
                nn.Conv2d(width, width, 3, stride, 1, bias=False),
                nn.Conv2d(width, out, 1, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(out)])
        self.shortcut = (
            nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride != 1 or into != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output after its last ReLU."""
        y = F.relu(self.norms[0](self.convolutions[0](x)))
        y = F.relu(self.norms[1](self.convolutions[1](y)))
        return F.relu(self.norms[2](self.convolutions[2](y)) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 v1.5 on 224 x 224 images."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        into = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 << stage
            for number in range(count):
                blocks.append(Bottleneck(into, width, 2 if stage and number == 0 else 1))
                into = 4 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2048, 1000)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of ``images`` [batch, 3, 224, 224]."""
        return F.cross_entropy(self.head(self.blocks(self.stem(images)).mean((2, 3))).float(), labels)


class Recommender(nn.Module):
    """Tables, MLP over dense features, MLP over both (Naumov et al. 2019, arXiv 1906.00091, without products)."""

    def __init__(self, tables: int, rows: int, dim: int, bottom: Sequence[int], top: Sequence[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            [nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for _ in range(tables)]
        )
        self.bottom, self.top = mlp(bottom), mlp(((tables + 1) * dim, *top))

    def loss(self, dense: Tensor, indices: Tensor, clicks: Tensor) -> Tensor:
        """Mean log-loss; ``indices`` [tables, batch, look-ups], ``dense`` [batch, features]."""
        found = [table(one) for table, one in zip(self.tables, indices, strict=True)]
        logits = self.top(torch.cat([self.bottom(dense), *found], dim=1)).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits.float(), clicks)


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU behind each but the last."""
    layers: list[nn.Module] = []
    for k, n in pairwise(widths):
        layers += [nn.Linear(k, n), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class FlatGradients:
    """All dense gradients of a module in one buffer, so that one message carries them (as Megatron-LM does)."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        first = self.parameters[0]
        self.values = torch.zeros(sum(p.numel() for p in self.parameters), device=first.device)
        offset = 0
        for p in self.parameters:
            p.grad = self.values[offset : offset + p.numel()].view_as(p)
            offset += p.numel()

    def clear(self) -> None:
        """Zero for the next step."""
        self.values.zero_()


def adam(parameters: Sequence[nn.Parameter], kind: str = "fused") -> torch.optim.Optimizer:
    """AdamW in one kernel (``fused``; where torch has it for the device) or with multi-tensor kernels."""
    own = list(parameters)
    if kind == "fused":
        try:
            return torch.optim.AdamW(own, lr=1e-4, fused=True)
        except RuntimeError:  # torch before 2.4 on a CPU
            pass
    return torch.optim.AdamW(own, lr=1e-4, foreach=True)
