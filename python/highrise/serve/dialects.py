"""Floor 6, dialects: what other servers say otherwise than the wire here does, put into its words.

llama.cpp gives log-probabilities of /v1/completions in the form of chat, token ids without their count, and the length
of its context among the `meta` of a model. Knows neither HTTP nor who asked.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CompletionForm", "context_of", "tokenized"]


class CompletionForm:
    """Turns the answers of one request to /v1/completions, whole or in pieces, into OpenAI's form."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}
        """Characters of each choice so far."""

    def of(self, answer: Any) -> Any:
        """`answer` with the log-probabilities of each choice as parallel lists; what is in that form stays."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict):
                continue
            start = self._lengths.get(choice.get("index", 0), 0)
            self._lengths[choice.get("index", 0)] = start + len(str(choice.get("text") or ""))
            logprobs = choice.get("logprobs")
            if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
                choice["logprobs"] = _parallel(logprobs["content"], start)
        return answer


def _parallel(content: list[dict[str, Any]], start: int) -> dict[str, Any]:
    offsets = []
    for one in content:
        offsets.append(start)
        start += len(one["token"])
    return {
        "tokens": [one["token"] for one in content],
        "token_logprobs": [one["logprob"] for one in content],
        "top_logprobs": [{top["token"]: top["logprob"] for top in one.get("top_logprobs", ())} for one in content],
        "text_offset": offsets,
    }


def tokenized(answer: Any, max_context: int | None) -> Any:
    """Token ids with their count."""
    if not isinstance(answer, dict) or not isinstance(answer.get("tokens"), list):
        return answer
    return {"count": len(answer["tokens"]), "max_model_len": max_context or 0, **answer}


def context_of(model: dict[str, Any]) -> int | None:
    """Longest prompt plus answer of an entry of /v1/models, where the server tells it."""
    meta = model.get("meta")
    length = model.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return length if isinstance(length, int) else None
