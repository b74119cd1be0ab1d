"""Work that stops when the client goes away, whatever it is waiting for."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """ASGI middleware: cancels the handler when its client disconnects before the answer is complete.

    Watches from the moment in which the body has been read, since only then nothing else can arrive.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_body, is_gone = asyncio.Event(), asyncio.Event()
        is_answered = False

        async def receive_once() -> Message:
            if has_body.is_set():
                await is_gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.disconnect":
                is_gone.set()
            if not message.get("more_body", False):
                has_body.set()
            return message

        async def watch() -> None:
            await has_body.wait()
            while not is_gone.is_set():
                if (await receive())["type"] == "http.disconnect":
                    is_gone.set()

        async def send_and_note(message: Message) -> None:
            nonlocal is_answered
            await send(message)
            is_answered |= message["type"] == "http.response.body" and not message.get("more_body", False)

        handling = asyncio.ensure_future(self._app(scope, receive_once, send_and_note))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({handling, watching}, return_when=asyncio.FIRST_COMPLETED)
            if handling.done() or is_answered:
                await handling
        finally:
            handling.cancel()
            watching.cancel()
            await asyncio.gather(handling, watching, return_exceptions=True)
