"""Floor 3, prompt: the one place where chat and fill-in-the-middle prompts are made, for training, serving, the agent.

What is trained is byte for byte what the editor sends. Content that spells a special token stays plain text: only the
template and this file can write one. A prompt is always a token prefix of the sample that continues it,
because what the model writes is encoded apart from what it is given. Knows nothing of models or the wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.encode import prompt_tools
from highrise.encode.prompt_guard import Guard
from highrise.encode.prompt_messages import Message, calls_in_content, plain_message
from highrise.encode.prompt_template import CHATML, ChatTemplate
from highrise.encode.prompt_tools import ToolCall
from highrise.encode.tokenizer import Tokenizer

__all__ = ["Prompt", "PromptFormat", "ToolCall"]

ExtraFiles = Sequence[tuple[str, str]]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids for the model. `loss_mask` is true where the assistant wrote; all false in a prompt."""

    ids: list[int]
    loss_mask: list[bool]
    text: str
    """The same as text, special tokens spelled out."""
    stop_ids: tuple[int, ...]
    """A token of these ends the answer."""
    floating: tuple[int, int] | None = None
    """Ids from .. to that stay the same while the text before them grows: in a fill-in what stands after the cursor.

    Not the marker before them: from its state the model reads where the text before the cursor ends.
    """
    begun: str = ""
    """What the answer must begin with: the begun word before the cursor, left out of `ids` (`infill(heal=True)`)."""


class _InfillTokens(msgspec.Struct, frozen=True):
    prefix: str
    suffix: str
    middle: str
    repository: str
    file: str
    pad: str


_INFILL = (
    _InfillTokens("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>", "<|fim_pad|>"),
    _InfillTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<repo_name>", "<file_sep>", "<fim_pad>"),
)
"""Qwen's and StarCoder's; both are given prefix, suffix, middle in this order."""


class PromptFormat:
    """How one model is addressed."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self.tokenizer = tokenizer
        self.stop_ids: tuple[int, ...] = tokenizer.eos_ids
        self._template = template
        specials = tokenizer.special_tokens
        longest_first = sorted(specials, key=lambda text: -len(text))
        self._specials_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._infill = next(
            (
                tokens
                for tokens in _INFILL
                if all(name in specials for name in (tokens.prefix, tokens.suffix, tokens.middle))
            ),
            None,
        )
        self._document_end = specials.get("<|endoftext|>", next(iter(self.stop_ids), None))

    @classmethod
    def for_weights(cls, path: str | Path, tokenizer: Tokenizer) -> PromptFormat:
        """The format of a GGUF file or of a folder in Hugging Face's layout; ChatML when it brings no template."""
        source = _read_template(Path(path))
        if source is None and {"<|im_start|>", "<|im_end|>"} <= tokenizer.special_tokens.keys():
            source = CHATML
        if source is None:
            return cls(tokenizer, None)
        texts = {value: text for text, value in tokenizer.special_tokens.items()}
        template = ChatTemplate(
            source,
            bos_token=texts.get(tokenizer.bos_id, "") if tokenizer.bos_id is not None else "",
            eos_token=texts.get(tokenizer.eos_ids[0], "") if tokenizer.eos_ids else "",
            name=f"the chat template of {path}",
        )
        return cls(tokenizer, template)

    @property
    def supports_chat(self) -> bool:
        """Whether there is a chat template."""
        return self._template is not None

    @property
    def supports_tools(self) -> bool:
        """Whether the template itself speaks of tools; otherwise they are described in the system message."""
        return self._template is not None and self._template.supports_tools

    @property
    def supports_infill(self) -> bool:
        """Whether the vocabulary has the special tokens of fill-in-the-middle."""
        return self._infill is not None

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
    ) -> Prompt:
        """The prompt of a conversation. Messages and tools are those of the OpenAI protocol."""
        guard, plain, tools = self._prepare(messages, tools)
        text = self._render(plain, tools, add_generation_prompt)
        return self._assemble(text, guard, ())

    def chat_sample(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, object]] | None = None
    ) -> Prompt:
        """A conversation with the assistant's turns marked for the loss, each with the token that ends it.

        A turn that the template changes once another follows it (as some drop earlier reasoning) is left unmarked.
        """
        guard, plain, tools = self._prepare(messages, tools)
        whole = self._render(plain, tools, False)
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(plain):
            if message["role"] != "assistant":
                continue
            before = self._render(plain[:index], tools, True)
            after = self._render(plain[: index + 1], tools, False)
            if after.startswith(before) and whole.startswith(after):
                spans.append((len(before), len(before) + self._end_of_turn(after[len(before) :])))
        return self._assemble(whole, guard, spans)

    def infill(
        self,
        prefix: str,
        suffix: str,
        *,
        extra: ExtraFiles = (),
        path: str | None = None,
        repository: str | None = None,
        limit: int | None = None,
        heal: bool = False,
    ) -> Prompt:
        """Ask for what stands between `prefix` and `suffix`; `extra` are other files as (path, text).

        `heal` leaves a begun word out of the prompt, for the answer to begin with it (`Prompt.begun`): the tokens of
        half a word are not those of the whole one, so the model hardly saw them there.
        With a `limit` on the number of ids, extra files go first (the last ones before the first), then the far ends of
        prefix and suffix, three parts to one.
        """
        tokens = self._infill
        if tokens is None:
            raise InputError(
                "this vocabulary has no fill-in-the-middle tokens (<|fim_prefix|> and so on); "
                "ask with the text before the cursor alone, or take a model that was trained for it"
            )
        special = self.tokenizer.special_tokens
        encode = self.tokenizer.encode
        begun = _begun_word(prefix) if heal else ""
        prefix = prefix[: len(prefix) - len(begun)]
        prefix_ids, suffix_ids = encode(prefix), encode(suffix)
        blocks: list[list[int]] = []
        with_files = tokens.file in special and (extra or path is not None or repository is not None)
        if with_files:
            if repository is not None and tokens.repository in special:
                blocks.append([special[tokens.repository], *encode(f"{repository}\n")])
            blocks += [[special[tokens.file], *encode(f"{name}\n{text}\n")] for name, text in extra]
        head = [special[tokens.file], *encode(f"{path}\n")] if with_files and path is not None else []
        if limit is not None:
            prefix_ids, suffix_ids, blocks = _fit(prefix_ids, suffix_ids, blocks, limit - len(head) - 3)
        ids = [token for block in blocks for token in block] + head
        ids += [special[tokens.prefix], *prefix_ids, special[tokens.suffix]]
        floating = (len(ids), len(ids) + len(suffix_ids)) if suffix_ids else None
        ids += [*suffix_ids, special[tokens.middle]]
        names = (tokens.prefix, tokens.suffix, tokens.middle, tokens.repository, tokens.file, tokens.pad)
        stops = self.stop_ids + tuple(special[name] for name in names if name in special)
        return Prompt(
            ids=ids,
            loss_mask=[False] * len(ids),
            text=self.tokenizer.decode(ids),
            stop_ids=stops,
            floating=floating,
            begun=begun,
        )

    def infill_sample(
        self,
        prefix: str,
        middle: str,
        suffix: str,
        *,
        extra: ExtraFiles = (),
        path: str | None = None,
        repository: str | None = None,
    ) -> Prompt:
        """The same prompt, then `middle` and the end of the document, both marked for the loss."""
        prompt = self.infill(prefix, suffix, extra=extra, path=path, repository=repository)
        answer = self.tokenizer.encode(middle)
        if self._document_end is not None:
            answer.append(self._document_end)
        ids = prompt.ids + answer
        mask = prompt.loss_mask + [True] * len(answer)
        return Prompt(ids=ids, loss_mask=mask, text=self.tokenizer.decode(ids), stop_ids=prompt.stop_ids)

    def parse_tool_calls(self, text: str) -> tuple[str, list[ToolCall]]:
        """What the model said besides, and the tool calls in its answer."""
        return prompt_tools.parse_tool_calls(text)

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, prompt: bool) -> str:
        if self._template is None:
            raise InputError(
                "these weights bring no chat template, and their vocabulary has no <|im_start|> and <|im_end|>; "
                "ask for a completion instead"
            )
        return self._template.render(messages, tools=tools, add_generation_prompt=prompt)

    def _prepare(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None
    ) -> tuple[Guard, list[dict[str, object]], Sequence[Mapping[str, object]] | None]:
        if not messages:
            raise InputError("a conversation needs at least one message")
        plain = [plain_message(message) for message in messages]
        if tools and not self.supports_tools:
            described = prompt_tools.describe_tools(tools)
            if plain[0]["role"] == "system":
                plain[0] = {**plain[0], "content": f"{plain[0]['content']}\n\n{described}"}
            else:
                plain.insert(0, {"role": "system", "content": described})
            tools = None
        if not self.supports_tools:
            plain = [calls_in_content(message) for message in plain]
        guard = Guard(self.tokenizer.special_tokens, self._specials_pattern, (plain, tools))
        guarded = [{key: guard.hide(value) for key, value in message.items()} for message in plain]
        hidden_tools = [{key: guard.hide(value) for key, value in tool.items()} for tool in tools] if tools else None
        return guard, guarded, hidden_tools

    def _end_of_turn(self, text: str) -> int:
        """Length of `text` up to and with the first token that ends a turn; what follows is the template's."""
        names = {value: name for name, value in self.tokenizer.special_tokens.items()}
        ends = [(text.find(names[stop]), names[stop]) for stop in self.stop_ids if stop in names]
        found = [at + len(name) for at, name in ends if at >= 0]
        return min(found, default=len(text))

    def _assemble(self, text: str, guard: Guard, spans: Sequence[tuple[int, int]]) -> Prompt:
        """Encode a rendered text; what lies in `spans` (positions in it) counts for the loss.

        The last span starts with a token of its own, as it does when a model answers. The ones before it were once such
        answers and are now part of the prompt, encoded as any prompt is; a token across their start is not theirs.
        """
        cut = spans[-1][0] if spans else 0
        ids: list[int] = []
        mask: list[bool] = []
        for at, piece, token in [*guard.split(text[:cut], 0), *guard.split(text[cut:], cut)]:
            edges = [edge - at for span in spans for edge in span if at < edge < at + len(piece)]
            counts = any(start <= at < end for start, end in spans)
            if token is not None:
                ids.append(token)
                mask.append(counts)
            elif not edges:
                found = self.tokenizer.encode(guard.show(piece))
                ids += found
                mask += [counts] * len(found)
            else:
                found, offsets = self.tokenizer.encode_with_offsets(guard.show(piece))
                edge_bytes = [len(guard.show(piece[:edge]).encode()) for edge in edges]
                ids += found
                mask += [counts ^ (sum(edge <= start for edge in edge_bytes) % 2 == 1) for start, _ in offsets]
        return Prompt(ids=ids, loss_mask=mask, text=guard.show(text), stop_ids=self.stop_ids)


_BEGUN = re.compile(r"(?:[^\r\n\w]|_)?[^\W\d_]+\Z")
"""A run of letters with the one sign that vocabularies join to it, as a blank, `.` or `_`."""

_LONGEST_BEGUN = 32


def _begun_word(prefix: str) -> str:
    """The word that the cursor stands at the end of, or nothing."""
    found = _BEGUN.search(prefix, max(0, len(prefix) - _LONGEST_BEGUN))
    return found[0] if found else ""


def _fit(
    prefix: list[int], suffix: list[int], blocks: list[list[int]], room: int
) -> tuple[list[int], list[int], list[list[int]]]:
    """Cut until prefix, suffix and blocks together have at most `room` ids."""
    kept = list(blocks)
    while kept and sum(map(len, kept)) + len(prefix) + len(suffix) > room:
        kept.pop()
    room = max(room - sum(map(len, kept)), 0)
    if len(prefix) + len(suffix) > room:
        for_suffix = min(len(suffix), max(room // 4, room - len(prefix)))
        suffix = suffix[:for_suffix]
        for_prefix = room - for_suffix
        prefix = prefix[len(prefix) - for_prefix :] if for_prefix < len(prefix) else prefix
    return prefix, suffix, kept


class _TemplateFile(msgspec.Struct):
    chat_template: str | list[dict[str, str]] | None = None


def _read_template(path: Path) -> str | None:
    if not path.is_dir():
        from highrise.core.gguf import open_gguf

        found = open_gguf(path).metadata.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None
    beside, config = path / "chat_template.jinja", path / "tokenizer_config.json"
    try:
        if beside.exists():
            return beside.read_text(encoding="utf-8")
        if not config.exists():
            return None
        template = msgspec.json.decode(config.read_bytes(), type=_TemplateFile).chat_template
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise InputError(f"cannot read the chat template of {path}: {error}") from error
    if isinstance(template, list):
        named = {entry.get("name", ""): entry.get("template", "") for entry in template}
        return named.get("default") or next(iter(named.values()), None)
    return template
