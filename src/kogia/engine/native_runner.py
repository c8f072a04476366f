"""The runner on the C++ kernels: a model's forward pass as a recorded program over a paged cache.

Every row of a step is computed by itself, in an order that depends on nothing but its own sequence: the same bits in
any batch, chunk or draft. Matrices are packed once (`packed`), a step is one call into C++ (`kernels.program`).
`native_program` is the model as the kernels see it.
"""

import numpy as np
import torch
from torch import Tensor

from kogia.engine.batch import BLOCK, Batch, Result
from kogia.engine.native_program import ROWS, ModelProgram, cache_width
from kogia.engine.packed import PackedModel, PackedWeights
from kogia.engine.rows import Rows
from kogia.errors import EngineError
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder


class NativeRunner:
    """A `Runner` for the CPU. format: float32, bfloat16, int8 or int4 (see `PackedWeights`)."""

    exact = True

    def __init__(self, model: Decoder, format: str, threads: int = 1) -> None:
        """threads: for arithmetic, at most; their number changes no result.

        Raises:
            NoKernelsError: no C++ compiler. UserError: weights that the format cannot hold.
        """
        self.config: ModelConfig = model.config
        self.model, self.format, self.threads = model, format, threads
        self._released = False
        self.cache_dtype = torch.float32 if format == "float32" else torch.bfloat16
        self.weights = PackedWeights(model, format)
        self.parts = PackedModel(self.weights, model)
        self.weights.refresh()
        self._programs: list[ModelProgram] = []
        self._rows: Rows | None = None

    def refresh(self) -> None:
        """Take over the live model's weights.

        Raises:
            EngineError: they were released.
        """
        if self._released:
            raise EngineError("the model's weights were released: there is nothing to take over")
        self.weights.refresh()

    def release(self) -> None:
        """Let go of the live model's weights; the packed ones stay."""
        self._released = True
        self.model.to("meta")

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the cache, over all layers."""
        layers = self.config.num_hidden_layers + self.config.num_nextn_predict_layers
        return layers * BLOCK * cache_width(self.config) * self.cache_dtype.itemsize

    def allocate(self, blocks: int) -> None:
        """Provide the cache; memory is taken from the system when it is first written."""
        c = self.config
        shape = (c.num_hidden_layers + c.num_nextn_predict_layers, blocks, BLOCK, cache_width(c))
        self.longest = max(min(c.max_position_embeddings, blocks * BLOCK), 1)  # a config.json may say anything
        self.angles = [angle.contiguous() for angle in self.model.angles(torch.arange(self.longest))]
        kind = np.float32 if self.cache_dtype == torch.float32 else np.int16
        self.cache = torch.from_numpy(np.zeros(shape, dtype=kind)).view(self.cache_dtype)
        self._programs = [ModelProgram(self, None)]
        self._programs += [ModelProgram(self, range(k, k + 1)) for k in range(c.num_nextn_predict_layers)]
        self._chains: dict[int, ModelProgram] = {}

    def forward(self, batch: Batch) -> Result:
        """Compute the rows of a step."""
        return self._programs[0].run(batch, None)

    def draft(self, layer: int, batch: Batch, hidden_ND: Tensor) -> Result:
        """Compute the rows of a multi-token prediction layer."""
        return self._programs[1 + layer].run(batch, hidden_ND)

    def connect(self, rows: Rows) -> None:
        """Whose sequences `guess` is about."""
        self._rows, self._chains = rows, {}

    def guess(self, depth: int, batch: Batch, hidden_ND: Tensor) -> bool:
        """As many calls of `draft`, one layer after the other, in one go: the guesses are written behind the known
        tokens of the rows (see `connect`). Returns False, having done nothing, where it cannot be."""
        if self._rows is None or depth > self.config.num_nextn_predict_layers or len(batch.tokens_N) > ROWS:
            return False
        if depth not in self._chains:
            self._chains[depth] = ModelProgram(self, range(depth), self._rows)
        self._chains[depth].run(batch, hidden_ND)
        return True

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers."""
        self.cache[:, target] = self.cache[:, source]

    def read_block(self, block: int) -> Tensor:
        """A copy of a block: (layers, BLOCK, width)."""
        return self.cache[:, block].clone()

    def write_block(self, block: int, content: Tensor) -> None:
        """Put back what `read_block` gave."""
        self.cache[:, block] = content

    def routed_experts(self) -> np.ndarray:
        """(N, MoE layers, K) int16: the experts of each row of the last forward."""
        return self._programs[0].experts()
