"""Readers: what each container gives, what is refused, and that damage costs what is damaged and nothing else."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.data.extract import extract, html_to_text, notebook_to_script
from highrise.data.filters import REASONS
from highrise.data.readers import Blob, Item, Limits, reader_for
from highrise.data.readers.item import local_blob, stem_of

LIMITS = Limits(item_bytes=10_000)


def read(name: str, data: bytes, limits: Limits = LIMITS) -> list[Item]:
    blob = Blob(name=name, size=len(data), stamp="", open=lambda: io.BytesIO(data))
    items = list(reader_for(name)(blob, limits))
    assert all(not item.reason or item.reason in REASONS for item in items)
    assert all(not (item.reason and item.data) for item in items)
    return items


def tar(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(("mode", "ending"), [("w", "tar"), ("w:gz", "tar.gz"), ("w:bz2", "tar.bz2"), ("w:xz", "txz")])
def test_tar(mode: str, ending: str) -> None:
    packed = tar({"p-1.0/a.py": b"x = 1\n", "p-1.0/long.py": b"y" * 10_001, "b.py": b""}, mode)
    items = read(f"dir/p-1.0.{ending}", packed)
    assert [(item.path, item.data, item.reason) for item in items] == [
        ("p-1.0/a.py", b"x = 1\n", ""),
        ("p-1.0/long.py", b"", "too large"),
        ("p-1.0/b.py", b"", ""),
    ]


def test_tar_in_zstandard() -> None:
    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, "zstd") as stream:
        stream.write(tar({"a.py": b"x"}, "w"))
    assert [item.path for item in read("p.tar.zst", target.getvalue().to_pybytes())] == ["p/a.py"]


def test_members_that_lead_out_of_a_tar_are_refused() -> None:
    members: dict[str, bytes | tarfile.TarInfo] = {
        "../../etc/passwd": b"root",
        "/etc/passwd": b"root",
        "a/../../b": b"x",
        "link": link("link", "/etc/passwd"),
        "hard": link("hard", "../x", tarfile.LNKTYPE),
        "device": link("device", "", tarfile.CHRTYPE),
        "ok.py": b"x = 1\n",
    }
    reasons = {item.path: item.reason for item in read("p.tar.gz", tar(members))}
    assert sorted(reasons.values()) == [
        "",
        "not a file",
        "symlink",
        "symlink",
        "unsafe path",
        "unsafe path",
        "unsafe path",
    ]
    assert reasons["p/ok.py"] == ""


def test_a_bomb_ends_at_the_limits() -> None:
    packed = tar({f"{n}.txt": bytes(9_000_000) for n in range(6)})
    limits = Limits(item_bytes=10_000_000, ratio=100)
    items = read("bomb.tar.gz", packed, limits)
    assert items[-1].reason == "bomb" and "100 times" in items[-1].detail and len(items) < 6
    assert (
        read("bomb.tar.gz", packed, Limits(item_bytes=10_000_000, ratio=10_000, total_bytes=20_000_000))[-1].reason
        == "bomb"
    )
    assert (
        read("many.tar", tar({str(n): b"" for n in range(20)}, "w"), Limits(members=10))[-1].detail
        == "more than 10 members"
    )


def test_a_truncated_archive_gives_what_is_whole() -> None:
    import random

    noise = random.Random(1).randbytes(180_000)
    packed = tar({f"{n}.bin": noise[n * 9_000 :][:9_000] for n in range(20)})
    items = read("p.tar.gz", packed[: len(packed) // 2])
    assert items[-1].reason == "damaged" and len(items) > 8
    assert b"".join(item.data for item in items) == noise[: (len(items) - 1) * 9_000]
    assert read("p.zip", b"PK no zip")[0].reason == "damaged"
    assert read("p.tar", b"")[0].reason == "damaged"


def zipped(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return target.getvalue()


def test_zip_and_wheel() -> None:
    packed = zipped({"m/a.py": b"x = 1\n", "../out.py": b"x", "big": b"0" * 20_000})
    found = {item.path: item.reason for item in read("m-1.0-py3-none-any.whl", packed)}
    stem = "m-1.0-py3-none-any"
    assert found == {
        f"{stem}/m/a.py": "",
        f"{stem}/../out.py": "unsafe path",
        f"{stem}/big": "too large",
        f"{stem}/link": "symlink",
    }


def test_a_zip_that_lies_about_a_member_costs_that_member() -> None:
    packed = bytearray(zipped({"a.py": b"x = 1\n" * 99, "b.py": b"y = 1\n" * 99}))
    packed[40] ^= 0xFF
    reasons = [item.reason for item in read("p.zip", bytes(packed))]
    assert reasons == ["damaged", "", "symlink"]


@given(st.data())
def test_no_mutation_of_an_archive_raises(data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["p.tar", "p.tar.gz", "p.zip", "p.tar.xz", "p.jsonl.gz", "p.parquet", "p.warc.gz", "Posts.xml"])
    )
    mutated = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutated)))
    for item in read(name, bytes(mutated[:cut] if data.draw(st.booleans()) else mutated)):
        assert item.path


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_jsonl() -> None:
    lines = jsonl(
        {"text": "x = 1", "path": "src/a.py", "repo_name": "team/api", "license": "MIT"},
        {"content": "fn main() {}", "language": "Rust"},
        {"other": 1},
        [1],
        {"text": "y" * 10_001},
        {"text": "z", "path": "../../up.py"},
    )
    items = read(
        "set/rows.jsonl", lines[:-1] + b"\nnot json\n" + b'"' + b"a" * 2_000_000 + b'"\n' + jsonl({"text": "last"})
    )
    assert [(item.path, item.reason) for item in items] == [
        ("rows/1/src/a.py", ""),
        ("rows/2.rs", ""),
        ("rows/3", "damaged"),
        ("rows/4", "damaged"),
        ("rows/5.web.txt", "too large"),
        ("rows/6.web.txt", ""),
        ("rows/7", "damaged"),
        ("rows/8", "too large"),
        ("rows/9.web.txt", ""),
    ]
    assert (items[0].repository, items[0].license, items[0].data) == ("team/api", "MIT", b"x = 1")
    assert read("rows.jsonl.gz", gzip.compress(jsonl({"text": "x"})))[0].data == b"x"


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"code": ["x = 1", None], "repo": ["a/b", "a/b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "t.parquet")
    items = list(reader_for("t.parquet")(local_blob(tmp_path / "t.parquet"), LIMITS))
    assert [(item.repository, item.data, item.reason) for item in items] == [
        ("a/b", b"x = 1", ""),
        ("", b"", "damaged"),
    ]
    assert "no column named text, but n" in read("n.parquet", parquet(pa.table({"n": [1]})))[0].detail


def parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


PAGE = (
    b"<html><body><nav>Home | About</nav><main><h1>Sorting</h1><p>"
    + b"Merge sort is stable and splits a list. " * 9
    + b"</p></main></body></html>"
)


def warc(*pages: tuple[str, bytes]) -> bytes:
    records = b""
    for kind, body in pages:
        http = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), len(body)) + body
        head = (
            b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://ex.org/p\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        )
        head += (
            b"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n"
            % len(http)
        )
        records += gzip.compress(head + http + b"\r\n\r\n")
    return records


def test_warc() -> None:
    pytest.importorskip("fastwarc", reason="fastwarc is not installed")
    items = read(
        "crawl.warc.gz",
        warc(("text/html; charset=utf-8", PAGE), ("image/png", b"\x89PNG"), ("text/plain", b"y" * 20_000)),
    )
    assert [(item.path, item.reason) for item in items] == [
        ("crawl/1-ex.org.web.html", ""),
        ("crawl/2-ex.org", "not text"),
        ("crawl/3-ex.org.web.txt", "too large"),
    ]
    path, text = extract(items[0].path, items[0].data) or ("", b"")
    assert (
        path == "crawl/1-ex.org.web.md"
        and b"Merge sort is stable" in text
        and b"<p>" not in text
        and b"About" not in text
    )
    assert read("crawl.warc.gz", b"nothing")[0].reason == "damaged"


POSTS = b"""<?xml version="1.0" encoding="utf-8"?><posts>
<row Id="1" PostTypeId="1" Title="How to sort?" Body="&lt;p&gt;I have a &lt;code&gt;list&lt;/code&gt;.&lt;/p&gt;" />
<row Id="2" PostTypeId="2" ParentId="1" Score="1" Body="&lt;p&gt;Second answer&lt;/p&gt;" />
<row Id="3" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;Best answer&lt;/p&gt;" />
<row Id="4" PostTypeId="2" ParentId="77" Body="&lt;p&gt;Lost answer&lt;/p&gt;" /></posts>"""


def test_stack_exchange() -> None:
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    items = read("dba/Posts.xml", POSTS)
    assert [item.path for item in items] == ["Posts/1.md", "Posts/4.md"] and items[0].license == "CC-BY-SA-4.0"
    text = items[0].data.decode()
    assert text.startswith("# How to sort?\n\nI have a") and text.index("Best answer") < text.index("Second answer")
    assert [item.reason for item in read("Posts.xml", POSTS[:300])] == ["damaged", ""]
    bomb = (
        b'<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><posts><row Id="1" PostTypeId="1" Body="&b;"/></posts>'
    )
    assert read("Posts.xml", bomb)[0].reason == "damaged"


def test_notebooks_become_scripts() -> None:
    book = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "words"]},
            {"cell_type": "code", "source": "%pip install x\nimport os\nos?\n", "outputs": [{"data": "A" * 99}]},
            {"cell_type": "code", "source": ""},
        ],
        "metadata": {"kernelspec": {"language": "python"}},
        "nbformat": 4,
    }
    ending, text = notebook_to_script(json.dumps(book).encode())
    assert ending == "py"
    assert text == "# %% [markdown]\n# # Title\n# words\n\n# %%\n# %pip install x\nimport os\n# os?\n"
    compile(text, "book", "exec")
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"]}]}]}
    assert notebook_to_script(json.dumps(old).encode())[1] == "# %%\nx = 1\n"
    with pytest.raises(ValueError, match="no notebook"):
        notebook_to_script(b"[1]")


def pdf(text: str) -> bytes:
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        out
        + b"xref\n0 6\n0000000000 65535 f \n"
        + table
        + b"trailer << /Root 1 0 R /Size 6 >>\nstartxref\n%d\n%%%%EOF" % len(out)
    )


def test_pdf() -> None:
    pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed")
    assert extract("a/manual.pdf", pdf("Read the manual first")) == ("a/manual.pdf.txt", b"Read the manual first")
    with pytest.raises(ValueError, match="no readable PDF"):
        extract("a.pdf", b"%PDF-1.4 nothing")


def test_html_fragments_and_plain_text() -> None:
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    assert html_to_text("no markup") == "no markup"
    assert html_to_text("<p>a &lt; b</p>").strip() == "a < b"
    assert extract("index.html", b"<p>x</p>") is None


def test_stems() -> None:
    names = "a/requests-2.31.0.tar.gz x.jsonl.zst m-1.0-py3-none-any.whl plain c.warc.wet.gz"
    assert [stem_of(name) for name in names.split()] == ["requests-2.31.0", "x", "m-1.0-py3-none-any", "plain", "c"]


SAMPLES = {
    "p.tar": tar({"a.py": b"x = 1\n", "b/c.py": b"y" * 600}, "w"),
    "p.tar.gz": tar({"a.py": b"x = 1\n", "b/c.py": b"y" * 600}),
    "p.tar.xz": tar({"a.py": b"x = 1\n", "b/c.py": b"y" * 600}, "w:xz"),
    "p.zip": zipped({"a.py": b"x = 1\n" * 50, "b.py": b"y"}),
    "p.jsonl.gz": gzip.compress(jsonl({"text": "x"}, {"text": "y", "path": "a.py"})),
    "p.parquet": parquet(pa.table({"text": ["x = 1", "y = 2"]})),
    "p.warc.gz": warc(("text/html", PAGE)),
    "Posts.xml": POSTS,
}
