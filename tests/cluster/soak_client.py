"""Constant load, the program of a pod (an exec would end with the API server): HOST PORT PAUSE_SECONDS.

Three threads ask: over a connection for each request, over one that is kept, and for a stream. A try that
does not bring the whole answer is followed by another on a new connection until one does. Prints a JSON line
a request, `tries` being [began, ended, outcome] in the words of `soak.py`; SIGTERM lets the last be answered.
"""

from __future__ import annotations

import http.client
import json
import select
import signal
import sys
import threading
import time

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 120.0
GIVE_UP_SECONDS = 300.0
RETRY_SECONDS = 0.5
QUESTION = "State the final answer to the following arithmetic problem: 2 + 3 ="
SHORT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
STREAM = SHORT | {
    "max_tokens": 24,
    "ignore_eos": True,
    "stream": True,
    "diffusion": {"unmasking": {"strategy": "quota", "value": 1}},
}


def connect(connection: http.client.HTTPConnection) -> None:
    """Leave a kept connection that its server has closed, as clients' pools do."""
    if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
        connection.close()
    if connection.sock is None:
        connection.connect()
        connection.sock.settimeout(ANSWER_SECONDS)


def ask(connection: http.client.HTTPConnection, body: dict[str, object]) -> str:
    """How the try ended."""
    try:
        connect(connection)
    except OSError as error:
        connection.close()
        return f"refused {type(error).__name__}"
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"broken {type(error).__name__}"
    outcome = judge(response.status, text, bool(body.get("stream")))
    if outcome != "ok":
        connection.close()
    return outcome


def judge(status: int, text: bytes, is_stream: bool) -> str:
    """A stream that has begun can only tell of a failure in its last event."""
    is_ok = status == http.HTTPStatus.OK
    if is_ok and is_stream:
        events = [line[6:] for line in text.splitlines() if line.startswith(b"data: ")]
        if events[-1:] == [b"[DONE]"]:
            return "ok"
        text = events[-1] if events else b"{}"
    try:
        said = json.loads(text)
    except ValueError:
        return f"wrong {status} {text!r}"
    if is_ok and not is_stream and said.get("choices"):
        return "ok"
    code = said.get("error", {}).get("code")
    if is_ok and is_stream:
        return f"broken {code}"
    return f"503 {code}" if status == http.HTTPStatus.SERVICE_UNAVAILABLE else f"wrong {status} {code}"


def main() -> None:
    host, port, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    stop, printing = threading.Event(), threading.Lock()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def work(how: str) -> None:
        body = STREAM if how == "stream" else SHORT
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        while not stop.is_set():
            tries: list[tuple[float, float, str]] = []
            while not tries or (tries[-1][2] != "ok" and tries[-1][1] - tries[0][0] < GIVE_UP_SECONDS):
                if tries:
                    time.sleep(RETRY_SECONDS)
                began = time.time()
                outcome = ask(connection, body)
                tries.append((round(began, 3), round(time.time(), 3), outcome))
            if how != "kept":
                connection.close()
            with printing:
                print(json.dumps({"how": how, "tries": tries}), flush=True)
            stop.wait(pause)

    threads = [threading.Thread(target=work, args=(how,)) for how in ("fresh", "kept", "stream")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
