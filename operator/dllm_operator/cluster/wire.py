"""A manifest as the body of a server-side apply, which the API server reads as YAML. Pure.

YAML is not quite the superset of JSON that it should be: its reader refuses a character that JSON spells as
two escapes (an emoji), and characters that it calls unprintable unless they are escaped.
"""

from __future__ import annotations

import json
import re

from dllm_operator.cluster.observe import Manifest

_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HALVES = re.compile("[\ud800-\udfff]")  # of a pair that is none: no text in any encoding


def yaml_bytes(manifest: Manifest) -> bytes:
    """JSON in UTF-8 that a YAML reader takes for what a JSON reader does."""
    text = _HALVES.sub("\ufffd", json.dumps(manifest, ensure_ascii=False))
    return _TO_ESCAPE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
