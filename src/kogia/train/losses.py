"""Training losses on whole batches, normalised so that splitting a batch into micro-batches changes nothing."""

from torch import Tensor

from kogia.kernels.entropy import linear_cross_entropy
from kogia.models.decoder import Decoder


def mtp_loss(losses: list[Tensor], weight: float) -> Tensor:
    """weight / D * sum over the D depths (arXiv 2412.19437, equation 25)."""
    return sum(losses[1:], start=losses[0]) * (weight / len(losses))


def next_token_losses(model: Decoder, tokens: Tensor, labels: Tensor, length: int) -> list[Tensor]:
    """Cross entropies, summed over positions, of the main head and of every MTP depth.

    tokens, labels: (B, length + 1 + depth); labels are tokens, or -100 where nothing is to be learned. Position i
    predicts labels[i + 1] with the main head and labels[i + 1 + k] at depth k. FP32 scalars.
    """
    head = model.lm_head.weight
    h = model.hidden_states(tokens[:, :length])
    states = [h, *model.further_hidden_states(h, tokens[:, :-1])]
    return [
        linear_cross_entropy(state.flatten(0, 1), head, labels[:, 1 + k : 1 + k + length].flatten())
        for k, state in enumerate(states)
    ]
