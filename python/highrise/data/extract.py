"""Floor 2, extract: documents that are not text themselves (notebooks, PDF, web pages) to the text in them.

Notebooks become a script of the percent format (`# %%`), so that the code stays code; outputs are left out. Web pages
(`.web.html` from a web archive) lose navigation and markup; HTML files of a repository stay as they are: there they
are code. PDF pages are joined by empty lines. Knows nothing of filters.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from highrise.core.json_text import decode_json

__all__ = ["extract", "html_to_text", "notebook_to_script"]


class _Cell(msgspec.Struct, frozen=True):
    cell_type: str = "code"
    source: str | list[str] = ""
    input: str | list[str] = ""  # before version 4


class _Sheet(msgspec.Struct, frozen=True):
    cells: list[_Cell] = []


class _Kernel(msgspec.Struct, frozen=True):
    language: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    kernelspec: _Kernel = _Kernel()


class _Notebook(msgspec.Struct, frozen=True):
    cells: list[_Cell] = []
    worksheets: list[_Sheet] = []
    metadata: _Metadata = _Metadata()


_ENDINGS = {"": "py", "python": "py", "r": "r", "julia": "jl", "javascript": "js", "typescript": "ts", "scala": "scala"}


def extract(path: str, data: bytes) -> tuple[str, bytes] | None:
    """The path as it should be named for its language and the text in UTF-8; None where the file is text itself.

    Raises `ValueError` with one sentence when the document cannot be read.
    """
    lowered = path.lower()
    if lowered.endswith(".ipynb"):
        ending, text = notebook_to_script(data)
        return f"{path}.{ending}", text.encode("utf-8", "replace")
    if lowered.endswith(".web.html"):
        return f"{path[: -len('.html')]}.md", html_to_text(_decode_html(data)).encode("utf-8", "replace")
    if lowered.endswith(".pdf"):
        from highrise.data.adapters.pdfium import pdf_to_text

        return f"{path}.txt", pdf_to_text(data).encode("utf-8", "replace")
    return None


def notebook_to_script(data: bytes) -> tuple[str, str]:
    """The ending of the kernel's language and the cells as a script; Markdown cells become comments."""
    try:
        notebook = decode_json(data, _Notebook)
    except msgspec.DecodeError as error:
        raise ValueError(f"no notebook: {error}") from error
    ending = _ENDINGS.get(notebook.metadata.kernelspec.language.lower(), "py")
    mark = "//" if ending in ("js", "ts", "scala") else "#"
    cells = notebook.cells or [cell for sheet in notebook.worksheets for cell in sheet.cells]
    parts = []
    for cell in cells:
        raw = cell.source or cell.input
        text = ("".join(raw) if isinstance(raw, list) else raw).strip("\n")
        if not text.strip():
            continue
        if cell.cell_type == "code":
            lines = [f"{mark} {line}" if _is_magic(line) else line for line in text.split("\n")]
            parts.append(f"{mark} %%\n" + "\n".join(lines))
        else:
            commented = "\n".join(f"{mark} {line}".rstrip() for line in text.split("\n"))
            parts.append(f"{mark} %% [markdown]\n{commented}")
    return ending, "\n\n".join(parts) + ("\n" if parts else "")


def _is_magic(line: str) -> bool:
    """Whether a line of a cell speaks to IPython or the shell, not to Python."""
    bare = line.lstrip()
    return bare.startswith(("%", "!")) or (bare.endswith("?") and not bare.startswith("#"))


def _decode_html(data: bytes) -> str:
    from highrise.data.decode import decode

    return decode(data)[0]


def html_to_text(page: str) -> str:
    """The main text of a web page or of a fragment of HTML."""
    from highrise.data.adapters.resiliparse import main_text

    convert: Callable[[str], str] = main_text
    return convert(page) if "<" in page or "&" in page else page
