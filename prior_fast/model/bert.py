"""BERT's layers (Devlin et al., 2019), with the results and the state dict of transformers' BertModel.

They do not handle padding, masks or caches: rows [..., C] may be packed or in a batch, and the caller passes the
attention function. One product computes all projections of an input. There is no pooler.

Letters in shapes: N rows that attend, M rows that are attended to, H heads, D width of a head, C = H D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.joined_linear import JoinedLinear
from prior_fast.ops.common.triton import triton_unavailable
from prior_fast.ops.dropout_add_layer_norm import dropout_add_layer_norm
from prior_fast.ops.packed_attention import WIDEST, packed_attention
from prior_fast.ops.packed_self_attention import packed_self_attention

# query, key and value of the same rows, in one tensor: [..., N, 3, H, D] -> [..., N, H, D]
AttendToSelf = Callable[[Tensor], Tensor]
# query [..., N, H, D], key and value [..., M, H, D] -> [..., N, H, D]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Activation = Literal["gelu", "gelu_new", "relu", "silu"]
Residual = Literal["float32", "bfloat16"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
assert tuple(ACTIVATIONS) == get_args(Activation)


@dataclass(frozen=True)
class BertStructure:
    """Sizes and constants of a BERT; the defaults are those of BERT's authors.

    positions, token_types: rows of the position table and of the segment table; only the first segment is used.
    dropout: after the embeddings and before each residual addition. The caller applies attention dropout.
    residual: dtype in which rows wait for the next residual addition, under autocast to bfloat16 (`Rows`).
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    positions: int = 512
    token_types: int = 2
    residual: Residual = "float32"


class Rows(NamedTuple):
    """Rows between two parts of a layer.

    residual: [..., N, C], what the next residual addition reads. Under autocast it is float32, as torch's layer norm
        returns it; bfloat16 where `BertStructure.residual` asks for that. The addition and the norm are float32.
    operand: the same for the next product; where the fused ops serve, in autocast's dtype, else the same tensor.
    fused: whether the fused ops serve.
    seed: int64 [], of the fused ops' dropout; None: torch's dropout, or none.

    A block is one addition with its norm. Bytes that the fused ops move for an element, under autocast to bfloat16
    (`prior_fast.ops.dropout_add_layer_norm`); the traffic of the products is not counted:

        residual   forward               backward                                    sum   kept
        float32    2 + 4 -> 4 + 2 = 12   4 + 2 + 2 + 4 -> 4 + 2 = 18                  30   2 + 4 + 2 = 8
        bfloat16   2 + 2 -> 2     = 6    2 + 2 -> 2, then 2 + 2 + 2 -> 2 + 2 = 16     22   2 + 2     = 4

    In bfloat16 both readers read one tensor, so autograd adds their gradients before the op's backward pass. A layer of
    the text encoder has two blocks of 768 columns: for each token 18,432 bytes forward and 27,648 backward in float32,
    9,216 and 24,576 in bfloat16, and 12,288 or 6,144 kept between them. A layer of the sentence decoder has three.
    """

    residual: Tensor
    operand: Tensor
    fused: bool = False
    seed: Tensor | None = None


def fuses(x: Tensor, parameter: Tensor) -> bool:
    """Whether the Triton ops take the elementwise parts that follow products of `x` with a layer's parameters.

    They do on a GPU under autocast to 16 bits. Dropout's masks are then not torch's, but are drawn from its generator.
    """
    if not x.is_cuda or parameter.dtype != torch.float32 or not torch.is_autocast_enabled("cuda"):
        return False
    half = torch.get_autocast_dtype("cuda") in (torch.bfloat16, torch.float16)
    # A float64 input is not autocast's to change.
    return half and triton_unavailable(x) is None


def narrows(structure: BertStructure, x: Tensor) -> bool:
    """Whether the residuals of the float32 rows `x` are stored in bfloat16: asked for, and autocast's dtype."""
    device = x.device.type
    asked = structure.residual == "bfloat16" and x.dtype == torch.float32
    return asked and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16


class Bert(nn.Module):
    """Embeddings and layers.

    vocab_size: rows of the word table; None: no word table.
    cross_attention: whether each layer has cross-attention after its self-attention (a decoder of transformers).
    std: standard deviation of the normal distribution of the initial weights; biases start at 0.

    Attributes:
        fused: whether the project's own ops may serve, on GPUs.
    """

    fused = True

    def __init__(
        self,
        structure: BertStructure,
        vocab_size: int | None = None,
        cross_attention: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.structure = structure
        self.embeddings = Embeddings(structure, vocab_size)
        self.encoder = Layers(structure, cross_attention)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        blocks = (module for module in self.modules() if isinstance(module, AddAndNorm))
        for stream, block in enumerate(blocks):
            block.stream = stream

    def forward(
        self,
        words: Tensor,
        attend: AttendToSelf,
        position_ids: Tensor | None = None,
        sources: Tensor | None = None,
        attend_to_sources: Attend | None = None,
    ) -> Tensor:
        """words [..., N, C] -> [..., N, C].

        position_ids: [..., N]; None: positions 0 to N - 1.
        sources, attend_to_sources: rows [..., M, C] for cross-attention and their attention function.
        """
        x, seed = self.embeddings(words, position_ids), None
        fused = self.fused and fuses(x, self.embeddings.LayerNorm.weight)
        if fused:
            x = x.float()  # the precision of torch's layer norm under autocast
            if self.training and self.structure.dropout > 0:
                # On the device, without waiting: one number for all layers, which take different streams of it.
                seed = torch.randint(2**62, (), dtype=torch.int64, device=x.device)
        stored = x.bfloat16() if narrows(self.structure, x) else x
        rows = self.encoder(Rows(stored, stored, fused, seed), attend, sources, attend_to_sources)
        # Whoever reads the result gets the same dtype with both settings.
        return rows.residual.to(x.dtype)


class Embeddings(nn.Module):
    """The sum of word, position and first segment embeddings, normalized."""

    def __init__(self, structure: BertStructure, vocab_size: int | None) -> None:
        super().__init__()
        width = structure.hidden_size
        if vocab_size is not None:
            self.word_embeddings = nn.Embedding(vocab_size, width)
        self.position_embeddings = nn.Embedding(structure.positions, width)
        self.token_type_embeddings = nn.Embedding(structure.token_types, width)
        self.LayerNorm = nn.LayerNorm(width, structure.layer_norm_eps)
        self.dropout = nn.Dropout(structure.dropout)

    def forward(self, words: Tensor, position_ids: Tensor | None) -> Tensor:
        """words [..., N, C] and position_ids [..., N] -> [..., N, C]."""
        # An indexed row, not a lookup: its gradient is a sum over the rows of x, a lookup's is a scatter.
        x = words + self.token_type_embeddings.weight[0]
        table = self.position_embeddings
        x = x + (table.weight[: words.shape[-2]] if position_ids is None else table(position_ids))
        return self.dropout(self.LayerNorm(x))


class Layers(nn.Module):
    """The layers in sequence."""

    def __init__(self, structure: BertStructure, cross_attention: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(structure, cross_attention) for _ in range(structure.layers)])

    def forward(self, x: Rows, attend: AttendToSelf, sources: Tensor | None, attend_to_sources: Attend | None) -> Rows:
        """x [..., N, C], sources [..., M, C] -> [..., N, C]."""
        for layer in self.layer:
            x = layer(x, attend, sources, attend_to_sources)
        return x


class Layer(nn.Module):
    """Self-attention, optional cross-attention, and the feed-forward network."""

    def __init__(self, structure: BertStructure, cross_attention: bool) -> None:
        super().__init__()
        self.attention = Attention(structure, SelfProjections(structure))
        if cross_attention:
            self.crossattention = Attention(structure, CrossProjections(structure))
        self.intermediate = Intermediate(structure)
        self.output = AddAndNorm(structure, structure.intermediate_size)

    def forward(self, x: Rows, attend: AttendToSelf, sources: Tensor | None, attend_to_sources: Attend | None) -> Rows:
        """x [..., N, C], sources [..., M, C] -> [..., N, C]."""
        x = self.attention(x, attend)
        if sources is not None:
            x = self.crossattention(x, attend_to_sources, sources)
        return self.output(self.intermediate(x.operand), x)


class Attention(nn.Module):
    """Attention with its projections, the residual and a layer norm."""

    def __init__(self, structure: BertStructure, projections: "SelfProjections | CrossProjections") -> None:
        super().__init__()
        self.heads = structure.heads
        self.add_module("self", projections)
        self.output = AddAndNorm(structure, structure.hidden_size)

    def forward(self, x: Rows, attend: Callable[..., Tensor], *sources: Tensor) -> Rows:
        """x [..., N, C], sources [..., M, C] -> [..., N, C]."""
        projected = self.get_submodule("self")(x.operand, *sources, heads=self.heads)
        return self.output(attend(*projected).flatten(-2), x)


class SelfProjections(nn.Module):
    """Query, key and value of the same rows, computed by one product."""

    projections: JoinedLinear

    def __init__(self, structure: BertStructure) -> None:
        super().__init__()
        width = structure.hidden_size
        JoinedLinear(width, width, ("query", "key", "value")).register(self, "projections")

    def forward(self, x: Tensor, heads: int) -> tuple[Tensor, ...]:
        """x [..., N, C] -> one of [..., N, 3, H, D]."""
        return (self.projections.joined(x).unflatten(-1, (3, heads, -1)),)


class CrossProjections(nn.Module):
    """The query of x; key and value of the sources, computed by one product."""

    sources: JoinedLinear

    def __init__(self, structure: BertStructure) -> None:
        super().__init__()
        width = structure.hidden_size
        self.query = nn.Linear(width, width)
        JoinedLinear(width, width, ("key", "value")).register(self, "sources")

    def forward(self, x: Tensor, sources: Tensor, heads: int) -> tuple[Tensor, ...]:
        """x [..., N, C], sources [..., M, C] -> [..., N, H, D] and two of [..., M, H, D]."""
        return tuple(part.unflatten(-1, (heads, -1)) for part in (self.query(x), *self.sources(sources)))


class Intermediate(nn.Module):
    """The feed-forward network's wide layer and its activation."""

    def __init__(self, structure: BertStructure) -> None:
        super().__init__()
        self.dense = nn.Linear(structure.hidden_size, structure.intermediate_size)
        self.activation = ACTIVATIONS[structure.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., intermediate_size]."""
        return self.activation(self.dense(x))


class AddAndNorm(nn.Module):
    """A linear layer with dropout, the residual addition, and a layer norm.

    Attributes:
        stream: tells the masks of a Bert's blocks apart.
    """

    stream = 0

    def __init__(self, structure: BertStructure, inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, structure.hidden_size)
        self.LayerNorm = nn.LayerNorm(structure.hidden_size, structure.layer_norm_eps)
        self.dropout = nn.Dropout(structure.dropout)

    def forward(self, x: Tensor, rows: Rows) -> Rows:
        """x [..., inputs], the rows [..., C] before the block -> [..., C]."""
        norm = self.LayerNorm
        if rows.fused:
            # The bias is added, and its gradient summed, by the op.
            product = F.linear(x, self.dense.weight)
            y, operand = dropout_add_layer_norm(
                product,
                rows.residual,
                norm.weight,
                norm.bias,
                self.dense.bias,
                eps=norm.eps,
                dropout=0.0 if rows.seed is None else self.dropout.p,
                seed=rows.seed,
                stream=self.stream,
            )
            return Rows(y, operand, True, rows.seed)
        added, residual = self.dropout(self.dense(x)), rows.residual
        if residual.dtype == torch.bfloat16 and norm.weight.dtype == torch.float32:
            # As in the fused op: the sum and the norm in float32, then one rounding.
            y = norm(added.float() + residual.float()).bfloat16()
        else:
            y = norm(added + residual)
        return Rows(y, y)


def attend_to_self(joined: Tensor, dropout: float = 0.0, causal: bool = False, packed: bool = True) -> Tensor:
    """Softmax attention within each batch element: query, key and value [B, N, 3, H, D] -> [B, N, H, D].

    packed: whether the project's own op may serve.
    """
    if packed and attends_packed(joined):
        batch, rows = joined.shape[:2]
        offsets, seed = _offsets(batch, rows, joined.device), _seed(dropout, joined.device)
        noise: dict[str, Any] = {"dropout": dropout, "seed": seed, "causal": causal}
        return packed_self_attention(joined.flatten(0, 1), offsets, rows, **noise).unflatten(0, (batch, rows))
    query, key, value = joined.unbind(2)
    return attend_within(query, key, value, dropout, causal, packed)


def attends_packed(x: Tensor) -> bool:
    """Whether `packed_attention` serves heads [..., D]: on a GPU in half precision, where it is faster than flash."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return x.is_cuda and half and x.shape[-1] <= WIDEST and triton_unavailable(x) is None


def _offsets(batch: int, rows: int, device: torch.device) -> Tensor:
    return torch.arange(0, (batch + 1) * rows, rows, dtype=torch.int32, device=device)


def _seed(dropout: float, device: torch.device) -> Tensor | None:
    return torch.randint(2**62, (), dtype=torch.int64, device=device) if dropout else None


def attend_within(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, causal: bool = False, packed: bool = True
) -> Tensor:
    """Softmax attention within each batch element: query [B, N, H, D], key and value [B, M, H, D] -> [B, N, H, D].

    packed: whether the project's own op may serve.
    """
    if packed and attends_packed(query):
        (batch, rows), keys = query.shape[:2], key.shape[1]
        noise: dict[str, Any] = {"dropout": dropout, "seed": _seed(dropout, query.device), "causal": causal}
        out = packed_attention(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            _offsets(batch, rows, query.device),
            _offsets(batch, keys, query.device),
            rows,
            keys,
            **noise,
        )
        return out.unflatten(0, (batch, rows))
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if query.device.type == "cpu":
        return _attend_on_cpu(q, k, v, dropout, causal).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal).transpose(1, 2)


def _attend_on_cpu(q: Tensor, k: Tensor, v: Tensor, dropout: float, causal: bool) -> Tensor:
    """The same for q [B, H, N, D], k and v [B, H, M, D].

    The backward pass of torch's fused attention takes 16 ms on a CPU for 64 times 4 heads, 16 queries and 49 keys of
    width 32 (one thread, bfloat16); these products take 2 ms.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    if causal:
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return F.dropout(scores.softmax(dim=3), dropout) @ v
