"""Floor 2, pypdfium2: the text of PDF pages. Native code on foreign bytes: the build runs it in a worker process."""

from __future__ import annotations

__all__ = ["pdf_to_text"]

_MAX_PAGES = 5_000
_MAX_CHARACTERS = 20_000_000


def pdf_to_text(data: bytes) -> str:
    """The pages' text, joined by empty lines; `ValueError` with one sentence when the file cannot be read."""
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise ValueError('reading PDF needs pypdfium2; install "highrise[readers]"') from error
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise ValueError(f"no readable PDF: {error}") from error
    try:
        pages: list[str] = []
        size = 0
        for number in range(min(len(document), _MAX_PAGES)):
            try:
                page = document[number]
                view = page.get_textpage()
                text = view.get_text_bounded()
                view.close()
                page.close()
            except pdfium.PdfiumError:
                continue
            size += len(text)
            if size > _MAX_CHARACTERS:
                break
            pages.append(text.replace("\r\n", "\n").replace("\ufffe", "").strip())
        return "\n\n".join(page for page in pages if page)
    finally:
        document.close()
