"""The commands of floor `agent`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

_URL = Argument(
    names=("--url",), help="the running server (http://127.0.0.1:8080)", default="http://127.0.0.1:8080", metavar="URL"
)
_KEY = Argument(names=("--key-file",), help="a file with the API key of that server, if it wants one", metavar="FILE")
_JSON = Argument(names=("--json",), help="print JSON for programs", flag=True)

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("complete",),
        help="print what the assistant would type at a place of a file",
        example="highrise complete src/app.py:12:8",
        run="highrise.agent.cli:complete",
        arguments=(
            Argument(
                names=("place",),
                metavar="FILE:LINE",
                help="FILE:LINE or FILE:LINE:COLUMN, counted from 1; without column, the line's end",
            ),
            Argument(
                names=("--max-tokens",), help="longest answer in tokens (128)", type=int, default=128, metavar="N"
            ),
            Argument(names=("--insert",), help="write the completion into the file", flag=True),
            _URL,
            _KEY,
            _JSON,
        ),
    ),
    Command(
        path=("chat",),
        help="talk to the assistant on the terminal",
        example='highrise chat "Where is the configuration read?"',
        run="highrise.agent.cli:chat",
        arguments=(
            Argument(names=("question",), help="ask this and leave; without it, a conversation", nargs="?"),
            Argument(names=("--tools",), help="let it search, read files and run checks", flag=True),
            Argument(names=("--no-sources",), help="leave the index out of the question", flag=True),
            Argument(names=("--max-tokens",), help="longest answer in tokens", type=int, metavar="N"),
            _URL,
            _KEY,
            _JSON,
        ),
    ),
    Command(
        path=("agent", "key"),
        help="create, list or revoke the API keys of an assistant",
        example="highrise agent key create --name ada",
        run="highrise.agent.cli:key",
        arguments=(
            Argument(names=("action",), help="what to do", choices=("create", "list", "revoke")),
            Argument(names=("--name",), help="the key's owner (create), or the id or name of the key (revoke)"),
            Argument(names=("--root",), help="the assistant's folder (.)", default=".", metavar="FOLDER"),
            _JSON,
        ),
    ),
    Command(
        path=("agent", "serve"),
        help="serve the assistant over a model or an upstream, without building anything",
        example="highrise agent serve smollm2-135m --root . --index .highrise/laptop/index",
        run="highrise.agent.cli:serve",
        arguments=(
            Argument(
                names=("model",),
                help="a catalogue name, a GGUF file, a folder, or the URL of an OpenAI-compatible server",
            ),
            Argument(
                names=("--root",), help="the repository that the tools may touch (.)", default=".", metavar="FOLDER"
            ),
            Argument(names=("--index",), help="a search index, as `highrise encode index` makes it", metavar="FOLDER"),
            Argument(names=("--host",), help="address to listen on (127.0.0.1)", default="127.0.0.1"),
            Argument(names=("--port",), help="port to listen on (8080)", type=int, default=8080),
            Argument(names=("--threads",), help="threads of the kernels (the physical cores)", type=int, metavar="N"),
            Argument(
                names=("--weights",),
                help="stored, int8 or int4 (int4)",
                choices=("stored", "int8", "int4"),
                default="int4",
            ),
            Argument(names=("--adapter",), help="a LoRA adapter in PEFT's format", metavar="FOLDER"),
            Argument(
                names=("--keys",),
                help="when to ask for API keys (auto)",
                choices=("auto", "always", "never"),
                default="auto",
            ),
        ),
    ),
)
