"""Long streams, run in a pod: HOST PORT COUNT. A JSON line at the first chunk of each and at its end."""

from __future__ import annotations

import http.client
import json
import sys
import threading

TIMEOUT_SECONDS = 600
TOKENS = 112


def make_body() -> str:
    """One token a step, to the last of them."""
    return json.dumps(
        {
            "messages": [{"role": "user", "content": "2 + 3 ="}],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "diffusion": {"unmasking": {"strategy": "quota", "value": 1}},
        }
    )


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    printing = threading.Lock()

    def say(**line: object) -> None:
        with printing:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def work() -> None:
        tokens, is_done, error = 0, False, None
        try:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", make_body(), headers)
            response, is_first = connection.getresponse(), True
            for line in response:
                text = line.decode().strip().removeprefix("data: ")
                if text == "[DONE]":
                    is_done = True
                elif text.startswith("{"):
                    if is_first:
                        say(event="begun")
                    is_first = False
                    chunk = json.loads(text)
                    tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
                    error = chunk.get("error", {}).get("message", error)
        except (OSError, http.client.HTTPException) as broken:
            error = type(broken).__name__
        say(event="ended", is_done=is_done, tokens=tokens, error=error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
