"""The grammars of an engine's requests, compiled beside its steps."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

from llguidance import LLMatcher, LLTokenizer

from dllm_server.structure.compiler import GrammarError, compile_grammar
from dllm_server.structure.grammar import Grammar
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary

MOST_KEPT = 64
MOST_KEPT_BYTES = 1024**2  # of their texts


class Grammars:
    """Compiles one grammar after the other in a thread, without the interpreter's lock, and keeps those that
    were asked for last."""

    def __init__(self, files: VocabularyFiles | None) -> None:
        self._files = files
        self._kept: OrderedDict[Grammar, Future[LLMatcher]] = OrderedDict()

    def compiled(self, grammar: Grammar) -> Future[LLMatcher]:
        """A matcher before the first token, which everyone shares; ``GrammarError`` where there is none."""
        if grammar not in self._kept:
            self._kept[grammar] = self._thread.submit(self._compile, grammar)
        self._kept.move_to_end(grammar)
        while len(self._kept) > 1 and self._exceeds():
            self._kept.popitem(last=False)
        return self._kept[grammar]

    @property
    def mask_token_id(self) -> int:
        """Which no text holds."""
        return -1 if self._files is None else self._files.mask_token_id

    def load(self) -> None:
        """Read the tokenizer, which takes seconds with the interpreter's lock held, before anyone waits."""
        self._thread.submit(lambda: self._vocabulary).exception()

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        if self._files is None:
            raise GrammarError("this engine was not told where its tokenizer lies")
        return load_vocabulary(self._files)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="grammars")

    def _compile(self, grammar: Grammar) -> LLMatcher:
        return compile_grammar(grammar, self._vocabulary)

    def _exceeds(self) -> bool:
        return len(self._kept) > MOST_KEPT or sum(len(one.text) for one in self._kept) > MOST_KEPT_BYTES
