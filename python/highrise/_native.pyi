"""Types of the Rust module, floor encode. What is not listed is untyped; `make lint` holds the rest to the module."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

_Ids = npt.NDArray[np.uint32]
_Offsets = npt.NDArray[np.int64]
_Special = tuple[str, int, bool]

@final
class BytePairTokenizer:
    vocab_size: int
    scheme: str
    nfc: bool
    whole_pieces: bool
    @staticmethod
    def from_byte_level(
        tokens: Sequence[str],
        merges: Sequence[str],
        *,
        scheme: str,
        specials: Sequence[_Special],
        whole_pieces: bool,
        nfc: bool,
    ) -> BytePairTokenizer: ...
    @staticmethod
    def from_ranks(tokens: Sequence[bytes], *, scheme: str, specials: Sequence[_Special]) -> BytePairTokenizer: ...
    def specials(self) -> list[_Special]: ...
    def encode(self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None) -> list[int]: ...
    def encode_array(self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None) -> _Ids: ...
    def encode_batch(
        self,
        texts: Iterable[str | bytes],
        *,
        threads: int = 1,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> tuple[_Ids, _Offsets]: ...
    def encode_flat(
        self,
        data: npt.NDArray[np.uint8],
        offsets: _Offsets,
        *,
        threads: int = 1,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> tuple[_Ids, _Offsets]: ...
    def encode_bytes(self, content: bytes) -> list[int]: ...
    def merge_piece(self, piece: bytes) -> list[int]: ...
    def encode_with_offsets(
        self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None
    ) -> tuple[list[int], list[tuple[int, int]]]: ...
    def count(
        self,
        text: str,
        *,
        limit: int | None = None,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> int: ...
    def decode_bytes(self, ids: Sequence[int] | _Ids) -> bytes: ...
    def decode(self, ids: Sequence[int] | _Ids) -> str: ...
    def token(self, id: int) -> bytes: ...
    def id(self, token: bytes) -> int | None: ...
    def byte_level(self) -> tuple[list[str], list[tuple[str, str]]]: ...

@final
class PipelineTokenizer:
    vocab_size: int
    def __new__(
        cls,
        *,
        tokens: Sequence[str],
        kinds: Sequence[int],
        model: dict[str, Any],
        normalizers: Sequence[dict[str, Any]],
        pre_tokenizers: Sequence[dict[str, Any]],
        decoders: Sequence[dict[str, Any]],
        added: Sequence[tuple[str, int, bool, bool, bool, bool, bool]],
    ) -> PipelineTokenizer: ...
    def encode(self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None) -> list[int]: ...
    def encode_array(self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None) -> _Ids: ...
    def encode_batch(
        self,
        texts: Iterable[str | bytes],
        *,
        threads: int = 1,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> tuple[_Ids, _Offsets]: ...
    def encode_flat(
        self,
        data: npt.NDArray[np.uint8],
        offsets: _Offsets,
        *,
        threads: int = 1,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> tuple[_Ids, _Offsets]: ...
    def encode_bytes(self, content: bytes) -> list[int]: ...
    def encode_with_offsets(
        self, text: str, *, all_specials: bool = False, specials: Sequence[str] | None = None
    ) -> tuple[list[int], list[tuple[int, int]]]: ...
    def count(
        self,
        text: str,
        *,
        limit: int | None = None,
        all_specials: bool = False,
        specials: Sequence[str] | None = None,
    ) -> int: ...
    def decode_bytes(self, ids: Sequence[int] | _Ids, *, skip_special: bool = False) -> bytes: ...
    def decode(self, ids: Sequence[int] | _Ids, *, skip_special: bool = False) -> str: ...
    def token(self, id: int, *, first: bool = False) -> bytes: ...
    def spelling(self, id: int) -> str: ...
    def id(self, token: bytes) -> int | None: ...

@final
class TextStream:
    def __new__(cls) -> TextStream: ...
    def push(self, bytes: bytes) -> str: ...
    def finish(self) -> str: ...

@final
class BytePairTrainer:
    def __new__(cls, scheme: str) -> BytePairTrainer: ...
    def add(self, texts: Sequence[str], threads: int) -> None: ...
    def size(self) -> tuple[int, int]: ...
    def train(self, vocabulary: int, num_specials: int, min_count: int) -> tuple[list[str], list[str]]: ...

def split_schemes() -> list[str]: ...
def split_paths() -> list[str]: ...
def split_pieces(text: str, scheme: str, *, path: str | None = None) -> list[int]: ...
