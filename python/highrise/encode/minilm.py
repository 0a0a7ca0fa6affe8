"""Floor 3, MiniLM: sentence embeddings of a small BERT on the engine's own kernels, without torch.

Reads a Hugging Face folder (config.json, model.safetensors, tokenizer.json) of the shape of all-MiniLM-L6-v2: post-norm
encoder, GELU, mean over the tokens, length one (Reimers and Gurevych 2019; Wang et al. 2020). The embedding tables stay
here in single precision; the layers run in 16-bit floats in `csrc/serve/encoder.h`. Knows nothing of chunks or indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.json_text import decode_json
from highrise.core.native import csrc
from highrise.core.safetensors import SafeTensors
from highrise.encode.wordpiece import WordPiece

__all__ = ["Embedder", "MiniLm"]

Floats = npt.NDArray[np.float32]

_TEXTS_PER_CALL = 64
"""Texts whose embedded tokens are held at a time: at most 64 x 512 x 384 floats, 48 MiB."""


class Embedder(Protocol):
    """Anything that turns texts into vectors of length one; `name` and `dimension` are kept with an index."""

    @property
    def name(self) -> str:
        """What the index remembers, to be opened by the same model again."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> Floats:
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


class MiniLm:
    """An opened model. `embed` may be called from many threads; the calls take turns."""

    def __init__(
        self,
        shape: _Shape,
        weights: SafeTensors,
        words: WordPiece,
        *,
        name: str,
        max_tokens: int,
        threads: int,
        isa: str = "auto",
    ) -> None:
        self.name = name
        self.dimension = shape.hidden_size
        self.max_tokens = min(max_tokens, shape.max_position_embeddings)
        self.words = words
        prefix = "bert." if any(key.startswith("bert.") for key in weights.tensors) else ""
        width, inner = shape.hidden_size, shape.intermediate_size
        encoder = csrc.Encoder(
            hidden_size=width,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=inner,
            layer_norm_eps=shape.layer_norm_eps,
            threads=threads,
            isa=isa,
        )

        def read(key: str, *axes: int) -> Floats:
            full = prefix + key
            if full not in weights.tensors or weights.tensors[full].shape != axes:
                found = weights.tensors[full].shape if full in weights.tensors else "absent"
                raise InputError(f"{weights.path}: tensor {full} should have the shape {axes}, but is {found}")
            return np.ascontiguousarray(weights.read(full), dtype=np.float32)

        def set_linear(key: str, rows: int, cols: int) -> None:
            encoder.set_tensor(f"{key}.weight", read(f"{key}.weight", rows, cols))
            encoder.set_tensor(f"{key}.bias", read(f"{key}.bias", rows))

        def set_norm(key: str) -> None:
            encoder.set_tensor(f"{key}.weight", read(f"{key}.weight", width))
            encoder.set_tensor(f"{key}.bias", read(f"{key}.bias", width))

        self._token = read("embeddings.word_embeddings.weight", shape.vocab_size, width)
        types = read("embeddings.token_type_embeddings.weight", 2, width)
        positions = read("embeddings.position_embeddings.weight", shape.max_position_embeddings, width)
        self._position: Floats = positions[: self.max_tokens] + types[0]
        set_norm("embeddings.LayerNorm")
        for index in range(shape.num_hidden_layers):
            at = f"encoder.layer.{index}"
            for part in ("query", "key", "value"):
                set_linear(f"{at}.attention.self.{part}", width, width)
            set_linear(f"{at}.attention.output.dense", width, width)
            set_norm(f"{at}.attention.output.LayerNorm")
            set_linear(f"{at}.intermediate.dense", inner, width)
            set_linear(f"{at}.output.dense", width, inner)
            set_norm(f"{at}.output.LayerNorm")
        self._encoder = encoder

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str = "minilm-l6",
        max_tokens: int = 128,
        threads: int | None = None,
        isa: str = "auto",
    ) -> MiniLm:
        """Open a model folder. Longer texts are cut at `max_tokens`; this model was trained on 128.

        `threads` is by default the number of usable cores; `isa` chooses the kernels, as the engine's does.
        """
        if max_tokens < 3:
            raise InputError(f"max_tokens is {max_tokens}; a text needs at least 3 (its two marks and one token)")
        try:
            shape = decode_json((folder / "config.json").read_bytes(), _Shape)
        except OSError as error:
            raise InputError(f"cannot read the embedder {folder}: config.json: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise InputError(f"{folder / 'config.json'} does not describe a BERT encoder: {error}") from error
        if shape.model_type != "bert" or shape.hidden_act != "gelu":
            raise InputError(
                f"{folder} is a {shape.model_type} with {shape.hidden_act}; only BERT with gelu is embedded here"
            )
        words = WordPiece.from_file(folder / "tokenizer.json")
        weights = SafeTensors(folder / "model.safetensors")
        threads = usable_cores() if threads is None else threads
        return cls(shape, weights, words, name=name, max_tokens=max_tokens, threads=threads, isa=isa)

    def embed(self, texts: Sequence[str]) -> Floats:
        """float32 (n, dimension), rows of length one, in the order of `texts`; a row depends on its own text alone."""
        result: Floats = np.empty((len(texts), self.dimension), np.float32)
        ids = self.words.encode_batch(texts, max_tokens=self.max_tokens)
        # Texts of like length side by side: a piece of the encoder then waits for no long one.
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
        for start in range(0, len(order), _TEXTS_PER_CALL):
            batch = order[start : start + _TEXTS_PER_CALL]
            lengths = [len(ids[index]) for index in batch]
            tokens = self._token[np.concatenate([ids[index] for index in batch])]
            tokens += np.concatenate([self._position[:length] for length in lengths])
            result[batch] = self._encoder.encode(tokens, np.cumsum([0, *lengths], dtype=np.int64))
        return result
