"""Floor 2, OpenAI protocol: a model behind any server that speaks it, as a `Teacher`.

Connection errors, 429 and 5xx are tried again with growing pauses. Knows nothing of what is asked.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import msgspec

from highrise.core.errors import DataError, InputError
from highrise.data.synthetic import Answer

__all__ = ["OpenAITeacher"]

_PAUSES = (0.5, 1, 2, 4, 8, 16)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Response(msgspec.Struct):
    choices: list[_Choice]


class OpenAITeacher:
    """`model` at `url` (which ends before `/chat/completions`, for example `http://127.0.0.1:8080/v1`)."""

    def __init__(self, url: str, model: str, *, key: str = "", timeout: float = 300.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f'the address "{url}" is none; write for example http://127.0.0.1:8080/v1')
        self.name = model
        self._url, self._key, self._timeout = url.rstrip("/"), key, timeout

    def ask(self, prompt: str, *, max_tokens: int, temperature: float, seed: int) -> Answer:
        """One chat completion. Raises `DataError` with the server's words for a request that it refuses, and when it
        cannot be reached or does not answer after six tries.
        """
        body = msgspec.json.encode(
            {
                "model": self.name,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
            }
        )
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(f"{self._url}/chat/completions", body, headers)
        for pause in (*_PAUSES, None):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as response:
                    found = msgspec.json.decode(response.read(), type=_Response)
                choice = found.choices[0]
                return Answer(choice.message.content or "", choice.finish_reason or "stop")
            except urllib.error.HTTPError as error:
                told = error.read(500).decode("utf-8", "replace")
                if error.code != 429 and error.code < 500:
                    raise DataError(f"{self._url} refused the request with {error.code}: {told}") from error
                reason = f"status {error.code}: {told}"
            except (OSError, msgspec.MsgspecError, IndexError) as error:
                reason = str(error)
            if pause is None:
                break
            time.sleep(pause)
        raise DataError(f"{self._url} gave no answer ({reason}); is the server running? Answers so far are kept")
