"""Constant load, run in a pod: HOST PORT FRESH KEPT [WORDS].

Prints a JSON line a request until standard input ends. FRESH threads open a connection for each request, KEPT
threads use theirs for as long as the server lets them; WORDS more words make the question longer, and its
answer work. A request that fails is asked again, each time on a new connection, until it is answered. `error`
is its first failure: the HTTP status and the error's code, or the exception that broke the connection.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

TIMEOUT_SECONDS = 60
MOST_TRIES = 50
RETRY_SECONDS = 0.2
QUESTION = "State the final answer to the following arithmetic problem: 2 + 3 ="


def make_body(words: int) -> str:
    """With words, work for an engine: four answers a request, of full length, in small steps."""
    body = {"messages": [{"role": "user", "content": QUESTION + " again" * words}], "max_tokens": 16}
    if words:
        quota = {"unmasking": {"strategy": "quota", "value": 4}}
        body |= {"n": 4, "max_tokens": 32, "ignore_eos": True, "diffusion": quota}
    return json.dumps(body)


def ask(connection: http.client.HTTPConnection, body: str) -> str | None:
    """None for an answer, else what went wrong."""
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    if response.status != http.HTTPStatus.OK:
        connection.close()
        return f"{response.status} {json.loads(text)['error'].get('code')}"
    return None


def main() -> None:
    host, port, fresh, kept = sys.argv[1], *(int(word) for word in sys.argv[2:5])
    body = make_body(int(sys.argv[5]) if len(sys.argv) > 5 else 0)
    stop, printing = threading.Event(), threading.Lock()

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)

    def work(is_kept: bool) -> None:
        connection = connect()
        while not stop.is_set():
            if not is_kept:
                connection.close()
            error = failure = ask(connection, body)
            tries = 1
            while failure is not None and tries < MOST_TRIES:
                time.sleep(RETRY_SECONDS)
                again = connect()
                failure = ask(again, body)
                again.close()
                tries += 1
            line = {"is_kept": is_kept, "error": error, "tries": tries, "is_answered": failure is None}
            with printing:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()

    threads = [threading.Thread(target=work, args=(False,)) for _ in range(fresh)]
    threads += [threading.Thread(target=work, args=(True,)) for _ in range(kept)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
