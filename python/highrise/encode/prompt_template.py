"""Floor 3, prompt_template: a model's chat template, run in a sandbox. Knows no tokens.

The Jinja environment is the one Hugging Face's `apply_chat_template` uses, so a template gives the same text here as
there: block trimming, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, loop controls.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from highrise.core.errors import InputError

__all__ = ["CHATML", "ChatTemplate"]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For vocabularies trained here, and for weights that have the tokens but bring no template."""


class ChatTemplate:
    """A compiled template."""

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", name: str = "the chat template"
    ) -> None:
        self.source = source
        self.name = name
        self.supports_tools = "tools" in source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InputError(f"{name} is no valid template: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None,
        add_generation_prompt: bool,
    ) -> str:
        """The text of a conversation."""
        try:
            return self._template.render(
                messages=messages,
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{self.name} refused the messages: {error}") from error


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words in some templates; here they are found by rendering twice."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        """The body as it stands."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).astimezone().strftime(format)
