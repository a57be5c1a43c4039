"""The Conformer encoder of the paper's models.

Gulati et al. 2020 with the relative attention of Dai et al. 2019, in the variant that the models of
the study were trained with: scores are divided by the root of the model's width, a distance is
looked up in a table that depends on the length of the utterance, and no position is added to the
input. Module names are those of the checkpoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import nn

from s2txai.models.occlusion import split_heads

BATCH_NORM_EPS = 1e-5
MASKED = -1e4  # score of a padded step; exp(-1e4) is 0 in every precision


@dataclass(frozen=True)
class Padding:
    """Which steps of a batch are padding, and how positions count.

    Attributes
    ----------
    valid
        bool [N, T'], or None where nothing is padded.
    shift
        int64 [N, T', T'], where in the flattened scores of positions each pair of steps finds its
        own, for utterances that count positions by their own length; None where all have T'.
    """

    valid: torch.Tensor | None = None
    shift: torch.Tensor | None = None


NO_PADDING = Padding()


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder gives.

    Attributes
    ----------
    states
        [N, T', D].
    lengths
        int64 [N], steps that cover speech.
    ctc_logits
        [N, T', V_source], of the layer that has a CTC head; None without, or if it did not run.
    ctc_lengths
        int64 [N], steps of ``ctc_logits``, before any compression.
    attention
        Self-attention [N, H, T', T'] of each layer, if asked for.
    """

    states: torch.Tensor
    lengths: torch.Tensor
    ctc_logits: torch.Tensor | None
    ctc_lengths: torch.Tensor | None
    attention: list[torch.Tensor]


class Subsampling(nn.Module):
    """Convolutions of stride 2, each with a gate over its channels."""

    def __init__(self, n_bins: int, channels: int, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        inputs = [n_bins] + [channels // 2] * (len(kernels) - 1)
        outputs = [channels] * (len(kernels) - 1) + [2 * width]
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(n_in, n_out, kernel, stride=2, padding=kernel // 2)
            for n_in, n_out, kernel in zip(inputs, outputs, kernels, strict=True)
        )

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return [N, T', D] of features [N, T, F], and the lengths [N] in steps."""
        x = features.transpose(1, 2)  # (N, F, T)
        if lengths is not None:
            # Whatever follows an utterance would reach its last steps.
            x = x.masked_fill(~step_mask(lengths, x.shape[2])[:, None], 0.0)
        for conv in self.conv_layers:
            x = nnf.glu(conv(x), dim=1)  # (N, channels, T / 2)
            if lengths is not None:
                kernel = cast(nn.Conv1d, conv).kernel_size[0]
                lengths = (lengths - kernel + 2 * (kernel // 2)) // 2 + 1
                x = x * step_mask(lengths, x.shape[2])[:, None]
        return x.transpose(1, 2), lengths


class FeedForward(nn.Module):
    """Two linear maps with SiLU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width)
        self.first_linear = nn.Linear(width, hidden)
        self.second_linear = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, T', D]."""
        out: torch.Tensor = self.second_linear(nnf.silu(self.first_linear(self.layernorm(x))))
        return out


class RelativeAttention(nn.Module):
    """Self-attention whose scores know how far apart two steps are."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1 / math.sqrt(width)  # of the model's width, not the head's
        self.layer_norm = nn.LayerNorm(width)
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.pos_proj = nn.Linear(width, width, bias=False)
        self.u_bias = nn.Parameter(torch.empty(heads, width // heads))
        self.v_bias = nn.Parameter(torch.empty(heads, width // heads))

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        padding: Padding,
        attention: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return [N, T', D].

        Parameters
        ----------
        x
            [N, T', D].
        positions
            [T', D], the table of distances.
        padding
            Of the batch.
        attention
            Gets the weights [N, H, T', T'] appended, by a slower way.
        """
        x = self.layer_norm(x)
        query, keys, values = (
            split_heads(project(x), self.heads)
            for project in (self.query_proj, self.key_proj, self.value_proj)
        )  # (N, H, T', d)
        # In the type of the query: under autocast a wider sum would be written and read once more.
        by_content = query + self.u_bias[:, None].to(query.dtype)
        by_position = query + self.v_bias[:, None].to(query.dtype)
        bias = _shifted(self._by_distance(by_position, positions), padding)  # (N, H, T', T')
        if padding.valid is not None:
            pair = padding.valid[:, None, :, None] & padding.valid[:, None, None, :]
            bias = bias.masked_fill(~pair, MASKED)
        if attention is None:
            context = nnf.scaled_dot_product_attention(
                by_content, keys, values, attn_mask=bias, scale=self.scale
            )
        else:
            scores = by_content @ keys.transpose(-1, -2) * self.scale + bias
            weights = torch.softmax(scores, dim=-1)
            if padding.valid is not None:
                weights = weights.masked_fill(~pair, 0.0)
            attention.append(weights)
            context = weights.to(values.dtype) @ values
        context = context.transpose(1, 2).flatten(2)  # (N, T', D)
        if padding.valid is not None:
            context = context * padding.valid[:, :, None]
        out: torch.Tensor = self.out_proj(context)
        return out

    def _by_distance(self, query: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return scaled scores [H, N, T', T' + 1] of queries [N, H, T', d]; the first column is 0.

        The zeros are a column of the table, so the scores are not copied to be padded, and each
        head is one product, which does not copy the table for each of the N.
        """
        N, _, n, _ = query.shape
        table = split_heads(self.pos_proj(positions)[None], self.heads)[0].transpose(1, 2)
        table = nnf.pad(table, (1, 0))  # (H, d, T' + 1)
        rows = query.transpose(0, 1).flatten(1, 2)  # (H, N T', d), in the order of memory
        return (rows @ table).mul_(self.scale).view(-1, N, n, n + 1)


class TrainedBatchNorm(nn.Module):
    """Weights and statistics of a batch norm that is done with training."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))


class ConvolutionModule(nn.Module):
    """Pointwise, depthwise, pointwise convolution over steps.

    The pointwise ones are linear maps of (N, T', D), for which there are faster kernels than for
    convolutions; the depthwise one runs with the channels last, so that nothing is transposed.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width)
        self.first_pointwise_conv1d = nn.Linear(width, 2 * width)
        self.depthwise_conv1d = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.batchnorm = TrainedBatchNorm(width)
        self.second_pointwise_conv1d = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, padding: Padding) -> torch.Tensor:
        """Return [N, T', D]; zero at padded steps."""
        visible = None if padding.valid is None else padding.valid[:, :, None]
        x = nnf.glu(self.first_pointwise_conv1d(self.layernorm(x)), dim=-1)
        if visible is not None:
            x = x * visible
        weight, bias = self._depthwise()
        x = nnf.conv2d(
            x[:, None].permute(0, 3, 1, 2),  # (N, D, 1, T'), channels last in memory
            weight[:, :, None],
            bias,
            padding=(0, weight.shape[-1] // 2),
            groups=len(weight),
        )
        x = x[:, :, 0].transpose(1, 2)  # (N, T', D)
        if visible is not None:
            x = x * visible
        x = self.second_pointwise_conv1d(nnf.silu(x))
        return x if visible is None else x * visible

    def _depthwise(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight [D, 1, K] and bias [D] of the convolution with the batch norm after it."""
        norm = self.batchnorm
        scale = norm.weight / torch.sqrt(norm.running_var + BATCH_NORM_EPS)
        return (
            self.depthwise_conv1d.weight * scale[:, None, None],
            norm.bias - norm.running_mean * scale,
        )


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.first_feed_forward = FeedForward(width, hidden)
        self.attention = RelativeAttention(width, heads)
        self.conv_module = ConvolutionModule(width, kernel)
        self.second_feed_forward = FeedForward(width, hidden)
        self.layernorm = nn.LayerNorm(width)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        padding: Padding,
        attention: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return [N, T', D]; arguments as for :class:`RelativeAttention`."""
        x = torch.add(x, self.first_feed_forward(x), alpha=0.5)  # no copy of the half
        x = x + self.attention(x, positions, padding, attention)
        x = x + self.conv_module(x, padding)
        x = torch.add(x, self.second_feed_forward(x), alpha=0.5)
        out: torch.Tensor = self.layernorm(x)
        return out


class ConformerEncoder(nn.Module):
    """Subsampling and layers.

    Parameters
    ----------
    subsample
        From frames to steps.
    layers
        At least one.
    ctc_fc
        Head on the output of layer ``ctc_layer``; None without.
    ctc_layer
        Counted from 1; 0 for no head.
    compress
        Whether runs of steps with the same most likely symbol are averaged after that layer.
    scale_input
        Whether the input of the layers is multiplied by the root of the width.
    unsafe_shift
        Whether positions of every utterance count by the longest of the batch, as in training;
        results then depend on the batch.
    """

    def __init__(
        self,
        subsample: Subsampling,
        layers: Sequence[ConformerLayer],
        ctc_fc: nn.Linear | None,
        *,
        ctc_layer: int,
        compress: bool,
        scale_input: bool,
        unsafe_shift: bool,
    ) -> None:
        super().__init__()
        self.subsample = subsample
        self.conformer_layers = nn.ModuleList(layers)
        self.ctc_fc = ctc_fc
        self._ctc_layer = ctc_layer
        self._compress = compress
        self._scale_input = scale_input
        self._unsafe_shift = unsafe_shift

    def forward(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        keep_attention: bool = False,
        with_ctc: bool = False,
    ) -> EncoderOutput:
        """Encode features [N, T, F]; what follows the end of each, ``lengths`` [N], is ignored.

        Without lengths nothing is padding, and nothing is spent on it. The CTC head is a product
        with all symbols for each step, so it runs only ``with_ctc``, or to compress.
        """
        x, lengths = self.subsample(features, lengths)
        width = x.shape[2]
        if self._scale_input:
            x = x * math.sqrt(width)
        padding = self._padding(lengths, x.shape[1])
        positions = position_table(x.shape[1], width, x.device).to(x)
        attention: list[torch.Tensor] = []
        ctc_logits, ctc_lengths = None, None
        needs_ctc = with_ctc or self._compress
        for number, layer in enumerate(self.conformer_layers, start=1):
            x = layer(x, positions, padding, attention if keep_attention else None)
            if number == self._ctc_layer and self.ctc_fc is not None and needs_ctc:
                ctc_logits, ctc_lengths = self.ctc_fc(x), _all_lengths(lengths, x)
                if self._compress:
                    x, lengths = compress_runs(x, ctc_lengths, ctc_logits.argmax(dim=2))
                    padding = self._padding(lengths, x.shape[1])
                    positions = positions[: x.shape[1]]
        return EncoderOutput(x, _all_lengths(lengths, x), ctc_logits, ctc_lengths, attention)

    def _padding(self, lengths: torch.Tensor | None, n_steps: int) -> Padding:
        if lengths is None:
            return NO_PADDING
        valid = step_mask(lengths, n_steps)
        return Padding(valid, None if self._unsafe_shift else own_shift(lengths, n_steps))


def _all_lengths(lengths: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Return the lengths [N], those of the batch ``x`` [N, T', D] itself where there are none."""
    if lengths is not None:
        return lengths
    return torch.full((x.shape[0],), x.shape[1], device=x.device)


def step_mask(lengths: torch.Tensor, n_steps: int) -> torch.Tensor:
    """Return bool [N, n_steps], True before each utterance's end."""
    return torch.arange(n_steps, device=lengths.device)[None] < lengths[:, None]


def position_table(n_positions: int, width: int, device: torch.device) -> torch.Tensor:
    """Return float32 [n_positions, width]: sine and cosine in turns, of p 10000^(-2i / width).

    Made where it is needed: a copy from the CPU would make every batch wait for the one before it.
    """
    dimensions = torch.arange(0, width, 2, device=device).float()
    rates = torch.exp(dimensions * -(math.log(10000.0) / width))
    angles = torch.arange(n_positions, device=device).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def _shifted(scores: torch.Tensor, padding: Padding) -> torch.Tensor:
    """Return what each pair of steps takes, [N, H, T', T'], of scores [H, N, T', T' + 1].

    The first of each row is 0, the others are raw[i, p] of step i and position p. Entry [i, j] is
    raw[i, T'-1-i+j] for j <= i, 0 for j = i+1 and raw[i+1, j-i-2] after.
    """
    H, N, n, _ = scores.shape
    if padding.shift is None:
        # Read in rows that are one shorter: no copy.
        return scores.view(H, N, n + 1, n)[:, :, 1:].transpose(0, 1)
    index = padding.shift.flatten(1).expand(H, -1, -1)  # (H, N, n n)
    return scores.flatten(2).gather(2, index).view(H, N, n, n).transpose(0, 1)


def own_shift(lengths: torch.Tensor, n_steps: int) -> torch.Tensor:
    """Return int64 [N, T', T'], the index that :func:`_shifted` reads for utterances of own length.

    Pairs with a padded step point at the zero of the first row.
    """
    steps = torch.arange(n_steps, device=lengths.device)
    i, j, n = steps[None, :, None], steps[None, None, :], lengths[:, None, None]
    row = n_steps + 1
    past = i * row + n - i + j  # raw[i, n-1-i+j]
    future = (i + 1) * row + j - i - 1  # raw[i+1, j-i-2]
    index = torch.where(j <= i, past, future)
    nothing = (j == i + 1) | (i >= n) | (j >= n)
    return index.masked_fill(nothing, 0)


def compress_runs(
    x: torch.Tensor, lengths: torch.Tensor, symbols: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average runs of steps with the same symbol, inside each utterance's length.

    Parameters
    ----------
    x
        [N, T', D].
    lengths, symbols
        int64 [N] and [N, T'].

    Returns
    -------
    tuple
        Averages [N, longest, D], zero after the new lengths int64 [N].
    """
    averaged = []
    for row, length, predicted in zip(x, lengths.tolist(), symbols, strict=True):
        _, counts = torch.unique_consecutive(predicted[:length], return_counts=True)
        runs = row[:length].split(counts.tolist())
        averaged.append(torch.stack([run.mean(dim=0) for run in runs]))
    return (
        nn.utils.rnn.pad_sequence(averaged, batch_first=True),
        torch.tensor([len(row) for row in averaged], device=lengths.device),
    )
