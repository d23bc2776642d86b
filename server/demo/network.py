"""Qwen2-VL for training: the published architecture over packed sequences, with the names of its checkpoints.

Written out here since the library's own vision tower walks the pictures of a batch one by one.
"""

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from server.demo.batches import Packed

HEAD: Final = 64
"""Size of every attention head: the engine's CPU kernel knows it."""
VISION_ROPE_BASE: Final = 10_000.0
PIXEL_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD: Final = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Shape:
    """Widths and depths."""

    vocabulary: int
    vision_width: int = 192
    vision_depth: int = 5
    text_width: int = 256
    text_depth: int = 5
    text_inner: int = 512
    kv_heads: int = 2
    rope_base: float = 100.0
    """Small, since row and column turn the slow half of each head: at the usual 10,000 and more, neighbours in a
    picture of a few tokens differ by too little to be told apart."""
    rope_parts: tuple[int, int, int] = (8, 12, 12)
    """How the 32 frequencies are shared among time, row and column."""


@dataclass(frozen=True)
class Spans:
    """Which tokens see each other: bounds (int32, sequences + 1), the longest one, and whether only backwards."""

    bounds: Tensor
    longest: int
    causal: bool


def attend(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> Tensor:
    """Attention within each sequence; all of shape (tokens, heads, 64)."""
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn  # absent from older releases, and of no use on a CPU

        window = (-1, 0) if spans.causal else (-1, -1)
        bounds, longest = spans.bounds, spans.longest
        return cast(Tensor, varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=window))
    return torch.cat([_attend_one(part, spans.causal) for part in _cut(query, key, value, spans.bounds)])


def _cut(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    lengths = bounds.diff().tolist()
    return list(zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True))


def _attend_one(part: tuple[Tensor, Tensor, Tensor], causal: bool) -> Tensor:
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in part)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal)[0].transpose(0, 1)


def rotate(tensor: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn (tokens, heads, 64) by the angles (tokens, 64) of each token."""
    first, second = tensor.float().chunk(2, dim=-1)
    turned = tensor * cosine[:, None] + torch.cat((-second, first), dim=-1) * sine[:, None]
    return turned.to(tensor.dtype)


def _angles(places: Tensor, base: float, count: int) -> Tensor:
    """Angles (..., count) of positions."""
    steps = torch.arange(count, device=places.device, dtype=torch.float32) / count
    return places[..., None].float() * base**-steps


class VisionAttention(nn.Module):
    """All patches of one picture see each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], spans: Spans) -> Tensor:
        query, key, value = self.qkv(x).view(len(x), 3, -1, HEAD).unbind(1)
        out = attend(rotate(query, *turn), rotate(key, *turn), value.contiguous(), spans)
        return self.proj(out.flatten(1))  # type: ignore[no-any-return]


class VisionMlp(nn.Module):
    """Two layers with the quick form of GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc1(x)
        return self.fc2(inner * torch.sigmoid(1.702 * inner))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """Attention and MLP, each after a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VisionAttention(width)
        self.mlp = VisionMlp(width)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], spans: Spans) -> Tensor:
        x = x + self.attn(self.norm1(x), turn, spans)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """A linear map of each patch, stored as the convolution it stands for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, (2, 14, 14), bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches.flatten(1), self.proj.weight.flatten(1))


class PatchMerger(nn.Module):
    """Four neighbouring patches become one token of the text model."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.ln_q = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(4 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.ln_q(x).view(len(x) // 4, -1))  # type: ignore[no-any-return]


class Vision(nn.Module):
    """The vision tower."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(shape.vision_width)
        self.blocks = nn.ModuleList(VisionBlock(shape.vision_width) for _ in range(shape.vision_depth))
        self.merger = PatchMerger(shape.vision_width, shape.text_width)

    def forward(self, patches: Tensor, batch: Packed) -> Tensor:
        angles = _angles(batch.patch_places, VISION_ROPE_BASE, HEAD // 4).flatten(1).repeat(1, 2)
        turn = angles.cos(), angles.sin()
        spans = Spans(batch.patch_bounds, batch.longest_picture, causal=False)
        x = self.patch_embed(patches).float()  # autocast would otherwise add up the blocks in bfloat16
        for block in self.blocks:
            x = block(x, turn, spans)
        return self.merger(x)  # type: ignore[no-any-return]


class TextAttention(nn.Module):
    """Grouped-query attention backwards in the text."""

    def __init__(self, width: int, kv_heads: int) -> None:
        super().__init__()
        self.groups = width // HEAD // kv_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_heads * HEAD)
        self.v_proj = nn.Linear(width, kv_heads * HEAD)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], spans: Spans) -> Tensor:
        query, key, value = (proj(x).view(len(x), -1, HEAD) for proj in (self.q_proj, self.k_proj, self.v_proj))
        key = rotate(key, *turn).repeat_interleave(self.groups, dim=1)
        out = attend(rotate(query, *turn), key, value.repeat_interleave(self.groups, dim=1), spans)
        return self.o_proj(out.flatten(1))  # type: ignore[no-any-return]


class TextMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class TextBlock(nn.Module):
    """One layer of the text model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.text_width, eps=1e-6)
        self.post_attention_layernorm = nn.RMSNorm(shape.text_width, eps=1e-6)
        self.self_attn = TextAttention(shape.text_width, shape.kv_heads)
        self.mlp = TextMlp(shape.text_width, shape.text_inner)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], spans: Spans) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, spans)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Text(nn.Module):
    """The text model; its embedding is its output layer too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.text_width)
        self.layers = nn.ModuleList(TextBlock(shape) for _ in range(shape.text_depth))
        self.norm = nn.RMSNorm(shape.text_width, eps=1e-6)

    def forward(self, x: Tensor, batch: Packed) -> Tensor:
        by_axis = _angles(batch.places, self.shape.rope_base, HEAD // 2).split(self.shape.rope_parts, dim=-1)
        angles = torch.cat([part[axis] for axis, part in enumerate(by_axis)], dim=-1).repeat(1, 2)
        turn = angles.cos(), angles.sin()
        spans = Spans(batch.bounds, batch.longest_text, causal=True)
        for layer in self.layers:
            x = layer(x, turn, spans)
        return self.norm(x)  # type: ignore[no-any-return]


class Network(nn.Module):
    """Vision tower and text model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.visual = Vision(shape)
        self.model = Text(shape)
        self.apply(_initialise)

    def forward(self, batch: Packed, noise: bool = False) -> Tensor:
        """Scores (answers, vocabulary) for every token of the answers, in the order of the batch."""
        embedded = self.model.embed_tokens(batch.ids)
        if len(batch.vision_slots):
            seen = self.visual(normalise(batch, noise), batch)
            embedded = embedded.index_copy(0, batch.vision_slots, seen.to(embedded.dtype))
        hidden = self.model(embedded, batch)
        return F.linear(hidden[batch.answer_slots], self.model.embed_tokens.weight)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def normalise(batch: Packed, noise: bool) -> Tensor:
    """Bytes to the numbers the model takes (patches, 3, 2, 196), with pixel noise for training."""
    stills = batch.stills[:, :, None].expand(-1, -1, 2, -1)
    pixels = torch.cat((stills, batch.clips)).float() / 255
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    pixels = (pixels - mean) / std
    if noise:  # a strength of its own for every patch, up to about six levels of 255
        strength = torch.rand(len(pixels), 1, 1, 1, device=pixels.device).pow(2) * 0.09
        pixels = pixels + torch.randn_like(pixels) * strength
    return pixels
