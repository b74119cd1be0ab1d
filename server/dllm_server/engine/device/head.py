"""The head of a step: a token for each masked row, on the fused path or from whole logits, and the log
probabilities that are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from dllm_kernels.lm_head import Choice
from dllm_kernels.whole_logits import Alternatives, choose_whole, score_whole
from torch import Tensor

from dllm_server.engine.device.head_inputs import HeadInputs
from dllm_server.engine.requests.messages import MOST_ALTERNATIVES
from dllm_server.memory import MOST_WHOLE_ROWS
from dllm_server.models.transformer import Transformer


@dataclass(frozen=True, slots=True)
class HeadResult:
    """``choice`` has a row for each of ``HeadRows``, in their order; ``alternatives`` one for each that is
    named, ``scores`` one for each of ``ScoredRows``, with the target itself before the alternatives; None
    where there is no such row."""

    choice: Choice
    alternatives: Alternatives | None
    scores: Alternatives | None


class Head:
    """A model's projection to the vocabulary. The mask token takes no probability."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._banned = torch.tensor([model.config.mask_token_id], device=model.device)

    def run(self, hidden: Tensor, inputs: HeadInputs, max_num_logits: int) -> HeadResult:
        """``hidden``: ``[masked + scored, d_model]``, in the order of ``inputs.row``."""
        masked = hidden.shape[0] - inputs.target.shape[0]
        choice, alternatives = self._choose(hidden[:masked], inputs, max_num_logits)
        scores = None
        if masked < hidden.shape[0]:
            scores = self._score(hidden[masked:], inputs.target, min(max_num_logits, MOST_WHOLE_ROWS))
        return HeadResult(choice, alternatives, scores)

    def _choose(
        self, hidden: Tensor, inputs: HeadInputs, max_num_logits: int
    ) -> tuple[Choice, Alternatives | None]:
        weight, banned, split = self._model.lm_head, self._banned, inputs.split
        choices, alternatives = [], None
        if split or not hidden.shape[0]:
            fused = self._model.operations.lm_head_choose(
                hidden[:split], weight, banned, inputs.sampling, max_num_logits
            )
            choices.append(fused)
        if split < hidden.shape[0]:
            most = min(max_num_logits, MOST_WHOLE_ROWS)
            whole, alternatives = choose_whole(hidden[split:], weight, banned, inputs.whole, most)
            choices.append(whole)
        choice = Choice.joined(choices)
        choice = choice if inputs.place is None else choice.in_order(inputs.place)
        return choice, alternatives if len(inputs.named) else None

    def _score(self, hidden: Tensor, target: Tensor, most: int) -> Alternatives:
        own, others = score_whole(hidden, self._model.lm_head, self._banned, target, MOST_ALTERNATIVES, most)
        return Alternatives(
            torch.cat((target[:, None], others.token), dim=1),
            torch.cat((own[:, None], others.logprob), dim=1),
        )
