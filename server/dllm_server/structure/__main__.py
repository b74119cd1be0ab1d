"""The worker of ``checker``: a line for each grammar it is sent, with what is wrong with it."""

from __future__ import annotations

import resource
import signal
import sys

import msgspec

from dllm_server.structure.checker import MOST_CPU_SECONDS
from dllm_server.structure.compiler import GrammarError, compile_grammar
from dllm_server.structure.grammar import Grammar
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary

_MOST_MEMORY_BYTES = 4 * 1024**3  # of addresses


def main() -> int:
    files = msgspec.json.decode(sys.argv[1], type=VocabularyFiles)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    problem, vocabulary = "", None
    try:
        vocabulary = load_vocabulary(files)
    except GrammarError as error:
        problem = str(error)
    _say("ready")
    for line in sys.stdin.buffer:
        answer = problem
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_SECONDS)  # ends this process, whatever it does
        if vocabulary is not None:
            try:
                compile_grammar(msgspec.json.decode(line, type=Grammar), vocabulary)
            except GrammarError as error:
                answer = str(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer)
    return 0


def _say(words: str) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(words) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
