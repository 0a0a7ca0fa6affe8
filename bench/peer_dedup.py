"""Text to clusters by datatrove or text-dedup, in their own environment (`bench/peers.py`).

usage: python bench/peer_dedup.py WHO IN.jsonl OUT.json

Word 5-grams of `\\w+`, 128 places, 16 bands of 8, as all others; neither verifies its candidates. Writes a label for
each text, and the CPU seconds of the work without imports and without reading the input. datatrove is given our words
and no other normalisation; text-dedup cuts at the same places and lowers the case. text-dedup hashes with sha1 by
default; xxh3, its faster choice, is used here.
"""

from __future__ import annotations

import json
import re
import resource
import struct
import sys
import tempfile
from pathlib import Path

BANDS, ROWS, WORDS = 16, 8, 5
WORD = re.compile(r"\w+")


def cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def datatrove(texts: list[str]) -> tuple[list[int], float]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return WORD.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [match.span() for match in WORD.finditer(text)]

    plain = TextNormConfig(
        lowercase=False, norm_whitespace=False, remove_punctuation=False, norm_unicode_diacritics=False,
        norm_numbers=False, norm_weekdays=False, norm_monthnames=False,
    )  # fmt: skip
    config = MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS, norm_config=plain)
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        began = cpu()
        MinhashDedupSignature(f"{folder}/s", config=config, language=Words()).run(iter(documents), 0, 1)
        for bucket in range(BANDS):
            MinhashDedupBuckets(f"{folder}/s", f"{folder}/b", config=config).run(None, bucket, BANDS)
        MinhashDedupCluster(f"{folder}/b", f"{folder}/c", config=config, save_cluster_id=True).run(None, 0, 1)
        used = cpu() - began
        labels = list(range(len(texts)))
        first: dict[int, int] = {}
        for document, cluster in struct.iter_unpack("<2I", Path(f"{folder}/c/000000.clusters").read_bytes()):
            labels[document] = first.setdefault(cluster, document)
    return labels, used


def text_dedup(texts: list[str]) -> tuple[list[int], float]:
    import pickle

    import datasets
    import text_dedup.minhash as module
    from text_dedup.utils import IOArgs, MetaArgs, MinHashArgs

    class Cut:
        def split(self, text: str) -> list[str]:
            return WORD.findall(text)

    module.NON_ALPHA = Cut()
    with tempfile.TemporaryDirectory() as folder:
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(f"{folder}/in")
        began = cpu()
        module.main.callback(
            io_args=IOArgs(path=f"{folder}/in", output=f"{folder}/out", local=True, num_proc=1, debug=True),
            meta_args=MetaArgs(column="text"),
            minhash_args=MinHashArgs(
                ngram=WORDS, min_length=0, num_perm=BANDS * ROWS, threshold=0.8, b=BANDS, r=ROWS, hash_func="xxh3"
            ),
        )
        used = cpu() - began
        found = pickle.loads(Path(f"{folder}/out/uf.pkl").read_bytes())
    return [found.find(number) if number in found.parent else number for number in range(len(texts))], used


def main(who: str, source: str, target: str) -> None:
    with Path(source).open() as file:
        texts = [json.loads(line) for line in file]
    labels, used = {"datatrove": datatrove, "text-dedup": text_dedup}[who](texts)
    Path(target).write_text(json.dumps({"labels": labels, "seconds": used}))


if __name__ == "__main__":
    main(*sys.argv[1:])
