"""Dream-v0, Dream-Coder and DiffuCoder (Qwen2.5 shape, q/k/v biases). Right shift: logits at position i
predict token i + 1."""

from __future__ import annotations

from dllm_server.models.family import Family
from dllm_server.models.special_tokens import SpecialTexts

DREAM = Family(
    name="Dream",
    architectures=("DreamModel",),
    special=SpecialTexts(mask=("<|mask|>",), ends=("<|endoftext|>", "<|im_end|>")),
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    needs={"hidden_act": "silu", "use_sliding_window": False, "rope_scaling": None},
    has_qkv_bias=True,
    shift=1,
    trained_len=2048,  # config.json says 131,072, from the Qwen2.5 it began as
)
