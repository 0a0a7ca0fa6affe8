"""Where tests find the MiniLM folder: the catalogue's cache, never the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError


def minilm_folder() -> Path:
    """The folder, or skip the test with the catalogue's own sentence."""
    try:
        return locate("minilm-l6")
    except HighriseError as error:
        pytest.skip(f"the MiniLM weights are not in the cache: {error}")
