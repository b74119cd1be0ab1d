from __future__ import annotations

from collections import Counter

import pytest
from dllm_server.engine.requests.pages import PageStore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

CHUNK_PAGES, CHUNK_TOKENS = 2, 4
PAGES = 14
OWNERS = st.integers(0, 4)
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=24)  # few, so that prefixes meet


def store(pages: int = PAGES) -> PageStore:
    return PageStore(pages, chunk_pages=CHUNK_PAGES, chunk_tokens=CHUNK_TOKENS)


def found(pages: PageStore, tokens: list[int], salt: str = "") -> list[bytes]:
    return pages.find(pages.names(tokens, salt))


def pages_of(tokens: int) -> int:
    return -(-tokens * CHUNK_PAGES // CHUNK_TOKENS)


class Sharing(RuleBasedStateMachine):
    """What is said to be in a page must be what a forward pass of its owner has written there: a model of
    the pool's contents, by page."""

    def __init__(self) -> None:
        super().__init__()
        self.store = store()
        self.texts: dict[int, list[int]] = {}
        self.final: dict[int, int] = {}  # tokens whose K/V are written for good
        self.contents: dict[int, tuple[int, ...]] = {}  # page -> the tokens it holds, with all before

    @rule(owner=OWNERS, tokens=TOKENS, salt=st.sampled_from(["", "tenant"]))
    def admit(self, owner: int, tokens: list[int], salt: str) -> None:
        if owner in self.texts:
            return
        prefix = found(self.store, tokens)
        cached = self.store.admit(owner, prefix, len(tokens))
        assert cached == len(prefix) * CHUNK_TOKENS <= len(tokens)
        self.texts[owner], self.final[owner] = tokens, cached
        for number, page in enumerate(self.store.held(owner)):
            assert self.contents[page] == self.text_of_page(owner, number)

    @rule(owner=OWNERS)
    def compute(self, owner: int) -> None:
        """The next chunk, if there is room for it."""
        if owner not in self.texts:
            return
        end = min(self.final[owner] + CHUNK_TOKENS, len(self.texts[owner]))
        missing = pages_of(end) - len(self.store.held(owner))
        if missing > self.store.free_pages:
            with pytest.raises(ValueError, match="are free"):
                self.store.extend(owner, missing)
            return
        new = self.store.extend(owner, missing) if missing > 0 else []
        for number, page in enumerate(self.store.held(owner)):
            if page in new:
                self.contents[page] = self.text_of_page(owner, number)
        self.final[owner] = end
        self.store.publish(owner, self.texts[owner][:end])

    @rule(owner=OWNERS)
    def release(self, owner: int) -> None:
        if self.texts.pop(owner, None) is None:
            with pytest.raises(KeyError):
                self.store.release(owner)
        else:
            self.store.release(owner)

    @precondition(lambda self: not self.texts)
    @rule()
    def take_all(self) -> None:
        """Whoever needs the room gets all of it."""
        self.store.admit(9)
        assert sorted(self.store.extend(9, PAGES)) == list(range(1, PAGES + 1))
        assert found(self.store, [0] * 9) == []
        self.store.release(9)

    def text_of_page(self, owner: int, number: int) -> tuple[int, ...]:
        size = CHUNK_TOKENS // CHUNK_PAGES
        return tuple(self.texts[owner][: (number // CHUNK_PAGES + 1) * CHUNK_TOKENS]), number * size  # type: ignore[return-value]

    @invariant()
    def pages_are_conserved(self) -> None:
        held = {owner: self.store.held(owner) for owner in self.texts}
        for pages in held.values():
            assert len(set(pages)) == len(pages)
            assert all(1 <= page <= PAGES for page in pages)
        in_use = {page for pages in held.values() for page in pages}
        assert self.store.used_pages == len(in_use)
        assert self.store.free_pages == PAGES - len(in_use)

    @invariant()
    def only_whole_published_chunks_are_shared(self) -> None:
        holders = Counter(page for owner in self.texts for page in self.store.held(owner))
        for owner in self.texts:
            whole = self.final[owner] // CHUNK_TOKENS * CHUNK_PAGES
            assert all(holders[page] == 1 for page in self.store.held(owner)[whole:])

    @invariant()
    def nobody_reads_what_another_has_written_over(self) -> None:
        for owner, final in self.final.items():
            if owner in self.texts:
                for number, page in enumerate(self.store.held(owner)[: pages_of(final)]):
                    assert self.contents[page] == self.text_of_page(owner, number)


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def fill(pages: PageStore, owner: int, tokens: list[int], salt: str = "") -> None:
    """Admit, compute and publish all of it."""
    pages.admit(owner, found(pages, tokens, salt))
    pages.extend(owner, pages_of(len(tokens)) - len(pages.held(owner)))
    pages.publish(owner, tokens, salt)


def test_a_prefix_is_found_by_whole_chunks() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)

    assert len(found(pages, [1] * 7)) == 1
    assert len(found(pages, [1] * 9)) == 2
    assert len(found(pages, [1] * 4 + [2] * 5)) == 1
    assert found(pages, [2] + [1] * 8) == []


def test_tenants_with_salts_of_their_own_share_nothing() -> None:
    pages = store()
    fill(pages, 0, [1] * 8, "tenant")

    assert found(pages, [1] * 9) == []
    assert found(pages, [1] * 9, "other") == []
    assert len(found(pages, [1] * 9, "tenant")) == 2


def test_a_salt_that_spells_the_name_of_a_chunk_finds_and_leaves_nothing_there() -> None:
    """Else who can guess a text could leave other K/V behind its first chunk."""
    pages = store()
    texts = ([number] * 8 for number in range(10**7))
    text = next(text for text in texts if is_utf8(pages.names(text)[0]))
    first, second = pages.names(text)

    assert second not in pages.names(text[4:], first.decode())


def is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_the_longest_unused_goes_first_and_of_one_text_its_end() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)
    fill(pages, 1, [2] * 8)
    pages.release(0)
    pages.release(1)
    pages.admit(2, found(pages, [1] * 9))  # used again
    pages.release(2)

    pages.admit(3)
    pages.extend(3, PAGES - 6)

    assert (len(found(pages, [1] * 9)), len(found(pages, [2] * 9))) == (2, 1)
    assert pages.counts.evicted_tokens == CHUNK_TOKENS


def test_two_who_compute_the_same_at_once_share_nothing_and_lose_nothing() -> None:
    pages = store()
    tokens = [1] * 8
    for owner in (0, 1):
        pages.admit(owner, found(pages, tokens))
        pages.extend(owner, 4)
    for owner in (0, 1):
        pages.publish(owner, tokens)

    assert not set(pages.held(0)) & set(pages.held(1))
    pages.release(1)
    assert (pages.used_pages, pages.cached_pages) == (4, 0)
    pages.release(0)
    assert (pages.used_pages, pages.cached_pages) == (0, 4)


def test_what_was_wrong_is_found_by_nobody() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)

    pages.withdraw(0)

    assert found(pages, [1] * 8) == []
    pages.release(0)
    assert (pages.free_pages, pages.cached_pages) == (PAGES, 0)


def test_what_goes_with_an_owner_and_what_a_newcomer_takes_leave_out_what_others_hold() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)
    fill(pages, 1, [1] * 4 + [2] * 4)

    assert (pages.frees(0), pages.frees(1)) == (2, 2)
    assert pages.pages_beyond(found(pages, [1] * 8), 5) == 1
    pages.release(0)
    assert (pages.frees(1), pages.pages_beyond(found(pages, [1] * 8), 5)) == (4, 3)


def test_without_chunks_nothing_is_kept() -> None:
    pages = PageStore(4)
    pages.admit(0, found(pages, [1] * 9))
    pages.extend(0, 3)
    pages.publish(0, [1] * 9)
    pages.release(0)

    assert (pages.cached_pages, pages.free_pages) == (0, 4)


def test_more_than_is_free_takes_nothing() -> None:
    pages = PageStore(3)
    pages.admit(0)

    with pytest.raises(ValueError, match="4 pages asked for, 3 are free"):
        pages.extend(0, 4)

    assert (pages.free_pages, pages.held(0)) == (3, [])


def test_a_slot_is_admitted_once() -> None:
    pages = PageStore(3)
    pages.admit(0)

    with pytest.raises(ValueError, match="already owns"):
        pages.admit(0)


def test_counts_say_what_was_looked_up_and_found() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)

    pages.admit(1, found(pages, [1] * 9), 9)

    assert (pages.counts.queried_tokens, pages.counts.hit_tokens, pages.counts.saved_tokens) == (9, 8, 8)


def test_who_comes_back_after_giving_way_is_saved_tokens_but_asks_nothing_new() -> None:
    pages = store()
    fill(pages, 0, [1] * 8)

    pages.admit(1, found(pages, [1] * 9))

    assert (pages.counts.queried_tokens, pages.counts.hit_tokens, pages.counts.saved_tokens) == (0, 0, 8)
