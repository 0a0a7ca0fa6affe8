"""Floor 2, resiliparse: the main text of HTML. Knows nothing of where the page comes from."""

from __future__ import annotations

__all__ = ["main_text"]


def main_text(page: str) -> str:
    """Text without navigation and boilerplate, lists and code blocks kept; the whole text where no main part is
    found.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError as error:
        raise ValueError('reading HTML needs resiliparse; install "highrise[readers]"') from error
    clean = page.encode("utf-8", "replace").decode()
    text = extract_plain_text(clean, main_content=True, links=False, alt_texts=False)
    if not text.strip():
        text = extract_plain_text(clean, main_content=False, links=False, alt_texts=False)
    return str(text)
