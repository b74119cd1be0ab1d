"""Who holds which pages of the K/V pool, and which hold prefixes that others may read. Numbers only.

A prefix is found by a chain of hashes over chunks of tokens: K/V of a token depend on everything before it
and on its own block, so a chunk is a whole number of blocks and of pages. Pages of a published chunk are
never written again. They stay when nobody holds them, until somebody needs the room: the longest unused go
first, of one request the last ones before the first, so that what is left can still be found.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from dllm_kernels.layout import IntArray

Chunk = bytes
"""Name of a chunk's tokens and of all before them."""


@dataclass(slots=True)
class PrefixCounts:
    """Cumulative tokens: those of prompts that were looked up, and found; those that nobody had to compute,
    which requests that come back after giving way find too; and those that had to go for others."""

    queried_tokens: int = 0
    hit_tokens: int = 0
    saved_tokens: int = 0
    evicted_tokens: int = 0


@dataclass(slots=True)
class _Holding:
    """Pages of one owner in the order of its tokens. ``chain`` names its chunks that are published and
    ``coming`` those that will be."""

    pages: list[int] = field(default_factory=list)
    chain: list[Chunk] = field(default_factory=list)
    coming: set[Chunk] = field(default_factory=set)


class PageStore:
    """Hands out pages 1 ... ``pages``; page 0 takes padding writes and belongs to nobody.

    ``chunk_pages`` pages of ``chunk_tokens`` tokens are shared together; without tokens nothing is.
    """

    def __init__(self, pages: int, *, chunk_pages: int = 1, chunk_tokens: int = 0) -> None:
        self.pages = pages
        self.chunk_tokens = chunk_tokens
        self.counts = PrefixCounts()
        self._chunk_pages = chunk_pages
        self._free = list(range(pages, 0, -1))
        self._owned: dict[int, _Holding] = {}
        self._published: dict[Chunk, list[int]] = {}
        self._readers: dict[Chunk, int] = {}
        self._coming: Counter[Chunk] = Counter()
        self._unread: OrderedDict[Chunk, None] = OrderedDict()  # published and held by nobody, oldest first

    @property
    def free_pages(self) -> int:
        """Those that can be had: free, or of prefixes that nobody holds."""
        return len(self._free) + self.cached_pages

    @property
    def cached_pages(self) -> int:
        """Of prefixes that nobody holds."""
        return len(self._unread) * self._chunk_pages

    @property
    def used_pages(self) -> int:
        return self.pages - self.free_pages

    def held(self, owner: int) -> list[int]:
        """Pages of ``owner`` in the order of its tokens."""
        return list(self._owned[owner].pages)

    def held_pages(self, owner: int) -> int:
        """How many ``owner`` has."""
        return len(self._owned[owner].pages)

    def published_tokens(self, owner: int) -> int:
        """Of ``owner``, counted from its first."""
        return len(self._owned[owner].chain) * self.chunk_tokens

    def frees(self, owner: int) -> int:
        """Pages that others could have if ``owner`` gave its own back."""
        holding = self._owned[owner]
        shared = sum(self._readers[name] > 1 for name in holding.chain)
        return len(holding.pages) - shared * self._chunk_pages

    def names(self, tokens: Sequence[int] | IntArray, salt: str = "") -> list[Chunk]:
        """Of the whole chunks of ``tokens``."""
        return list(self._names(tokens, _root(salt)))

    def find(self, names: Sequence[Chunk]) -> list[Chunk]:
        """The longest prefix of the chunks that is published."""
        return list(takewhile(self._published.__contains__, names))

    def pages_beyond(self, prefix: Sequence[Chunk], pages: int) -> int:
        """What of ``free_pages`` an owner of so many takes who is admitted with a ``prefix``: chunks that
        others hold cost nothing."""
        return pages - self._chunk_pages * sum(name in self._readers for name in prefix)

    def admit(self, owner: int, prefix: Sequence[Chunk] = (), queried_tokens: int = 0) -> int:
        """``owner`` holds pages from now on: those of a ``prefix`` that ``find`` has just found. The number
        of its tokens. ``queried_tokens`` 0: the lookup counts as none. ``ValueError`` where the owner holds
        some already."""
        if owner in self._owned:
            raise ValueError(f"slot {owner} already owns pages")
        holding = self._owned[owner] = _Holding(chain=list(prefix))
        for name in prefix:
            self._readers[name] = self._readers.get(name, 0) + 1
            self._unread.pop(name, None)
            holding.pages += self._published[name]
        tokens = len(prefix) * self.chunk_tokens
        self.counts.saved_tokens += tokens
        if queried_tokens:
            self.counts.queried_tokens += queried_tokens
            self.counts.hit_tokens += tokens
        return tokens

    def announce(self, owner: int, names: Iterable[Chunk]) -> None:
        """``owner`` is about to compute these chunks: who needs them had better wait."""
        coming = self._owned[owner].coming
        coming.update(names)
        self._coming.update(coming)

    def is_coming(self, name: Chunk) -> bool:
        """Whether somebody is about to publish the chunk."""
        return self._coming[name] > 0

    def extend(self, owner: int, count: int) -> list[int]:
        """``count`` more pages for ``owner``; ``ValueError``, and nothing taken, when they are not there."""
        if count > self.free_pages:
            raise ValueError(f"{count} pages asked for, {self.free_pages} are free")
        while len(self._free) < count:
            self._evict()
        pages = [self._free.pop() for _ in range(count)]
        self._owned[owner].pages += pages
        return pages

    def publish(self, owner: int, tokens: Sequence[int] | IntArray, salt: str = "") -> None:
        """The K/V of ``tokens``, the owner's first, are final: others may read them. A chunk that is
        published already stays with whoever published it, and what follows it here is not."""
        holding = self._owned[owner]
        chain, last = holding.chain, holding.chain[-1] if holding.chain else _root(salt)
        for name in self._names(tokens[len(chain) * self.chunk_tokens :], last):
            if name in self._published:
                self._forget(holding, list(holding.coming))
                return
            self._forget(holding, [name])
            first = len(chain) * self._chunk_pages
            self._published[name] = holding.pages[first : first + self._chunk_pages]
            self._readers[name] = 1
            chain.append(name)

    def withdraw(self, owner: int) -> None:
        """What ``owner`` has published and nobody else holds was wrong: nobody will find it."""
        holding = self._owned[owner]
        while holding.chain and self._readers[holding.chain[-1]] == 1:
            name = holding.chain.pop()
            del self._readers[name], self._published[name]

    def release(self, owner: int) -> None:
        """Give the pages of ``owner`` back; raises ``KeyError`` when it owns none."""
        holding = self._owned.pop(owner)
        self._forget(holding, list(holding.coming))
        shared = len(holding.chain) * self._chunk_pages
        self._free.extend(reversed(holding.pages[shared:]))
        for name in reversed(holding.chain):
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]
                self._unread[name] = None

    def _forget(self, holding: _Holding, names: Iterable[Chunk]) -> None:
        """These are not coming any more."""
        for name in names:
            if name in holding.coming:
                holding.coming.discard(name)
                self._coming[name] -= 1
                if not self._coming[name]:
                    del self._coming[name]

    def _evict(self) -> None:
        name, _ = self._unread.popitem(last=False)
        self._free.extend(reversed(self._published.pop(name)))
        self.counts.evicted_tokens += self.chunk_tokens

    def _names(self, tokens: Sequence[int] | IntArray, before: Chunk) -> Iterator[Chunk]:
        """Of the whole chunks of ``tokens``, which follow the chunk named ``before``."""
        size, numbers = self.chunk_tokens, np.asarray(tokens, np.int64)
        for end in range(size, len(numbers) + 1, size) if size else ():
            content = before + numbers[end - size : end].tobytes()
            before = hashlib.blake2b(content, digest_size=16, person=b"kv-prefix").digest()
            yield before


def _root(salt: str) -> Chunk:
    """Stands before the first chunk of the texts of a salt, which their sender chooses: no chunk's name."""
    return hashlib.blake2b(salt.encode(), digest_size=16, person=b"kv-salt").digest()
