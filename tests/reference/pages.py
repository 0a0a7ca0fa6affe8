"""What the page allocator must do, with plain lists and dictionaries and no hash of its own.

A page is known by its tokens and by the very registration of the page before it: when a beginning was overwritten
and is computed anew, what followed the old one is not found again.
"""

from __future__ import annotations


class ReferencePages:
    """Pages named as the native ones are: the same order of the free queue gives the same numbers."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self.free = list(range(num_pages))
        self.holders = [0] * num_pages
        self.content: dict[int, tuple[object, tuple[int, ...]]] = {}
        """page -> (registration of the page before it or the salt, its tokens)"""
        self.registration: dict[int, int] = {}
        self.num_registrations = 0
        self.sequences: dict[int, dict] = {}

    def _find(self, before: object, tokens: list[int]) -> int | None:
        return next((page for page, known in self.content.items() if known == (before, tuple(tokens))), None)

    def _take(self) -> int:
        page = self.free.pop(0)
        self.content.pop(page, None)
        self.holders[page] = 1
        return page

    def _hold(self, page: int) -> None:
        if self.holders[page] == 0:
            self.free.remove(page)
        self.holders[page] += 1

    def _drop(self, page: int) -> None:
        self.holders[page] -= 1
        if self.holders[page] == 0:
            self.free.insert(len(self.free) if page in self.content else 0, page)

    def _beginning(self, before: object, tokens: list[int]) -> tuple[int | None, int]:
        """The page among the eight newest after `before` that shares most with `tokens`."""
        siblings = [page for page, known in self.content.items() if known[0] == before]
        siblings.sort(key=lambda page: -self.registration[page])
        best, longest = None, 0
        for page in siblings[:8]:
            known = self.content[page][1]
            common = next(
                (place for place, pair in enumerate(zip(known, tokens)) if pair[0] != pair[1]),  # noqa: B905
                min(len(known), len(tokens)),
            )
            if common > longest:
                best, longest = page, common
        return best, longest

    def count_cached(self, tokens: list[int], salt: int) -> int:
        pages = self.lookup(tokens, salt)
        before: object = self.registration[pages[-1]] if pages else f"salt {salt}"
        start = len(pages) * self.page_size
        return start + self._beginning(before, tokens[start:-1])[1]

    def lookup(self, tokens: list[int], salt: int) -> list[int]:
        """Pages of the longest computed beginning, the last token excluded. A chain ends at the first gap."""
        pages: list[int] = []
        before: object = f"salt {salt}"
        for end in range(self.page_size, len(tokens), self.page_size):
            page = self._find(before, tokens[end - self.page_size : end])
            if page is None:
                break
            pages.append(page)
            before = self.registration[page]
        return pages

    def allocate(self, name: int, tokens: list[int], salt: int, headroom: int) -> tuple[int, tuple | None] | None:
        shared = self.lookup(tokens, salt)
        total = -(-len(tokens) // self.page_size)
        for page in shared:
            self._hold(page)
        if len(self.free) < total - len(shared) + headroom:
            for page in reversed(shared):
                self._drop(page)
            return None
        before: object = self.registration[shared[-1]] if shared else f"salt {salt}"
        start = len(shared) * self.page_size
        source, common = self._beginning(before, tokens[start:-1])
        if source is not None:
            self._hold(source)
            if len(self.free) < total - len(shared) + headroom:
                self._drop(source)
                source, common = None, 0
        pages = shared + [self._take() for _ in range(total - len(shared))]
        if source is not None:
            self._drop(source)
        self.sequences[name] = {
            "pages": pages,
            "tokens": list(tokens),
            "before": before,
            "committed": len(shared),
            "computed": start + common,
            "slid": 0,
            "pinned": False,
            "swapped": False,
            "salt": salt,
        }
        return start + common, None if source is None else (source, pages[len(shared)])

    def append(self, name: int, token: int) -> tuple[bool, tuple[int, int] | None]:
        sequence = self.sequences[name]
        pages, copy = sequence["pages"], None
        if len(sequence["tokens"]) == len(pages) * self.page_size:
            if not self.free:
                return False, None
            pages.append(self._take())
        elif self.holders[pages[-1]] > 1:
            if not self.free:
                return False, None
            copy = (pages[-1], self._take())
            self._drop(pages[-1])
            pages[-1] = copy[1]
        sequence["tokens"].append(token)
        return True, copy

    def commit(self, name: int, count: int) -> None:
        sequence = self.sequences[name]
        while (sequence["committed"] + 1) * self.page_size <= count:
            index = sequence["committed"]
            tokens = sequence["tokens"][index * self.page_size : (index + 1) * self.page_size]
            page = sequence["pages"][index]
            if page not in self.content:
                known = self._find(sequence["before"], tokens)
                if known is None:
                    self.num_registrations += 1
                    self.content[page] = (sequence["before"], tuple(tokens))
                    self.registration[page] = self.num_registrations
                else:
                    page = known
            sequence["before"] = self.registration[page]
            sequence["committed"] += 1
        sequence["computed"] = max(sequence["computed"], count)

    def fork(self, name: int, child: int, *, pinned: bool = False) -> None:
        source = self.sequences[name]
        count = source["committed"] if pinned else len(source["pages"])
        copy = {key: list(value) if isinstance(value, list) else value for key, value in source.items()}
        copy["pages"] = copy["pages"][:count]
        if pinned:
            copy["tokens"] = copy["tokens"][: count * self.page_size]
            copy["slid"] = min(copy["slid"], count)
            copy["computed"] = count * self.page_size
        copy["pinned"] = pinned
        for page in copy["pages"]:
            if page >= 0:
                self._hold(page)
        self.sequences[child] = copy

    def truncate(self, name: int, length: int) -> None:
        sequence = self.sequences[name]
        sequence["tokens"] = sequence["tokens"][:length]
        sequence["computed"] = min(sequence["computed"], length)
        keep = -(-length // self.page_size)
        for page in reversed(sequence["pages"][keep:]):
            self._drop(page)
        sequence["pages"] = sequence["pages"][:keep]

    def slide(self, name: int, window: int) -> int:
        sequence = self.sequences[name]
        behind = max(0, len(sequence["tokens"]) - window) // self.page_size
        end = max(min(behind, sequence["committed"]), sequence["slid"])
        for index in range(sequence["slid"], end):
            self._drop(sequence["pages"][index])
            sequence["pages"][index] = -1
        count, sequence["slid"] = end - sequence["slid"], end
        return count

    def swap_out(self, name: int) -> list[int]:
        sequence = self.sequences[name]
        pages, sequence["pages"], sequence["swapped"] = sequence["pages"], [], True
        for page in reversed(pages):
            self._drop(page)
        return pages

    def swap_in(self, name: int, headroom: int) -> list[tuple[int, int]] | None:
        sequence = self.sequences[name]
        tokens = sequence["tokens"]
        full = tokens[: sequence["committed"] * self.page_size]
        found = self.lookup([*full, None], sequence["salt"])
        total = -(-len(tokens) // self.page_size)
        for page in found:
            self._hold(page)
        if len(self.free) < total - len(found) + headroom:
            for page in reversed(found):
                self._drop(page)
            return None
        sequence["pages"] = found + [self._take() for _ in range(total - len(found))]
        sequence["committed"] = len(found)
        sequence["before"] = self.registration[found[-1]] if found else f"salt {sequence['salt']}"
        sequence["swapped"] = False
        return [*enumerate(sequence["pages"])][len(found) :]

    def release(self, name: int) -> None:
        sequence = self.sequences.pop(name)
        first, end = sequence["committed"] * self.page_size, sequence["computed"]
        if first < end and sequence["pages"]:
            page = sequence["pages"][sequence["committed"]]
            beginning = tuple(sequence["tokens"][first:end])
            alone = page >= 0 and self.holders[page] == 1 and page not in self.content
            alone = alone and len(beginning) < self.page_size
            if alone and self._beginning(sequence["before"], list(beginning))[1] < len(beginning):
                self.num_registrations += 1
                self.content[page] = (sequence["before"], beginning)
                self.registration[page] = self.num_registrations
        for page in reversed(sequence["pages"]):
            if page >= 0:
                self._drop(page)
