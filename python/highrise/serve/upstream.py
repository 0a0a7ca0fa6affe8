"""Floor 6, upstream: any OpenAI-compatible server (vLLM, TGI, llama.cpp, another Highrise) as a backend.

Passes requests on under its own model name and refuses in the words of the server behind it. Knows nothing of engines.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal, TypeVar

import httpx
import msgspec

from highrise.core.errors import InputError
from highrise.serve.dialects import CompletionForm, context_of, tokenized
from highrise.serve.metrics import Metrics, RequestTimer
from highrise.serve.protocol import (
    ApiError,
    Chat,
    ChatChunk,
    ChatRequest,
    Completion,
    CompletionChoice,
    CompletionRequest,
    Detokenized,
    DetokenizeRequest,
    EmbeddingList,
    EmbeddingRequest,
    InfillAnswer,
    InfillRequest,
    Model,
    ModelList,
    Tokenized,
    TokenizeRequest,
    Usage,
    new_id,
    now,
)

__all__ = ["UpstreamBackend"]

T = TypeVar("T")

_OURS = ("path", "repository", "input_extra", "use_context")
_BYTES_PER_TOKEN = 3.5


class UpstreamBackend:
    """Everything is asked of the server at `url` ("http://host:8000/v1"); `model` defaults to the first it offers.

    `infill` tells how that server fills a middle: "suffix" on /v1/completions, or llama.cpp's /infill.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        infill: Literal["suffix", "llama.cpp"] = "suffix",
        timeout: float = 600.0,
    ) -> None:
        self._root = url.rstrip("/").removesuffix("/v1")
        self._infill = infill
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        found = self._ask_models(headers)
        self.name = model or (found[0]["id"] if found else "default")
        self._context = next((context_of(one) for one in found if one.get("id") == self.name), None)
        self.metrics = Metrics(self.name)
        self._client = httpx.AsyncClient(
            base_url=self._root, headers=headers, timeout=httpx.Timeout(timeout, connect=10.0)
        )

    def _ask_models(self, headers: dict[str, str]) -> list[dict[str, Any]]:
        try:
            answer = httpx.get(f"{self._root}/v1/models", headers=headers, timeout=10)
        except httpx.HTTPError as error:
            raise InputError(f"no server answers at {self._root}/v1: {error}; start it, or correct the URL") from error
        if answer.status_code != 200:
            raise InputError(f"{self._root}/v1/models answers {answer.status_code}; check the URL and the key")
        try:
            return list(answer.json()["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._root}/v1/models is not an OpenAI-compatible server") from error

    # ------------------------------------------------------------------------------------------------ what there is

    @property
    def max_context(self) -> int | None:
        """What the server says of its model, if it does."""
        return self._context

    def count_tokens(self, text: str) -> int:
        """An estimate: the server's vocabulary is not here."""
        return int(len(text.encode()) / _BYTES_PER_TOKEN) + 1

    async def health(self) -> None:
        """The server answers."""
        await self._get("/v1/models")

    async def models(self) -> ModelList:
        """What the server offers."""
        return _convert(await self._get("/v1/models"), ModelList)

    async def model(self, name: str) -> Model:
        """One of what the server offers."""
        for one in (await self.models()).data:
            if one.id == name:
                return one
        raise ApiError(f"The model '{name}' does not exist here.", status=404, param="model", code="model_not_found")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # ---------------------------------------------------------------------------------------------------- generation

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""
        if request.suffix is not None and self._infill == "llama.cpp":
            return await self._complete_by_infill(request)
        timer = self.metrics.timer()
        told = await self._post("/v1/completions", self._completion_body(request))
        answer = _convert(CompletionForm().of(told), Completion)
        _report(timer, answer)
        return answer

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces."""
        if request.suffix is not None and self._infill == "llama.cpp":
            return _once(await self._complete_by_infill(request))
        return await self._stream("/v1/completions", self._completion_body(request), Completion)

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""
        timer = self.metrics.timer()
        answer = _convert(await self._post("/v1/chat/completions", self._body(request)), Chat)
        _report(timer, answer)
        return answer

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces."""
        return await self._stream("/v1/chat/completions", self._body(request), ChatChunk)

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle, by whichever way the server knows."""
        if self._infill == "llama.cpp":
            answer = await self._post("/infill", {**self._body(request), "stream": False})
            many = answer if isinstance(answer, list) else [answer]
            return [_convert(one, InfillAnswer) for one in many]
        completion = await self.complete(_as_completion(request))
        usage = completion.usage or msgspec.UNSET
        counts = (0, 0) if usage is msgspec.UNSET else (usage.prompt_tokens, usage.completion_tokens)
        return [
            InfillAnswer(
                content=choice.text,
                stop=True,
                model=self.name,
                index=choice.index,
                tokens_evaluated=counts[0],
                tokens_predicted=counts[1],
                stop_type="limit" if choice.finish_reason == "length" else "eos",
            )
            for choice in completion.choices
        ]

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """Whole answers, one a choice: what comes in pieces differs too much between servers."""
        answers = await self.infill(request)
        return _once(*answers)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """Vectors of the server; the model that the client names is passed on."""
        body = self._body(request)
        if request.model:
            body["model"] = request.model
        return _convert(await self._post("/v1/embeddings", body), EmbeddingList)

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """Token ids of the server, when it tells them."""
        body = self._body(request)
        if request.messages is None:  # vLLM's name for the text and llama.cpp's
            body["prompt"] = body["content"] = request.content if request.prompt is None else request.prompt
        return _convert(tokenized(await self._post("/tokenize", body), self._context), Tokenized)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """Text of token ids of the server."""
        answer = await self._post("/detokenize", self._body(request))
        text = str(answer.get("prompt", answer.get("content", "")))
        return Detokenized(text, text)

    # ---------------------------------------------------------------------------------------------------- the wire

    def _body(self, request: Any) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(request)
        body = {key: value for key, value in plain.items() if value is not None and key not in _OURS}
        return {**body, "model": self.name}

    def _completion_body(self, request: CompletionRequest) -> dict[str, Any]:
        body = self._body(request)
        if request.input_extra and isinstance(request.prompt, str):
            # The protocol has no place for other files; as text above the prompt every model reads them.
            before = "".join(f"# {piece.filename}\n{piece.text.rstrip()}\n\n" for piece in request.input_extra)
            body["prompt"] = before + request.prompt
        return body

    async def _complete_by_infill(self, request: CompletionRequest) -> Completion:
        if not isinstance(request.prompt, str):
            raise ApiError("With 'suffix' the prompt must be one string.", param="prompt")
        stop = [request.stop] if isinstance(request.stop, str) else request.stop
        asked = InfillRequest(
            input_prefix=request.prompt,
            input_suffix=request.suffix or "",
            input_extra=request.input_extra,
            n_predict=request.max_tokens or 128,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=stop,
        )
        answer = (await self.infill(asked))[0]
        reason = "length" if answer.stop_type == "limit" else "stop"
        choice = CompletionChoice(index=0, text=answer.content, finish_reason=reason)
        usage = Usage.of(answer.tokens_evaluated, answer.tokens_predicted)
        return Completion(id=new_id("cmpl"), created=now(), model=self.name, choices=[choice], usage=usage)

    async def _get(self, path: str) -> Any:
        try:
            answer = await self._client.get(path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._json(answer)

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        body.pop("stream", None)
        body.pop("stream_options", None)
        try:
            answer = await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._json(answer)

    async def _stream(self, path: str, body: dict[str, Any], kind: type[T]) -> AsyncGenerator[T, None]:
        request = self._client.build_request("POST", path, json={**body, "stream": True})
        timer = self.metrics.timer()
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.status_code != 200:
            await answer.aread()
            await answer.aclose()
            self._json(answer)
        return self._chunks(answer, kind, timer)

    async def _chunks(self, answer: httpx.Response, kind: type[T], timer: RequestTimer) -> AsyncGenerator[T, None]:
        decoder, form = msgspec.json.Decoder(kind), CompletionForm()
        reason = "abort"
        try:
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    reason = "stop"
                    return
                if data.startswith('{"error"'):
                    raise _refusal(json.loads(data), 502)
                timer.tokens(1)
                yield _convert(form.of(json.loads(data)), kind) if kind is Completion else decoder.decode(data)
            reason = "stop"
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (msgspec.MsgspecError, json.JSONDecodeError) as error:
            raise ApiError(f"The upstream sent what is no chunk: {error}.", status=502, type="server_error") from error
        finally:
            timer.end(reason, prompt_tokens=0, cached_tokens=0)
            await answer.aclose()

    def _json(self, answer: httpx.Response) -> Any:
        try:
            value = answer.json()
        except ValueError as error:
            raise ApiError(
                f"The upstream {self._root} answered {answer.status_code} without JSON.",
                status=502,
                type="server_error",
            ) from error
        if answer.status_code != 200:
            raise _refusal(value, answer.status_code, retry_after=answer.headers.get("retry-after"))
        return value

    def _unreachable(self, error: httpx.HTTPError) -> ApiError:
        return ApiError(
            f"The upstream {self._root} does not answer: {type(error).__name__} {error}.".replace(" .", "."),
            status=502,
            type="server_error",
            code="upstream_unreachable",
        )


def _refusal(value: Any, status: int, *, retry_after: str | None = None) -> ApiError:
    """The server's own refusal, in whichever of the usual shapes."""
    error = value.get("error", value) if isinstance(value, dict) else {}
    fields = error if isinstance(error, dict) else {"message": str(error)}
    message = fields.get("message") or fields.get("detail") or f"The upstream answered {status}."
    code = fields.get("code")
    return ApiError(
        str(message),
        status=status,
        type=str(fields.get("type") or "invalid_request_error"),
        param=fields.get("param"),
        code=None if code is None else str(code),
        headers={"retry-after": retry_after} if retry_after else None,
    )


def _convert(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ApiError(
            f"The upstream's answer is not what it should be: {error}.", status=502, type="server_error"
        ) from error


def _as_completion(request: InfillRequest) -> CompletionRequest:
    return CompletionRequest(
        prompt=request.input_prefix + (request.prompt or ""),
        suffix=request.input_suffix,
        input_extra=request.input_extra,
        max_tokens=128 if request.n_predict is None or request.n_predict < 0 else request.n_predict,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=None if request.seed is None or request.seed < 0 else request.seed,
        stop=request.stop,
        n=request.n_cmpl,
    )


def _report(timer: RequestTimer, answer: Chat | Completion) -> None:
    usage = answer.usage
    if isinstance(usage, msgspec.UnsetType) or usage is None:
        timer.end("stop", prompt_tokens=0, cached_tokens=0)
        return
    timer.tokens(usage.completion_tokens)
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    timer.end("stop", prompt_tokens=usage.prompt_tokens, cached_tokens=cached)


async def _once(*values: T) -> AsyncGenerator[T, None]:
    for value in values:
        yield value
