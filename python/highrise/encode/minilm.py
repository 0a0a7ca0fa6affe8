"""Floor 3, MiniLM: sentence embeddings of a small BERT on numpy, without torch.

Reads a Hugging Face folder (config.json, model.safetensors, tokenizer.json) of the shape of all-MiniLM-L6-v2: post-norm
encoder, GELU, mean over the tokens, length one (Reimers and Gurevych 2019; Wang et al. 2020). Texts are batched by
length. Knows nothing of chunks or indexes.
"""

# ruff: noqa: N803, N806 (names of tensors end with their axes)

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.safetensors import SafeTensors
from highrise.encode.wordpiece import WordPiece

__all__ = ["Embedder", "MiniLm"]

Floats = npt.NDArray[np.float32]

_TOKENS_PER_BATCH = 1024
"""Tokens that pass through the layers together: enough rows for BLAS, few enough for the second-level cache."""
_ROWS_PER_BLOCK = 64
"""Rows of the feed-forward layer whose GELU is taken at a time: three arrays of 64 x 1536 floats are 1.1 MiB."""
_SCORES_PER_GROUP = 1 << 18
"""Attention scores held at a time: 1 MiB."""
_GELU = (np.float32(7.97507883e-01), np.float32(3.70056467e-02), np.float32(-3.51516887e-04))
"""erf(x / sqrt 2) is about tanh(x (a + b x^2 + c x^4)); fitted on [-6, 6], GELU is then off by at most 2.6e-5."""


class Embedder(Protocol):
    """Anything that turns texts into vectors of length one; `name` and `dimension` are kept with an index."""

    @property
    def name(self) -> str:
        """What the index remembers, to be opened by the same model again."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str], *, threads: int = 1) -> Floats:
        """float32 (n, dimension), C-contiguous, rows of length one."""


class _Shape(msgspec.Struct):
    """The keys of config.json that matter."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    vocab_size: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"


class _Norm:
    """Layer normalisation over the last axis, in place."""

    def __init__(self, weight: Floats, bias: Floats, epsilon: float) -> None:
        self.weight, self.bias, self.epsilon = weight, bias, np.float32(epsilon)

    def __call__(self, x_ND: Floats) -> None:
        x_ND -= x_ND.mean(axis=1, keepdims=True)
        variance_N1 = np.einsum("nd,nd->n", x_ND, x_ND)[:, None] / np.float32(x_ND.shape[1])
        x_ND /= np.sqrt(variance_N1 + self.epsilon)
        x_ND *= self.weight
        x_ND += self.bias


class _Layer(msgspec.Struct):
    """Weights of one layer, transposed for x @ w; query, key and value side by side, the query already scaled."""

    qkv: Floats
    qkv_bias: Floats
    out: Floats
    out_bias: Floats
    out_norm: _Norm
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    down_norm: _Norm


class MiniLm:
    """An opened model. `embed` may be called from many threads; it changes nothing but the cache of known words."""

    def __init__(self, shape: _Shape, weights: SafeTensors, words: WordPiece, *, name: str, max_tokens: int) -> None:
        self.name = name
        self.dimension = shape.hidden_size
        self.max_tokens = min(max_tokens, shape.max_position_embeddings)
        self.words = words
        self._heads = shape.num_attention_heads
        prefix = "bert." if any(key.startswith("bert.") for key in weights.tensors) else ""

        def read(key: str, *axes: int) -> Floats:
            full = prefix + key
            if full not in weights.tensors or weights.tensors[full].shape != axes:
                found = weights.tensors[full].shape if full in weights.tensors else "absent"
                raise InputError(f"{weights.path}: tensor {full} should have the shape {axes}, but is {found}")
            return np.ascontiguousarray(weights.read(full), dtype=np.float32)

        def norm(key: str) -> _Norm:
            return _Norm(read(f"{key}.weight", width), read(f"{key}.bias", width), shape.layer_norm_eps)

        width, inner = shape.hidden_size, shape.intermediate_size
        self._token = read("embeddings.word_embeddings.weight", shape.vocab_size, width)
        types = read("embeddings.token_type_embeddings.weight", 2, width)
        self._position = read("embeddings.position_embeddings.weight", shape.max_position_embeddings, width) + types[0]
        self._norm = norm("embeddings.LayerNorm")
        self._layers: list[_Layer] = []
        scale = np.float32((width // self._heads) ** -0.5)
        half = np.float32(0.5)
        for index in range(shape.num_hidden_layers):
            at = f"encoder.layer.{index}"
            qkv = [read(f"{at}.attention.self.{part}.weight", width, width) for part in ("query", "key", "value")]
            biases = [read(f"{at}.attention.self.{part}.bias", width) for part in ("query", "key", "value")]
            self._layers.append(
                _Layer(
                    qkv=np.ascontiguousarray(np.concatenate([qkv[0] * scale, *qkv[1:]]).T),
                    qkv_bias=np.concatenate([biases[0] * scale, *biases[1:]]),
                    out=np.ascontiguousarray(read(f"{at}.attention.output.dense.weight", width, width).T),
                    out_bias=read(f"{at}.attention.output.dense.bias", width),
                    out_norm=norm(f"{at}.attention.output.LayerNorm"),
                    up=np.ascontiguousarray(read(f"{at}.intermediate.dense.weight", inner, width).T),
                    up_bias=read(f"{at}.intermediate.dense.bias", inner),
                    # GELU ends with a factor of one half, which the next matrix takes over.
                    down=np.ascontiguousarray(read(f"{at}.output.dense.weight", width, inner).T) * half,
                    down_bias=read(f"{at}.output.dense.bias", width),
                    down_norm=norm(f"{at}.output.LayerNorm"),
                )
            )

    @classmethod
    def load(cls, folder: Path, *, name: str = "minilm-l6", max_tokens: int = 128) -> MiniLm:
        """Open a model folder. Longer texts are cut at `max_tokens`; this model was trained on 128."""
        if max_tokens < 3:
            raise InputError(f"max_tokens is {max_tokens}; a text needs at least 3 (its two marks and one token)")
        try:
            shape = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Shape)
        except OSError as error:
            raise InputError(f"cannot read the embedder {folder}: config.json: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise InputError(f"{folder / 'config.json'} does not describe a BERT encoder: {error}") from error
        if shape.model_type != "bert" or shape.hidden_act != "gelu":
            raise InputError(
                f"{folder} is a {shape.model_type} with {shape.hidden_act}; only BERT with gelu is embedded here"
            )
        words = WordPiece.from_file(folder / "tokenizer.json")
        return cls(shape, SafeTensors(folder / "model.safetensors"), words, name=name, max_tokens=max_tokens)

    def embed(self, texts: Sequence[str], *, threads: int = 1) -> Floats:
        """float32 (n, dimension), rows of length one, in the order of `texts`.

        `threads` batches are computed side by side, each on one BLAS thread: BLAS's own threads spin while they wait
        for each other, which costs a short text many times its work on a busy machine. The limit on BLAS holds for
        the process while the call lasts.
        """
        result = np.empty((len(texts), self.dimension), np.float32)
        ids = self.words.encode_batch(texts, max_tokens=self.max_tokens)

        def run(batch: Sequence[int]) -> None:
            result[batch] = self._forward([ids[index] for index in batch])

        batches = list(_batches([len(tokens) for tokens in ids]))
        with _one_blas_thread:
            if min(threads, len(batches)) < 2:
                for batch in batches:
                    run(batch)
            else:
                with ThreadPoolExecutor(min(threads, len(batches))) as pool:
                    list(pool.map(run, batches))
        return result

    def _forward(self, ids: list[list[int]]) -> Floats:
        """One batch: (B, width), from B lists of token ids."""
        # Axes: B text, T token, N = B * T, H head, D width of a head, W = H * D.
        lengths = np.array([len(tokens) for tokens in ids])
        num_texts, longest = len(ids), int(lengths.max())
        ids_BT = np.full((num_texts, longest), self.words.pad_id)
        for row, tokens in zip(ids_BT, ids, strict=True):
            row[: len(tokens)] = tokens
        real_BT = np.arange(longest) < lengths[:, None]
        mask_B11T = None if real_BT.all() else np.where(real_BT, 0, -1e9).astype(np.float32)[:, None, None, :]
        x_BTW = self._token[ids_BT]
        x_BTW += self._position[:longest]
        x_NW = x_BTW.reshape(-1, self.dimension)
        space = _Space.make(num_texts, longest, self._heads, *self._layers[0].up.shape)
        self._norm(x_NW)
        for layer in self._layers:
            x_NW += self._attend(layer, x_NW, mask_B11T, space)
            layer.out_norm(x_NW)
            inner = np.matmul(x_NW, layer.up, out=space.inner)
            for start in range(0, len(inner), _ROWS_PER_BLOCK):
                block = inner[start : start + _ROWS_PER_BLOCK]
                block += layer.up_bias
                _gelu_twice(block, space.scratch[: len(block)], space.square[: len(block)])
            x_NW += np.matmul(inner, layer.down, out=space.attended)
            x_NW += layer.down_bias
            layer.down_norm(x_NW)
        weights_BT = (real_BT / lengths[:, None]).astype(np.float32)
        pooled_BW: Floats = np.matmul(weights_BT[:, None, :], x_NW.reshape(num_texts, longest, -1))[:, 0]
        pooled_BW /= np.maximum(np.linalg.norm(pooled_BW, axis=1, keepdims=True), np.float32(1e-12))
        return pooled_BW

    def _attend(self, layer: _Layer, x_NW: Floats, mask_B11T: Floats | None, space: _Space) -> Floats:
        """Bidirectional attention, without the residual: (N, W), in the work space."""
        qkv = np.matmul(x_NW, layer.qkv, out=space.qkv)
        qkv += layer.qkv_bias
        num_texts, group = space.num_texts, len(space.scores)
        q_BHTD, k_BHTD, v_BHTD = qkv.reshape(num_texts, -1, 3, self._heads, qkv.shape[1] // 3 // self._heads).transpose(
            2, 0, 3, 1, 4
        )
        context_BHTD = space.context.reshape(num_texts, -1, self._heads, q_BHTD.shape[3]).swapaxes(1, 2)
        for start in range(0, num_texts, group):
            part = slice(start, min(start + group, num_texts))
            scores_BHTS = space.scores[: part.stop - start]
            np.matmul(q_BHTD[part], k_BHTD[part].swapaxes(2, 3), out=scores_BHTS)
            if mask_B11T is not None:
                scores_BHTS += mask_B11T[part]
            scores_BHTS -= scores_BHTS.max(axis=3, keepdims=True)
            np.exp(scores_BHTS, out=scores_BHTS)
            np.matmul(scores_BHTS, v_BHTD[part], out=context_BHTD[part])
            context_BHTD[part] /= scores_BHTS.sum(axis=3, keepdims=True)
        out = np.matmul(space.context, layer.out, out=space.attended)
        out += layer.out_bias
        return out


class _Space(msgspec.Struct):
    """Buffers of one batch, used again by every layer: page faults of fresh arrays cost more than what is computed."""

    num_texts: int
    qkv: Floats
    context: Floats
    attended: Floats
    scores: Floats
    inner: Floats
    scratch: Floats
    square: Floats

    @classmethod
    def make(cls, num_texts: int, longest: int, heads: int, width: int, inner: int) -> _Space:
        """For `num_texts` texts of `longest` tokens; attention takes a group of texts at a time."""
        num_rows = num_texts * longest
        group = min(num_texts, max(1, _SCORES_PER_GROUP // (heads * longest * longest)))
        block = min(num_rows, _ROWS_PER_BLOCK)
        return cls(
            num_texts,
            np.empty((num_rows, 3 * width), np.float32),
            np.empty((num_rows, width), np.float32),
            np.empty((num_rows, width), np.float32),
            np.empty((group, heads, longest, longest), np.float32),
            np.empty((num_rows, inner), np.float32),
            np.empty((block, inner), np.float32),
            np.empty((block, inner), np.float32),
        )


def _gelu_twice(x: Floats, inner: Floats, square: Floats) -> None:
    """2 GELU(x), in place; `inner` and `square` are overwritten."""
    np.square(x, out=square)
    np.minimum(square, np.float32(36), out=square)
    np.multiply(square, _GELU[2], out=inner)
    inner += _GELU[1]
    inner *= square
    inner += _GELU[0]
    inner *= x
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    x *= inner


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts of like length, so many that the padded batch stays within its tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > _TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _OneBlasThread:
    """Holds BLAS at one thread while anyone is inside; the last one out puts back what was set before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._controller: Any = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._controller is None:
                try:
                    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]
                except ImportError as error:
                    raise EncodeError(f"embedding needs threadpoolctl ({error}): install highrise[encode]") from error
                self._controller = ThreadpoolController()
            if self._inside == 0:
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()
