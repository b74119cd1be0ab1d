"""``python -m dllm_server.engine.process``: the engine's process, from before it imports torch.

The parent decides when it ends: by a message once it serves, by killing it before, and by its own end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from dllm_server.stop_signals import ignore_stop_signals, leave

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, in whatever way. Elsewhere than on Linux the
    loop looks for it, once it serves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    ignore_stop_signals()
    end_with(int(sys.argv[-1]))
    from dllm_server.engine.process.loop import main

    leave(main())
