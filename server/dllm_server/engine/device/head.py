"""The head of a step: a token for each masked row, on the fused path or from whole logits."""

from __future__ import annotations

import torch
from dllm_kernels.lm_head import Choice
from dllm_kernels.whole_logits import Alternatives, choose_whole
from torch import Tensor

from dllm_server.engine.device.head_inputs import HeadInputs
from dllm_server.memory import MOST_WHOLE_ROWS
from dllm_server.models.transformer import Transformer


class Head:
    """A model's projection to the vocabulary. The mask token is never chosen."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._banned = torch.tensor([model.config.mask_token_id], device=model.device)

    def choose(
        self, hidden: Tensor, inputs: HeadInputs, max_num_logits: int
    ) -> tuple[Choice, Alternatives | None]:
        """The choice of each row in the order of ``HeadRows``, and the alternatives of those named.

        Args:
            hidden: ``[masked, d_model]``, in the order of ``inputs.row``.
        """
        weight, banned, split = self._model.lm_head, self._banned, inputs.split
        choices, alternatives = [], None
        if split or not hidden.shape[0]:
            choices.append(
                self._model.operations.lm_head_choose(
                    hidden[:split], weight, banned, inputs.sampling, max_num_logits
                )
            )
        if split < hidden.shape[0]:
            most = min(max_num_logits, MOST_WHOLE_ROWS)
            choice, alternatives = choose_whole(hidden[split:], weight, banned, inputs.whole, most)
            choices.append(choice)
        choice = Choice.joined(choices)
        choice = choice if inputs.place is None else choice.in_order(inputs.place)
        return choice, alternatives if len(inputs.named) else None
