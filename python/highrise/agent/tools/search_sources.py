"""Floor 7, tool: search the indexed sources. Knows the index only by its `search`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from highrise.agent.tools.base import ToolResult

if TYPE_CHECKING:
    from highrise.encode.index import SearchIndex

__all__ = ["SearchSources"]


class SearchSources:
    """Finds pieces of code and prose by meaning and by words."""

    name = "search_sources"
    description = (
        "Search the team's source code and documents. Returns the best pieces with file path and line numbers."
    )
    parameters: dict[str, Any] = {  # noqa: RUF012 - never changed
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for: words, names, or a question"},
            "limit": {"type": "integer", "description": "how many pieces, at most 10"},
        },
        "required": ["query"],
    }

    def __init__(self, index: SearchIndex) -> None:
        self._index = index

    async def __call__(self, arguments: dict[str, Any]) -> ToolResult:
        """Search and show each piece under its place."""
        limit = min(max(int(arguments.get("limit", 5)), 1), 10)
        hits = await asyncio.to_thread(self._index.search, arguments["query"], limit=limit)
        if not hits:
            return ToolResult(text="Nothing was found.", data={"hits": []})
        text = "\n\n".join(f"{hit.path}:{hit.start_line}-{hit.end_line}\n{hit.text.rstrip()}" for hit in hits)
        return ToolResult(text=text, data={"hits": [msgspec.to_builtins(hit) for hit in hits]})
