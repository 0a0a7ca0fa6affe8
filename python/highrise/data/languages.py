"""Floor 2, languages: the (programming) language of a file by its name, ending or first line.

Names are lower-case words, as tree-sitter's grammars call them where there is one. Knows nothing of natural languages.
"""

from __future__ import annotations

import re

__all__ = ["CODE", "DATA", "PROSE", "identify"]

_ENDINGS = {
    "python": "py pyi pyw",
    "cython": "pyx pxd pxi",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "rust": "rs",
    "go": "go",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala sc",
    "c": "c h",
    "cpp": "cc cpp cxx hpp hh hxx ipp cu cuh",
    "csharp": "cs",
    "objc": "m mm",
    "swift": "swift",
    "ruby": "rb rake gemspec",
    "php": "php",
    "perl": "pl pm",
    "lua": "lua",
    "r": "r",
    "julia": "jl",
    "haskell": "hs",
    "ocaml": "ml mli",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs cljc edn",
    "dart": "dart",
    "zig": "zig",
    "bash": "sh bash zsh bats",
    "powershell": "ps1 psm1",
    "sql": "sql",
    "html": "html htm xhtml",
    "css": "css",
    "scss": "scss sass less",
    "vue": "vue",
    "svelte": "svelte",
    "proto": "proto",
    "graphql": "graphql gql",
    "hcl": "tf hcl",
    "nix": "nix",
    "cmake": "cmake",
    "make": "mk mak",
    "dockerfile": "dockerfile",
    "asm": "asm s",
    "fortran": "f f90 f95",
    "vim": "vim",
    "toml": "toml",
    "yaml": "yaml yml",
    "json": "json jsonc json5 ipynb",
    "jsonl": "jsonl ndjson",
    "xml": "xml xsd xsl svg plist",
    "csv": "csv tsv",
    "ini": "ini cfg conf properties editorconfig",
    "markdown": "md markdown mdx",
    "rst": "rst",
    "text": "txt text adoc org tex",
}
_BY_ENDING = {ending: language for language, endings in _ENDINGS.items() for ending in endings.split()}
_BY_NAME = {
    "makefile": "make",
    "gnumakefile": "make",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "vagrantfile": "ruby",
    "jenkinsfile": "groovy",
    "build": "starlark",
    "build.bazel": "starlark",
    "workspace": "starlark",
    "pkgbuild": "bash",
    ".bashrc": "bash",
    ".zshrc": "bash",
    ".profile": "bash",
    "cargo.lock": "toml",
    "poetry.lock": "toml",
    "pipfile": "toml",
}
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-S\s+)?(?:\w+=\S*\s+)*)?([\w.+-]+)")
_BY_INTERPRETER = {
    "python": "python",
    "pypy": "python",
    "bash": "bash",
    "sh": "bash",
    "dash": "bash",
    "zsh": "bash",
    "ksh": "bash",
    "node": "javascript",
    "deno": "typescript",
    "bun": "typescript",
    "ruby": "ruby",
    "perl": "perl",
    "php": "php",
    "lua": "lua",
    "rscript": "r",
    "julia": "julia",
    "make": "make",
}

PROSE = frozenset({"markdown", "rst", "text"})
DATA = frozenset({"json", "jsonl", "xml", "csv", "yaml", "toml", "ini"})
CODE = (frozenset(_ENDINGS) | {"groovy", "starlark"}) - PROSE - DATA


def identify(path: str, text: str = "") -> str:
    """The language of a file: whole name first, then ending, then the interpreter in a `#!` line; else "text"."""
    name = path.rpartition("/")[2].lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    stem, dot, ending = name.rpartition(".")
    if dot and stem and ending in _BY_ENDING:
        language = _BY_ENDING[ending]
        return "cpp" if language == "c" and ending == "h" and _looks_like_cpp(text) else language
    if name.startswith("dockerfile."):
        return "dockerfile"
    if text.startswith("#!") and (match := _SHEBANG.match(text.split("\n", 1)[0])):
        return _BY_INTERPRETER.get(re.sub(r"[\d.]+$", "", match[1].lower()), "text")
    return "text"


def _looks_like_cpp(text: str) -> bool:
    return (
        re.search(r"^\s*(namespace\s+\w|template\s*<|class\s+\w+[^;]*\{|using\s+\w|public:|private:)", text, re.M)
        is not None
    )
