"""A runner in plain PyTorch: any device, any dtype, no compiler. Pages are gathered, computed on and scattered back.

PyTorch's products are summed in an order that depends on how many rows are computed at once. So this runner is exact
only with `one_by_one`, where every token is computed alone: that is slow, and is the reference for all others.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from kogia.engine.batch import BLOCK, Batch, Result
from kogia.models.decoder import Decoder, MTPLayer
from kogia.models.layers import Linear
from kogia.models.moe import Experts, Router

Compute = Callable[[Tensor, Tensor, Tensor, np.ndarray], Tensor]


def inference_copy(model: Decoder) -> Decoder:
    """A copy of the model in its compute dtype. Router and norms stay FP32."""
    twin = Decoder(model.config).eval().requires_grad_(False).compute_in(model.dtype)
    twin.load_state_dict(model.state_dict())
    for module in twin.modules():
        if isinstance(module, (Linear, Experts, torch.nn.Embedding)):
            module.to(model.dtype)
    return twin


def is_ready(model: Decoder) -> bool:
    """Whether a model can be sampled from as it is: nothing trains it, and it is in its compute dtype already."""
    frozen = not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    return frozen and model.embed_tokens.weight.dtype == model.dtype


class TorchRunner:
    """`Runner` around `Decoder.decode`. cache: (layers, blocks + 1, BLOCK, width); the last block is always zero."""

    def __init__(self, model: Decoder, one_by_one: bool) -> None:
        """one_by_one: compute every token alone, which is exact and slow; else rows together, which is neither."""
        self.live = model
        self.model = model if is_ready(model) else inference_copy(model)
        self.config = model.config
        self.exact = self.one_by_one = one_by_one
        self.collect_experts = False
        self._experts: list[Tensor] = []  # of the layers of the last call of the model
        self._collected = np.zeros((0, 0, 0), dtype=np.int16)
        self.device = self.model.embed_tokens.weight.device
        self.allocate(0)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the cache, over all layers."""
        layers = self.config.num_hidden_layers + self.config.num_nextn_predict_layers
        return layers * BLOCK * self.config.cache_width * self.model.dtype.itemsize

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the live model's weights."""
        for mine, theirs in zip(self.model.state_dict().values(), self.live.state_dict().values(), strict=True):
            mine.copy_(theirs)

    def allocate(self, blocks: int) -> None:
        """Provide cache memory; on a CPU the system commits it only where it is used."""
        c = self.config
        layers = c.num_hidden_layers + c.num_nextn_predict_layers
        self.cache = _lazy_zeros((layers, blocks + 1, BLOCK, c.cache_width), self.model.dtype, self.device)

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block in all layers."""
        self.cache[:, target] = self.cache[:, source]

    def read_block(self, block: int) -> Tensor:
        """A copy of a block: (layers, BLOCK, width)."""
        return self.cache[:, block].clone()

    def write_block(self, block: int, content: Tensor) -> None:
        """Put back what `read_block` gave."""
        self.cache[:, block] = content.to(self.device)

    def routed_experts(self) -> np.ndarray:
        """(N, MoE layers, K) int16 of the last forward, if `collect_experts` was on."""
        return self._collected

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Result:
        """See `Runner`."""
        self._collected = np.zeros((len(batch.tokens_N), 0, 0), dtype=np.int16)

        def compute(tokens_BT: Tensor, cache: Tensor, at_BT: Tensor, rows_BT: np.ndarray) -> Tensor:
            hidden = self.model.decode(tokens_BT, cache, at_BT)
            self._collect(rows_BT)
            return hidden

        layers = slice(0, self.config.num_hidden_layers)
        with self._listening():
            return self._result(batch, self._compute(batch, layers, compute))

    @torch.inference_mode()
    def draft(self, layer: int, batch: Batch, hidden_ND: Tensor) -> Result:
        """See `Runner`."""
        mtp = cast(MTPLayer, self.model.mtp[layer])
        hidden_ND = hidden_ND.to(self.device, self.model.dtype)

        def compute(tokens_BT: Tensor, cache: Tensor, at_BT: Tensor, rows_BT: np.ndarray) -> Tensor:
            h = hidden_ND[torch.from_numpy(np.maximum(rows_BT, 0)).to(self.device)]
            cos, sin = self.model.angles(at_BT)
            return mtp.decode(h, self.model.embed(tokens_BT), cos, sin, cache[0], at_BT)

        at = self.config.num_hidden_layers + layer
        return self._result(batch, self._compute(batch, slice(at, at + 1), compute))

    def guess(self, depth: int, batch: Batch, hidden_ND: Tensor) -> bool:
        """Not in one go."""
        return False

    def _result(self, batch: Batch, hidden_ND: Tensor) -> Result:
        wanted = hidden_ND[torch.from_numpy(batch.wanted_W).to(self.device)]
        rows = wanted.split(1) if self.one_by_one and len(wanted) else [wanted]
        return Result(torch.cat([self.model.logits(row) for row in rows]), hidden_ND.float())

    def _compute(self, batch: Batch, layers: slice, compute: Compute) -> Tensor:
        """Hidden states (N, hidden) of all rows, group by group."""
        hidden_ND = torch.empty(
            len(batch.tokens_N), self.config.hidden_size, dtype=self.model.dtype, device=self.device
        )
        for rows_BT in self._groups(batch):
            self._compute_group(batch, layers, compute, rows_BT, hidden_ND)
        return hidden_ND

    def _compute_group(
        self, batch: Batch, layers: slice, compute: Compute, rows_BT: np.ndarray, hidden_ND: Tensor
    ) -> None:
        """rows_BT: indices of the batch's rows, ascending along T, -1 where there is none."""
        first = np.maximum(rows_BT[:, :1], 0)
        at = batch.positions_N[first].astype(np.int64) + np.arange(rows_BT.shape[1])
        sequences = batch.sequence_N[first[:, 0]]
        tokens = np.where(rows_BT >= 0, batch.tokens_N[np.maximum(rows_BT, 0)], 0)
        last_B = batch.positions_N[np.maximum(rows_BT.max(axis=1), 0)]
        blocks = torch.from_numpy(self._pages(batch.tables_SP[sequences], at, last_B)).to(self.device)
        cache = self.cache[layers].index_select(1, blocks.flatten()).unflatten(1, blocks.shape).flatten(2, 3)
        self._blank(cache, last_B)
        at_BT = torch.from_numpy(at).to(self.device)
        hidden = compute(torch.from_numpy(tokens.astype(np.int64)).to(self.device), cache, at_BT, rows_BT)
        b, t = (torch.from_numpy(i).to(self.device) for i in np.nonzero(rows_BT >= 0))
        where = at_BT[b, t]
        self.cache[layers][:, blocks[b, where // BLOCK], where % BLOCK] = cache[:, b, where]
        hidden_ND[torch.from_numpy(rows_BT[rows_BT >= 0]).to(self.device)] = hidden[b, t]

    def _pages(self, tables_BP: np.ndarray, at_BT: np.ndarray, last_B: np.ndarray) -> np.ndarray:
        """The blocks to gather: each sequence's own, and the zero block beyond."""
        zero, count = self.cache.shape[1] - 1, int(at_BT.max()) // BLOCK + 1
        pages = np.full((len(at_BT), count), zero, dtype=np.int64)
        width = min(count, tables_BP.shape[1])
        pages[:, :width] = tables_BP[:, :width]
        return np.where(np.arange(count) <= last_B[:, None] // BLOCK, pages, zero)

    def _blank(self, cache: Tensor, last_B: np.ndarray) -> None:
        """Zero what earlier users left behind the last token: hidden positions weigh 0, but 0 * NaN is NaN."""
        behind = last_B[:, None] // BLOCK * BLOCK + np.arange(BLOCK)
        b, slot = np.nonzero(behind > last_B[:, None])
        cache[:, torch.from_numpy(b).to(self.device), torch.from_numpy(behind[b, slot]).to(self.device)] = 0

    def _groups(self, batch: Batch) -> Iterator[np.ndarray]:
        """Rows to be computed together, as index arrays (B, T)."""
        count = len(batch.tokens_N)
        if self.one_by_one:
            yield from np.arange(count).reshape(count, 1, 1)
            return
        starts = np.flatnonzero(np.r_[True, np.diff(batch.sequence_N) != 0])
        sizes = np.diff(np.r_[starts, count])
        widths = np.where(sizes == 1, 1, -(-sizes // BLOCK) * BLOCK)
        for width in np.unique(widths):
            picked = widths == width
            yield _padded(starts[picked], sizes[picked], int(width))

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear which experts the routers choose, while it is wanted; the model may be somebody else's, too."""
        routers = [m for m in self.model.layers.modules() if isinstance(m, Router)] if self.collect_experts else []
        hooks = [router.register_forward_hook(self._heard) for router in routers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _heard(self, _module: Any, _args: Any, routing: Any) -> None:
        self._experts.append(routing.experts_NK)

    def _collect(self, rows_BT: np.ndarray) -> None:
        if not self._experts:
            return
        found = torch.stack(self._experts, dim=1).to(torch.int16).cpu().numpy()
        self._experts.clear()
        if not self._collected.size:
            self._collected = np.zeros((len(self._collected), *found.shape[1:]), dtype=np.int16)
        flat = rows_BT.reshape(-1)
        self._collected[flat[flat >= 0]] = found[flat >= 0]


def _padded(starts: np.ndarray, sizes: np.ndarray, width: int) -> np.ndarray:
    """(B, width) row indices. B is rounded up: a kernel is compiled for every new shape (docs/LOG.md)."""
    idle = -len(starts) % BLOCK if len(starts) > 1 else 0
    at = np.arange(width)
    rows = np.where(at < sizes[:, None], starts[:, None] + at, -1)
    return np.concatenate((rows, np.full((idle, width), -1)))


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take no memory before they are written: torch.zeros would write every page."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    raw = np.zeros(shape, dtype={2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.itemsize])
    return torch.from_numpy(raw).view(dtype)
