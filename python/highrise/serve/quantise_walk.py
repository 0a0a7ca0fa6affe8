"""Floor 6, quantise: texts on their way through a decoder, layer after layer, in float32 numpy.

Each matrix is shown the inputs it gets, may be replaced, and later ones see what the replacement gives (GPTQ's "true
sequential" order). The native decoder runs whole steps and keeps no inputs, and training's torch has no part in a
serving install, so this is the third place that knows the blocks of a decoder; a test holds it to the native one. Knows
nothing of how matrices are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from highrise.core.shape import DecoderShape, LayerKind, Rotary
from highrise.core.weights import WeightFile

__all__ = ["Site", "Visit", "walk"]

Floats = npt.NDArray[np.float32]


class Site(NamedTuple):
    """Matrices that read the same inputs, by their Hugging Face names."""

    names: tuple[str, ...]
    source: str
    """What each input is a multiple of: a norm's weight, or a row of a matrix; "" if it is not."""
    columns: npt.NDArray[np.int64]
    """(inputs,): which element of the norm, or row of the matrix, that is."""


Visit = Callable[[Site, Floats, dict[str, Floats]], Mapping[str, Floats]]
"""Given inputs (tokens, columns) and matrices (rows, columns) by name: the matrices to go on with."""


def walk(
    file: WeightFile,
    windows: npt.NDArray[np.int64],
    visit: Visit,
    finished: Callable[[Floats], None],
    *,
    begin: int = 0,
    states: Floats | None = None,
    head: bool = True,
) -> None:
    """Send `windows` of token ids (windows, tokens) through all layers and the last norm, calling `visit` site by site.

    `finished` hears the states (windows, tokens, hidden) after each layer; with them as `states` and the number of
    layers as `begin` a later call goes on from there. With `head` the last site is the head, or the embedding where it
    is that too, and counts as one more layer. In memory are one layer's matrices in float32 and, for each token, a few
    times the width of the MLP.
    """
    shape = file.shape
    if states is None:
        embedding = file.tensors["model.embed_tokens.weight"].dequantise()
        states = embedding[windows] * np.float32(shape.embedding_scale)
        del embedding
    for index in range(begin, shape.num_hidden_layers):
        states = _Layer(file, index, visit).run(states)
        finished(states)
    if not head or begin > shape.num_hidden_layers:
        return
    inputs = _Norms(file).norm(states, "model.norm").reshape(-1, shape.hidden_size)
    name = "model.embed_tokens.weight" if shape.tie_word_embeddings else "lm_head.weight"
    # A tied embedding is looked up as well as multiplied with, so no factor can go into the norm before it.
    source = "" if shape.tie_word_embeddings else "model.norm"
    visit(Site((name,), source, np.arange(shape.hidden_size)), inputs, {name: file.tensors[name].dequantise()})
    finished(states)


class _Norms:
    """Vectors and norms of a file."""

    def __init__(self, file: WeightFile) -> None:
        self.file, self.shape = file, file.shape

    def vector(self, name: str) -> Floats:
        return self.file.tensors[name].dequantise().reshape(-1)

    def norm(self, states: Floats, name: str) -> Floats:
        """RMSNorm, or layer norm where the shape says so, over the last axis."""
        epsilon = np.float32(self.shape.rms_norm_eps)
        if self.shape.layer_norm:
            centred = states - states.mean(axis=-1, keepdims=True)
            scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
            normed: Floats = scaled * self.vector(f"{name}.weight") + self.vector(f"{name}.bias")
            return normed
        mean = np.square(states).mean(axis=-1, keepdims=True)
        normed = states / np.sqrt(mean + epsilon) * self.vector(f"{name}.weight")
        return normed


class _Layer(_Norms):
    """One layer over all windows."""

    def __init__(self, file: WeightFile, index: int, visit: Visit) -> None:
        super().__init__(file)
        self.prefix, self.visit = f"model.layers.{index}.", visit
        self.kind = self.shape.layer_kinds[index] if self.shape.layer_kinds else LayerKind()

    def run(self, states: Floats) -> Floats:
        """States (windows, tokens, hidden) after the layer, in place of those before."""
        shape, prefix = self.shape, self.prefix
        count, length, hidden = states.shape
        heads, width = shape.num_attention_heads, shape.head_dim
        group = heads // shape.num_key_value_heads

        before = f"{prefix}input_layernorm"
        inputs = self.norm(states, before).reshape(-1, hidden)
        q, k, v = self._multiply(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), inputs, before)
        mixed = self._attend(*(x.reshape(count, length, -1, width) for x in (q, k, v))).reshape(count * length, -1)
        head, place = np.divmod(np.arange(heads * width), width)
        (branch,) = self._multiply(
            ("self_attn.o_proj",), mixed, f"{prefix}self_attn.v_proj", head // group * width + place
        )
        states = self._added(states, branch, "post_attention_layernorm")

        before = f"{prefix}{'pre_feedforward' if shape.sandwich_norms else 'post_attention'}_layernorm"
        inputs = self.norm(states, before).reshape(-1, hidden)
        if shape.gated:
            gate, up = self._multiply(("mlp.gate_proj", "mlp.up_proj"), inputs, before)
            middle = _activated(gate, shape)
            middle *= up
            del gate, up
            (branch,) = self._multiply(("mlp.down_proj",), middle, f"{prefix}mlp.up_proj")
        else:
            (up,) = self._multiply(("mlp.up_proj",), inputs, before)
            (branch,) = self._multiply(("mlp.down_proj",), _activated(up, shape), "")
        return self._added(states, branch, "post_feedforward_layernorm")

    def _added(self, states: Floats, branch: Floats, norm: str) -> Floats:
        branch = branch.reshape(states.shape)
        if self.shape.sandwich_norms:
            branch = self.norm(branch, self.prefix + norm)
        return states + branch

    def _multiply(
        self, parts: tuple[str, ...], inputs: Floats, source: str, columns: npt.NDArray[np.int64] | None = None
    ) -> list[Floats]:
        names = tuple(f"{self.prefix}{part}.weight" for part in parts)
        if columns is None:
            columns = np.arange(inputs.shape[1])
        matrices = {name: self.file.tensors[name].dequantise() for name in names}
        matrices = {**self.visit(Site(names, source, columns), inputs, matrices)}
        outputs = []
        for name in names:
            output = inputs @ matrices[name].T
            bias = f"{name.removesuffix('weight')}bias"
            if bias in self.file.tensors:
                output += self.vector(bias)
            outputs.append(output)
        return outputs

    def _attend(self, q: Floats, k: Floats, v: Floats) -> Floats:
        """Causal attention of each window, (windows, tokens, heads, width)."""
        shape, length = self.shape, q.shape[1]
        table = shape.rotary[self.kind.rotary] if shape.rotary else _plain_table(shape)
        if shape.query_key_norm:
            q, k = (self.norm(x, f"{self.prefix}self_attn.{name}_norm") for x, name in ((q, "q"), (k, "k")))
        q, k = _turn(q, table), _turn(k, table)
        scale = np.float32(shape.attention_scale or shape.head_dim**-0.5)
        ahead = np.arange(length)[None, :] - np.arange(length)[:, None]  # how far a key lies ahead of a query
        hidden = (ahead > 0) | (ahead <= -self.kind.window if self.kind.window else False)
        group = q.shape[2] // k.shape[2]
        out = np.empty_like(q)
        for window in range(len(q)):
            keys = k[window].transpose(1, 2, 0).repeat(group, axis=0)
            scores = np.matmul(q[window].transpose(1, 0, 2) * scale, keys)
            if shape.attention_softcap:
                cap = np.float32(shape.attention_softcap)
                scores = cap * np.tanh(scores / cap)
            scores[:, hidden] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[window] = np.matmul(scores, v[window].transpose(1, 0, 2).repeat(group, axis=0)).transpose(1, 0, 2)
        return out


def _plain_table(shape: DecoderShape) -> Rotary:
    half = shape.head_dim // 2
    return Rotary(tuple(shape.rope_theta ** (-2.0 * np.arange(half) / shape.head_dim)))


def _turn(x: Floats, table: Rotary) -> Floats:
    """Rotary embedding by halves of the turned dimensions, (windows, tokens, heads, width) from position 0."""
    half = len(table.frequencies)
    angles = np.arange(x.shape[1])[:, None, None] * np.array(table.frequencies)
    cosine = (np.cos(angles) * table.magnitude).astype(np.float32)
    sine = (np.sin(angles) * table.magnitude).astype(np.float32)
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = [first * cosine - second * sine, second * cosine + first * sine, x[..., 2 * half :]]
    return np.concatenate(turned, axis=-1)


def _activated(x: Floats, shape: DecoderShape) -> Floats:
    with np.errstate(over="ignore"):
        if shape.activation == "gelu":
            tanh = np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x))
            gelu: Floats = np.float32(0.5) * x * (1 + tanh)
            return gelu
        silu: Floats = x / (1 + np.exp(-x))
        return silu
