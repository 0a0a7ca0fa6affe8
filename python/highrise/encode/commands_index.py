"""The commands of floor `encode` that build and search an index, as data."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("encode", "index"),
        help="Cut a data folder into chunks and index them by words and by meaning.",
        example="highrise encode index .highrise/our-team/data .highrise/our-team/index --budget '60 s'",
        run="highrise.encode.search_cli:run_index",
        arguments=(
            Argument(names=("data",), help="folder that `highrise data build` wrote", metavar="DATA"),
            Argument(
                names=("out",), help="folder of the index; vectors of an index there are taken over", metavar="OUT"
            ),
            Argument(names=("--budget",), help='time for embeddings, "0 s" for none', metavar="TIME", default="60 s"),
            Argument(names=("--embedder",), help="catalogue name or model folder", metavar="NAME", default="minilm-l6"),
            Argument(
                names=("--store",),
                help='"faiss", or where vectors go: postgresql://HOST/DB?table=T, milvus://, pinecone://, azure-search://',
                metavar="URL",
                default="faiss",
            ),
            Argument(names=("--threads",), help="threads while building; all cores when absent", type=int, metavar="N"),
            Argument(names=("--json",), help="print the counts as JSON", flag=True),
        ),
    ),
    Command(
        path=("encode", "search"),
        help="Find chunks of the indexed sources.",
        example='highrise encode search "write a file atomically" --limit 5 --language python',
        run="highrise.encode.search_cli:run_search",
        arguments=(
            Argument(names=("query",), help="words, an identifier or a question", metavar="QUERY"),
            Argument(
                names=("--index",), help="index folder; by default the only .highrise/*/index here", metavar="FOLDER"
            ),
            Argument(names=("--limit",), help="most hits to print", type=int, default=10, metavar="N"),
            Argument(names=("--language",), help="only this language; may be comma-separated", metavar="L"),
            Argument(names=("--own",), help="only the team's own sources", flag=True),
            Argument(
                names=("--mode",), help="how hits are ranked", choices=("fused", "lexical", "vector"), default="fused"
            ),
            Argument(names=("--json",), help="print the hits as one JSON array", flag=True),
        ),
    ),
)
