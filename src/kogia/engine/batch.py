"""One step's work, flat, and what computes it."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from kogia.models.config import ModelConfig

BLOCK = 16  # tokens a cache block


@dataclass
class Batch:
    """One step's rows, flat: N new tokens of S sequences.

    Rows of one sequence have consecutive ascending positions. The token at position p is written to slot p % 16 of
    block tables[s, p // 16] before anything attends to it.
    """

    tokens_N: np.ndarray  # int32
    positions_N: np.ndarray  # int32, position of each token in its sequence
    sequence_N: np.ndarray  # int32, row of tables_SP that the token belongs to
    tables_SP: np.ndarray  # int32, C-contiguous: block id of each 16 positions of each sequence (rest of a row: 0)
    wanted_W: np.ndarray  # int32, indices of rows (of N) whose logits are wanted


class Result(NamedTuple):
    """What a runner computed. Both are valid until its next call."""

    logits_WV: Tensor  # FP32
    hidden_ND: Tensor  # FP32, after the last norm (input of the MTP layers)


class Runner(Protocol):
    """A model over a paged cache."""

    config: ModelConfig
    exact: bool
    """Whether a row's result depends on nothing but its own sequence."""

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the cache, over all layers."""

    def allocate(self, blocks: int) -> None:
        """Provide cache memory for that many blocks: all layers, those of multi-token prediction included."""

    def forward(self, batch: Batch) -> Result:
        """Write each row's cache entry, then let it attend to positions up to its own."""

    def draft(self, layer: int, batch: Batch, hidden_ND: Tensor) -> Result:
        """Multi-token prediction layer number `layer`: row i combines hidden_ND[i] (of position p) with the token at
        p + 1 (= tokens_N[i]); its logits predict the token at p + 2. It uses the cache layer num_hidden_layers +
        layer at position p."""

    def guess(self, depth: int, batch: Batch, hidden_ND: Tensor) -> bool:
        """`depth` drafts in one go, if this runner can (see `NativeRunner.guess`)."""

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers."""

    def refresh(self) -> None:
        """Take over the live model's weights."""

    def routed_experts(self) -> np.ndarray:
        """(N, MoE layers, K) int16: the experts of each row of the last forward."""
