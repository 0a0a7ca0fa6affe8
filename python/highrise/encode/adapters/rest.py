"""Floor 3, REST: one HTTP service that takes JSON and a key, asked again when it says that it is busy.

429 and 503 are waited out as long as `Retry-After` says, or with growing pauses; a lost connection is tried again.
A refused key is one sentence that names the environment variable. Knows no service.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from highrise.core.errors import EncodeError, InputError

__all__ = ["Rest"]

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST = 60.0
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_SHOWN = 300


class Rest:
    """A service at `base` ("https://host"); `headers` go with every request. May be shared by threads."""

    def __init__(self, base: str, headers: Mapping[str, str], *, key_variable: str) -> None:
        self.base = base
        self._key_variable = key_variable
        self._client = httpx.Client(base_url=base, headers=dict(headers), timeout=_TIMEOUT)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        parameters: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (),
    ) -> tuple[int, Any]:
        """Status and decoded answer (None without one); a status from 400 on that is not in `accept` is an error."""
        content = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        for pause in (*_PAUSES, None):
            try:
                answer = self._client.request(
                    method,
                    path,
                    content=content,
                    params=dict(parameters or {}),
                    headers={} if content is None else {"Content-Type": "application/json"},
                )
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                if pause is None:
                    break
                time.sleep(pause)
                continue
            if answer.status_code in accept or answer.status_code < 400:
                return answer.status_code, _decode(answer, self.base)
            told = answer.text.strip()[:_SHOWN]
            if answer.status_code in (401, 403):
                raise InputError(f"{self.base} refuses the key in {self._key_variable} ({answer.status_code}: {told})")
            reason = f"status {answer.status_code}: {told}"
            if answer.status_code not in (429, 500, 502, 503, 504):
                raise EncodeError(f"{self.base}{path} refused the request with {reason}")
            if pause is None:
                break
            time.sleep(_wanted_pause(answer.headers.get("Retry-After"), pause))
        raise EncodeError(f"{self.base} gave no answer ({reason}); what was sent before is kept, start again later")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _decode(answer: httpx.Response, base: str) -> Any:
    content = answer.content.removeprefix(b"\xef\xbb\xbf")
    if not content:
        return None
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise EncodeError(f"{base} answered with what is no JSON: {answer.text[:_SHOWN]!r}") from error


def _wanted_pause(header: str | None, otherwise: float) -> float:
    """Seconds of a `Retry-After`, which holds a number or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return otherwise
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return otherwise
    return min(max(seconds, 0.0), _LONGEST)
