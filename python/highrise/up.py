"""Build, then serve: the functions behind `highrise up` and `highrise build`.

Knows the order of things and how to stop; the stages are in `build.py`, the application in `agent/app.py`.
"""

from __future__ import annotations

import argparse
import os

import msgspec

from highrise.assistant import Assistant, find, render
from highrise.build import build_assistant, check_inputs, state_folder
from highrise.core.files import exclusive
from highrise.core.progress import say

__all__ = ["build", "up"]


def _open(arguments: argparse.Namespace) -> Assistant:
    """Find the assistant, go to its folder (paths in the file are relative to it), print what was resolved."""
    assistant, root, origin = find(arguments.config, arguments.preset)
    os.chdir(root)
    say(f"assistant {assistant.name}, from {origin}, in {root}\n{render(assistant)}\n")
    return assistant


def _lock_message(assistant: Assistant) -> str:
    return (
        f"another highrise is at work on {state_folder(assistant)}; stop it first, or give this assistant another name"
    )


def up(arguments: argparse.Namespace) -> int:
    """Build what is not built and serve it until Ctrl-C; with --check, ask three questions and leave."""
    assistant = _open(arguments)
    serve = assistant.serve
    changes = {name: getattr(arguments, name) for name in ("host", "port") if getattr(arguments, name) is not None}
    if changes:
        serve = msgspec.structs.replace(serve, **changes)
        assistant = msgspec.structs.replace(assistant, serve=serve)
    with exclusive(state_folder(assistant) / ".lock", busy=_lock_message(assistant)):
        from highrise.run import serve_assistant

        return serve_assistant(assistant, check_only=arguments.check, retune=arguments.retune)


def build(arguments: argparse.Namespace) -> int:
    """Build every stage and leave; with --dry-run, only look whether sources and models are there."""
    assistant = _open(arguments)
    if arguments.dry_run:
        check_inputs(assistant)
    else:
        with exclusive(state_folder(assistant) / ".lock", busy=_lock_message(assistant)):
            build_assistant(assistant, retune=arguments.retune)
    return 0
