"""Floor 0, command line of the catalogue: `highrise fetch` and `highrise models`."""

from __future__ import annotations

import argparse
import json

from highrise.core.catalogue import describe, entries, locate
from highrise.core.progress import human_bytes, say

__all__ = ["fetch", "models"]


def fetch(arguments: argparse.Namespace) -> int:
    """Fetch the named models into the cache and print where they lie."""
    for name in arguments.models:
        print(locate(name, download=True, say=say))
    return 0


def models(arguments: argparse.Namespace) -> int:
    """List the catalogue."""
    known = entries().values()
    if arguments.json:
        print(json.dumps([describe(model) for model in known], indent=2))
    else:
        for model in known:
            print(f"{model.name:<20} {human_bytes(model.size):>9}  {model.license:<11} {model.about}")
    return 0
