"""Floor 6, wire: what all messages share: refusals, JSON in and out, ids and clocks."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

__all__ = ["ApiError", "ErrorAnswer", "ErrorBody", "decode", "encode", "encode_floats", "new_id", "now"]

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class ErrorBody(msgspec.Struct):
    """What went wrong, whose fault it was, and which field caused it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(msgspec.Struct):
    """The body of every answer that is not a success."""

    error: ErrorBody


class ApiError(Exception):
    """A refusal in OpenAI's shape; `status` is the HTTP status, `headers` go out with it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}

    def renamed(self, names: dict[str, str]) -> ApiError:
        """The same about the field that the client called otherwise; `names` are ours and theirs."""
        theirs = names.get(self.param or "")
        if theirs is None or self.param is None:
            return self
        message = re.sub(rf"\b{re.escape(self.param)}\b", theirs, self.message)
        return ApiError(message, status=self.status, type=self.type, param=theirs, code=self.code, headers=self.headers)

    def body(self) -> bytes:
        """The answer's body, also the data of an error in the middle of a stream."""
        return encode(ErrorAnswer(ErrorBody(message=self.message, type=self.type, param=self.param, code=self.code)))


def encode(value: object) -> bytes:
    """A struct as JSON."""
    return _encoder.encode(value)


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as a request struct; what does not fit is an `ApiError` that names the field."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        value: T = decoder.decode(_whole_characters(body))
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        if missing := re.search(r"missing required field `(\w+)`", reason):
            param = f"{param}.{missing[1]}" if param else missing[1]
        where = f" for '{param}'" if param else ""
        raise ApiError(f"Invalid request{where}: {reason}.", param=param, code="invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"The body of the request is not valid JSON: {error}.", code="invalid_json") from error
    except RecursionError as error:
        raise ApiError("The body of the request is nested too deeply.", code="invalid_json") from error
    return value


def _whole_characters(body: bytes) -> bytes:
    """Half of a surrogate pair becomes U+FFFD: editors that cut a text between two UTF-16 units send such halves."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body

    return _ESCAPE.sub(lambda found: b"\\ufffd" if found["half"] else found[0], body)


def encode_floats(vector: Sequence[float], form: str) -> list[float] | str:
    """A vector in the form that the client asked for; numpy arrays are written without a detour over floats."""
    if form != "base64":
        return [float(value) for value in vector]
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-5f0c…`."""
    return f"{prefix}-{os.urandom(16).hex()}"


def now() -> int:
    """Seconds since 1970, as the wire wants them."""
    return int(time.time())
