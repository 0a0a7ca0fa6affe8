"""Floor 7, command line: `highrise complete`, `highrise chat`, `highrise agent key` and `highrise agent serve`."""

from __future__ import annotations

import argparse
import json
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any

from highrise.agent.client import Client
from highrise.agent.keys import KeyFile
from highrise.core.errors import AgentError, HighriseError, InputError
from highrise.core.files import atomic_write

__all__ = ["chat", "complete", "key", "serve"]

_KEY_FILE = Path(".highrise") / "keys.json"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _client(arguments: argparse.Namespace) -> Client:
    secret = None
    if arguments.key_file is not None:
        try:
            secret = Path(arguments.key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the key file {arguments.key_file}: {error}") from error
        if not secret.isascii() or not secret.isprintable() or " " in secret or not secret:
            raise InputError(f"the key file {arguments.key_file} does not hold one key; write the key alone into it")
    return Client(arguments.url, key=secret)


# ------------------------------------------------------------------------------------------------------------ complete


def complete(arguments: argparse.Namespace) -> int:
    """Print (or insert) what the assistant would type at FILE:LINE[:COLUMN]."""
    path, prefix, suffix = _split_at(arguments.place)
    before = (prefix + suffix).encode()
    body = {
        "prompt": prefix,
        "suffix": suffix,
        "max_tokens": arguments.max_tokens,
        "temperature": 0,
        "path": path.as_posix() if not path.is_absolute() else path.name,
    }
    started = time.monotonic()
    answer = _client(arguments).ask("/v1/completions", body)
    text = answer["choices"][0]["text"]
    if arguments.json:
        print(json.dumps({"text": text, "seconds": round(time.monotonic() - started, 3), "usage": answer.get("usage")}))
    elif not text:
        print("highrise: nothing worth typing here", file=sys.stderr)
    elif not arguments.insert:
        print(_printable(text))
    if arguments.insert and text:
        _replace(path, before, (prefix + text + suffix).encode())
        print(f"highrise: {len(text)} characters were inserted into {path}", file=sys.stderr)
    return 0


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Write `after` where `before` still stands; a link stays a link, and the file keeps its mode."""
    target = path.resolve()
    if target.read_bytes() != before:
        raise InputError(f"{path} was changed while the assistant thought, so nothing was inserted; ask again")
    with atomic_write(target) as file:
        Path(file.name).chmod(stat.S_IMODE(target.stat().st_mode))
        file.write(after)


def _split_at(place: str) -> tuple[Path, str, str]:
    """The file of FILE:LINE[:COLUMN] and its text before and after that place."""
    parts = place.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        name, line, column = parts[0], int(parts[1]), int(parts[2])
    elif len(parts) >= 2 and parts[-1].isdigit():
        name, line, column = place.rsplit(":", 1)[0], int(parts[-1]), 0
    else:
        raise InputError(
            f"'{place}' is not a place in a file; write FILE:LINE or FILE:LINE:COLUMN, such as src/app.py:12:8"
        )
    path = Path(name)
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8: {error}") from error
    lines = text.split("\n")  # as editors count: a form feed or U+2028 ends no line
    if not 1 <= line <= len(lines):
        raise InputError(f"{path} has {len(lines)} lines; line {line} is not one of them")
    length = len(lines[line - 1].removesuffix("\r"))
    if column > length + 1:
        raise InputError(f"line {line} of {path} has {length} characters; column {column} is past its end")
    start = sum(len(one) + 1 for one in lines[: line - 1]) + (column - 1 if column else length)
    return path, text[:start], text[start:]


# ---------------------------------------------------------------------------------------------------------------- chat


def chat(arguments: argparse.Namespace) -> int:
    """One question, or a conversation until Ctrl-D."""
    client = _client(arguments)
    messages: list[dict[str, Any]] = []
    if arguments.question is not None:
        _ask(client, arguments, messages, arguments.question)
        return 0
    facts = client.ask("/v1/models")
    print(f"{facts['data'][0]['id']} at {arguments.url}; Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
    while True:
        try:
            question = input("\n> " if sys.stdin.isatty() else "").strip()
            question.encode()  # in the locale C what is not UTF-8 arrives as surrogates
        except EOFError:
            print(file=sys.stderr)
            return 0
        except UnicodeError as error:
            raise InputError(f"standard input is not UTF-8 text: {error}") from error
        if not question:
            continue
        turns = len(messages)
        try:
            _ask(client, arguments, messages, question)
        except KeyboardInterrupt:
            del messages[turns:]
            print("\n(stopped)", file=sys.stderr)
        except HighriseError as error:  # also when no server answers: it may come back, and the conversation goes on
            del messages[turns:]
            print(f"highrise: {error}", file=sys.stderr)


def _ask(client: Client, arguments: argparse.Namespace, messages: list[dict[str, Any]], question: str) -> None:
    messages.append({"role": "user", "content": question})
    body: dict[str, Any] = {
        "messages": messages,
        "use_tools": arguments.tools,
        "use_context": not arguments.no_sources,
        "max_tokens": arguments.max_tokens,
    }
    said, events = "", []
    for event in _events(client, {name: value for name, value in body.items() if value is not None}):
        events.append(event)
        if "error" in event:
            raise AgentError(str(event["error"]["message"]).rstrip("."))
        if event["type"] == "text":
            said += event["text"]
        if not arguments.json:
            _show(event)
    messages.append({"role": "assistant", "content": said})
    if arguments.json:
        print(json.dumps({"text": said, "events": [event for event in events if event["type"] != "text"]}))
    elif not said.endswith("\n"):
        print()


def _events(client: Client, body: dict[str, Any]) -> Any:
    """The agent's events; a plain model server without an agent answers as chat."""
    try:
        yield from client.events("/v1/agent", body)
    except AgentError as error:
        if "There is no route" not in str(error):
            raise
        plain = {"messages": body["messages"], "stream": True}
        if "max_tokens" in body:
            plain["max_tokens"] = body["max_tokens"]
        for chunk in client.events("/v1/chat/completions", plain):
            if "error" in chunk:
                yield chunk
            for choice in chunk.get("choices", ()):
                if text := choice["delta"].get("content"):
                    yield {"type": "text", "text": text}


def _show(event: dict[str, Any]) -> None:
    kind = event["type"]
    if kind == "text":
        print(_printable(event["text"]), end="", flush=True)
    elif kind == "sources":
        places = ", ".join(f"{one['path']}:{one['start_line']}" for one in event["sources"])
        print(_soft(f"sources: {_printable(places)}"), file=sys.stderr, flush=True)
    elif kind == "tool_call":
        print(_soft(_printable(f"\n{event['name']} {event.get('arguments', '')}")), file=sys.stderr, flush=True)
    elif kind == "tool_result":
        first = event.get("text", "").strip().split("\n", 1)[0]
        print(_soft(_printable(f"  {'ok' if event.get('ok') else 'failed'}: {first}")), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """`text` with no control character but tab and line feed: what a model or a source says steers no terminal."""
    return _CONTROL.sub("\ufffd", text)


def _soft(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text


# ----------------------------------------------------------------------------------------------------------------- key


def key(arguments: argparse.Namespace) -> int:
    """Create, list or revoke API keys."""
    root = Path(arguments.root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; --root names the assistant's")
    keys = KeyFile(root / _KEY_FILE)
    if arguments.action == "list":
        _list_keys(keys, as_json=arguments.json)
        return 0
    if arguments.name is None:
        raise InputError(f"`highrise agent key {arguments.action}` needs --name")
    if arguments.action == "create":
        secret = keys.create(arguments.name)
        print(json.dumps({"name": arguments.name, "key": secret}) if arguments.json else secret)
        print("highrise: this key is shown once and kept nowhere; hand it on safely", file=sys.stderr)
    else:
        gone = keys.revoke(arguments.name)
        print(json.dumps({"id": gone.id, "name": gone.name}) if arguments.json else f"revoked {gone.id} ({gone.name})")
    return 0


def _list_keys(keys: KeyFile, *, as_json: bool) -> None:
    found = keys.keys()
    if as_json:
        print(json.dumps([{"id": one.id, "name": one.name, "created": one.created} for one in found]))
    elif not found:
        print(f"no keys in {keys.path}", file=sys.stderr)
    else:
        for one in found:
            print(f"{one.id}  {time.strftime('%Y-%m-%d', time.localtime(one.created))}  {one.name}")


# --------------------------------------------------------------------------------------------------------------- serve


def serve(arguments: argparse.Namespace) -> int:
    """The assistant over a model or an upstream."""
    from highrise.agent.app import build_app
    from highrise.agent.config import AgentConfig
    from highrise.serve.cli import open_engine_backend
    from highrise.serve.config import ServeConfig
    from highrise.serve.server import address_of, bind, run_app
    from highrise.serve.upstream import UpstreamBackend

    root = Path(arguments.root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; --root names the repository that the tools may touch")
    config = ServeConfig(host=arguments.host, port=arguments.port, weights=arguments.weights, threads=arguments.threads)
    with bind(config.host, config.port) as listener:
        index = None
        if arguments.index is not None:
            from highrise.encode.index import SearchIndex

            index = SearchIndex.open(Path(arguments.index))
        backend = (
            UpstreamBackend(arguments.model)
            if arguments.model.startswith(("http://", "https://"))
            else open_engine_backend(
                arguments.model,
                config,
                adapter=None if arguments.adapter is None else Path(arguments.adapter),
            )
        )
        app = build_app(AgentConfig(keys=arguments.keys), backend, index=index, root=root)
        url = address_of(listener)
        run_app(
            app, listener, on_ready=lambda: print(f"{backend.name} on {url}; Ctrl-C stops", file=sys.stderr, flush=True)
        )
    return 0
