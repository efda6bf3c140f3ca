"""Reads report.html as a browser would, as far as its structure goes."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img"}


class ReportPage(HTMLParser):
    """The elements and words of a page; AssertionError unless each element ends where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of a class."""
        return [found for _, found in self.elements if name in (found.get("class") or "").split()]

    @property
    def text(self) -> str:
        return " ".join(self.words)
