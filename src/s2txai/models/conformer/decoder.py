"""The Transformer decoder of the paper's models, with norms before its modules."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import nn

from s2txai.models.occlusion import KeysAndValues, split_heads, value_norms

PAD, EOS, UNK = 1, 2, 3  # after the start of sentence, 0

# How a layer reads the encoder: from a query [N, H, L, d] to its context, of the same shape.
Read = Callable[[torch.Tensor], torch.Tensor]


class Attention(nn.Module):
    """Projections of scaled dot-product attention."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # of scores
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(source_width, width)
        self.v_proj = nn.Linear(source_width, width)
        self.out_proj = nn.Linear(width, width)

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, H, L, d]."""
        return split_heads(self.q_proj(x), self.heads)

    def keys_and_values(self, source: torch.Tensor) -> KeysAndValues:
        """Return keys and values [N, H, steps, d] of [N, steps, D]."""
        keys, values = self.k_proj(source), self.v_proj(source)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def value_norms(self, source: torch.Tensor) -> torch.Tensor:
        """Return [H, steps], what each step of [1, steps, D] has to give to a layer's output."""
        return value_norms(split_heads(self.v_proj(source), self.heads), self.out_proj.weight)

    def output(self, context: torch.Tensor) -> torch.Tensor:
        """Return [N, L, D] of a context [N, H, L, d]."""
        out: torch.Tensor = self.out_proj(context.transpose(1, 2).flatten(2))
        return out


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, encoder_width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, encoder_width, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: torch.Tensor,
        read: Read,
        mask: torch.Tensor | None,
        past: KeysAndValues | None = None,
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """Return [N, L, D] and keys and values of all tokens so far.

        Parameters
        ----------
        x
            [N, L, D].
        read
            How this layer reads the encoder.
        mask
            bool [N or 1, 1, L, tokens so far], which tokens each sees; None for all.
        past
            Keys and values of tokens before these.
        """
        normed = self.self_attn_layer_norm(x)
        keys, values = self.self_attn.keys_and_values(normed)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        query = self.self_attn.query(normed)
        context = nnf.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        x = x + self.self_attn.output(context)
        query = self.encoder_attn.query(self.encoder_attn_layer_norm(x))
        x = x + self.encoder_attn.output(read(query))
        x = x + self.fc2(nnf.relu(self.fc1(self.final_layer_norm(x))))
        return x, (keys, values)


class Decoder(nn.Module):
    """Embeddings, layers, output projection."""

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        vocabulary: int,
        width: int,
        *,
        scale_embedding: bool,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(width)
        self.output_projection = nn.Linear(width, vocabulary, bias=False)
        self._scale = math.sqrt(width) if scale_embedding else 1.0

    def forward(
        self,
        tokens: torch.Tensor,
        reads: Sequence[Read],
        past: Sequence[KeysAndValues] | None = None,
        visible: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[KeysAndValues]]:
        """Return hidden states [N, L, D], the final norm included, and the layers' tokens so far.

        Parameters
        ----------
        tokens
            int64 [N, L]; padding only after the last token.
        reads
            For each layer, how it reads the encoder.
        past
            What an earlier call returned, if ``tokens`` is the one token after those.
        visible
            bool [N, L], False where a token's embedding is set to zero; its position is kept.
        """
        n_past = 0 if past is None else past[0][0].shape[2]
        x = self._embed(tokens, n_past, visible)
        mask = None if past is not None else _seen(tokens)
        present = []
        for number, (layer, read) in enumerate(zip(self.layers, reads, strict=True)):
            x, keys_and_values = layer(x, read, mask, None if past is None else past[number])
            present.append(keys_and_values)
        return self.layer_norm(x), present

    def cross_attentions(self) -> list[Attention]:
        """Return the attention of each layer to the encoder."""
        return [cast(DecoderLayer, layer).encoder_attn for layer in self.layers]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return [N, L, V]."""
        out: torch.Tensor = self.output_projection(hidden)
        return out

    def _embed(
        self, tokens: torch.Tensor, n_past: int, visible: torch.Tensor | None
    ) -> torch.Tensor:
        embedded: torch.Tensor = self._scale * self.embed_tokens(tokens)  # (N, L, D)
        if visible is not None:
            embedded = embedded * visible[:, :, None]
        real = tokens != PAD
        places = (real.cumsum(dim=1) + n_past) * real + PAD
        n_positions = n_past + tokens.shape[1] + PAD + 1
        table = token_positions(n_positions, embedded.shape[2], tokens.device)
        return embedded + table.to(embedded)[places]


def _seen(tokens: torch.Tensor) -> torch.Tensor:
    """Return bool [N, 1, L, L], True for tokens that are not later and not padding."""
    length = tokens.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    return earlier & (tokens != PAD)[:, None, None]


def token_positions(n_positions: int, width: int, device: torch.device) -> torch.Tensor:
    """Return float32 [n_positions, width]: sines, then cosines, of p 10000^(-i / (width/2 - 1)).

    The first token has the position after padding's, whose own row is zero.
    """
    half = width // 2
    dimensions = torch.arange(half, device=device).float()
    rates = torch.exp(dimensions * -(math.log(10000) / (half - 1)))
    angles = torch.arange(n_positions, device=device).float()[:, None] * rates
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    table[PAD] = 0
    return table
