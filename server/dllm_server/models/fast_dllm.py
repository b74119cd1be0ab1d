"""Fast-dLLM v2 (Qwen2.5 shape, q/k/v biases) over blocks that are denoised in sub-blocks. Right shift: logits
at position i predict token i + 1."""

from __future__ import annotations

from dllm_server.models.config import BlockCausal, Decoding
from dllm_server.models.family import BlockKeys, Family
from dllm_server.models.special_tokens import CONFIG, SpecialTexts
from dllm_server.settings import Strategy

FAST_DLLM = Family(
    name="Fast-dLLM v2",
    architectures=("Fast_dLLM_QwenForCausalLM",),
    # generation_config.json is the one of the Qwen2.5 it began as, and lists an id that ends nothing here.
    special=SpecialTexts(mask=("|<MASK>|",), ends=("<|im_end|>",), eos_files=(CONFIG,)),
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    needs={"hidden_act": "silu", "use_sliding_window": False, "rope_scaling": None},
    has_qkv_bias=True,
    has_head_norms=False,
    shift=1,
    blocks=BlockKeys(
        BlockCausal(32, Decoding(Strategy.THRESHOLD, 0.9), sub_block_length=8),
        block_length="bd_size",
        value="threshold",
        sub_block_length="small_block_size",
    ),
)
