"""The model as the C++ kernels see it: its forward pass recorded as a list of operations (`kernels.program`).

Compare models/attention.py, grouped_attention.py, moe.py and decoder.py, which compute the same.
"""

import ctypes
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kogia.engine.batch import Batch, Result
from kogia.engine.rows import Rows
from kogia.kernels.program import ALL, WANTED, Panels, Program, padded
from kogia.models.attention import LatentAttention
from kogia.models.config import ModelConfig
from kogia.models.decoder import Block, MTPLayer
from kogia.models.grouped_attention import GroupedAttention
from kogia.models.layers import MLP, RMSNorm
from kogia.models.moe import MoE

if TYPE_CHECKING:
    from kogia.engine.native_runner import NativeRunner

ROWS = 256  # tokens computed at a time; more are cut, which changes nothing


def cache_width(c: ModelConfig) -> int:
    """Numbers cached a position and layer: every part is padded to whole vectors of 16."""
    if c.is_latent:
        return padded(c.kv_lora_rank) + padded(c.qk_rope_head_dim)
    return 2 * c.num_key_value_heads * padded(c.head_dim)


def widest(c: ModelConfig) -> int:
    """Numbers of the longest row that an operation takes into its scratch memory: inputs of a product, heads, scores of
    experts and groups. Too small a figure would be written beyond."""
    latent = padded(c.kv_lora_rank) + padded(c.qk_rope_head_dim)
    heads = c.num_attention_heads * padded(max(c.v_head_dim, c.head_dim))
    experts = c.moe_intermediate_size * max(1, c.n_shared_experts)
    return max(
        2 * c.hidden_size, c.intermediate_size, c.q_lora_rank or 0, latent, heads, experts, 2 * padded(c.qk_head_dim),
        2 * (c.n_routed_experts + c.n_group),
    )  # fmt: skip


class Crew:
    """How many threads compute a step fastest, one or all, by its size: tried now and then, since it depends on what
    else runs on the machine (two threads on two busy cores are several times slower than one). Changes no result."""

    EVERY, KEEP = 128, 0.9

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._seconds: dict[tuple[int, int], float] = {}  # (bits of the rows, threads) -> a moving mean
        self._steps = 0

    def choose(self, rows: int) -> int:
        """Threads for a step of that many rows."""
        if self.threads == 1:
            return 1
        size = rows.bit_length()
        one, all = (self._seconds.get((size, n)) for n in (1, self.threads))
        if one is None or all is None:
            return 1 if one is None else self.threads
        self._steps += 1
        faster = 1 if one <= all else self.threads
        return faster if self._steps % self.EVERY else self.threads + 1 - faster

    def learn(self, rows: int, threads: int, seconds: float) -> None:
        """How long a step took."""
        key = (rows.bit_length(), threads)
        before = self._seconds.get(key)
        self._seconds[key] = seconds if before is None else self.KEEP * before + (1 - self.KEEP) * seconds


class ModelProgram:
    """The recorded pass of the main model, or of some layers of multi-token prediction: one by itself, or several that
    take each other's guesses (into `rows`)."""

    def __init__(self, runner: "NativeRunner", mtp: range | None, rows: Rows | None = None) -> None:
        self.runner, self.parts, self.format = runner, runner.parts, runner.format
        model, c = runner.model, runner.config
        self.c = c
        self.program = p = Program(ROWS, runner.threads, runner.longest, widest(c))
        self.crew = Crew(runner.threads)
        self._shared: dict[Any, Tensor] = {}
        self._chosen: list[Tensor] = []  # of each MoE layer
        self._done: list[int | np.ndarray] = []  # rows of the last run, or what is left of its parts
        self.x, self.hidden = p.floats(c.hidden_size), p.floats(c.hidden_size)
        if mtp is None:
            p.embed(self.parts.table, self.x)
            for i, block in enumerate(model.layers):
                self._block(block, i)  # type: ignore[arg-type]
            self._finish(model.norm)
        else:
            self._before = self.hidden.numpy()
            for k in mtp:
                self._mtp_layer(model.mtp[k], k, rows)  # type: ignore[arg-type]

    def _mtp_layer(self, layer: MTPLayer, k: int, rows: Rows | None) -> None:
        p, table = self.program, self.parts.table
        if rows is None:
            p.embed(table, self.x)
        else:
            tokens, lengths = torch.from_numpy(rows.tokens_RT), torch.from_numpy(rows.length)
            numbers = [self.c.hidden_size, table.dtype == torch.bfloat16, self.x.stride(0), k, tokens.shape[1]]
            p.record("ahead", numbers, [table, self.x, tokens, lengths])
        self._join(layer)
        self._block(layer.block, self.c.num_hidden_layers + k)  # type: ignore[arg-type]
        self._finish(layer.norm)
        if rows is not None:
            assert rows.drawer is not None
            numbers = [self.c.vocab_size, self.logits.stride(0), k, tokens.shape[1]]
            settings = ctypes.addressof(rows.drawer.settings)
            where = [self.logits, tokens, lengths, torch.from_numpy(rows.prompt)]
            p.record("guess", numbers, [*where, settings], rows=WANTED)

    def run(self, batch: Batch, hidden_ND: Tensor | None) -> Result:
        """Compute a batch, ROWS tokens at a time."""
        count, c = len(batch.tokens_N), self.c
        if count <= ROWS:
            self._run(batch, slice(0, count), batch.wanted_W, hidden_ND)
            self._done = [count]
            return Result(self.logits[: len(batch.wanted_W), : c.vocab_size], self.hidden[:count, : c.hidden_size])
        logits, hidden, experts = list[Tensor](), list[Tensor](), list[int | np.ndarray]()
        for start in range(0, count, ROWS):
            rows = slice(start, min(start + ROWS, count))
            want = batch.wanted_W[(batch.wanted_W >= start) & (batch.wanted_W < rows.stop)] - start
            self._run(batch, rows, want, hidden_ND)
            logits.append(self.logits[: len(want), : c.vocab_size].clone())
            hidden.append(self.hidden[: rows.stop - start, : c.hidden_size].clone())
            experts.append(self._experts(rows.stop - start))
        self._done = experts
        return Result(torch.cat(logits), torch.cat(hidden))

    def _run(self, batch: Batch, rows: slice, want: np.ndarray, hidden_ND: Tensor | None) -> None:
        if hidden_ND is not None:
            self._before[: rows.stop - rows.start, : self.c.hidden_size] = hidden_ND[rows].numpy()
        columns = (batch.tokens_N[rows], batch.positions_N[rows], batch.sequence_N[rows], batch.tables_SP, want)
        count = rows.stop - rows.start
        threads, began = self.crew.choose(count), time.perf_counter()
        self.program.run(*columns, threads)
        self.crew.learn(count, threads, time.perf_counter() - began)

    def experts(self) -> np.ndarray:
        """(N, MoE layers, K) int16 of the last run."""
        return np.concatenate([self._experts(one) if isinstance(one, int) else one for one in self._done])

    def _experts(self, count: int) -> np.ndarray:
        if not self._chosen:
            return np.zeros((count, 0, 0), dtype=np.int16)
        return np.stack([chosen[:count].numpy().astype(np.int16) for chosen in self._chosen], axis=1)

    # What follows records; nothing is computed.

    def _floats(self, name: str, width: int, times: int = 1) -> Tensor:
        """A buffer that all layers use in turn."""
        key = (name, width, times)
        if key not in self._shared:
            self._shared[key] = self.program.floats(width, times)
        return self._shared[key]

    def _prepared(self, format: str, inputs: int, times: int = 1) -> Tensor:
        key = (format, inputs, times)
        if key not in self._shared:
            self._shared[key] = self.program.words(format, inputs, times)
        return self._shared[key]

    def _normed(self, x: Tensor, width: int, norm: RMSNorm, format: str | None = None) -> Tensor:
        """norm(x), prepared for a product."""
        out = self._prepared(format or self.format, width)
        self.program.prepare(format or self.format, x, width, out, norm=self.parts.of[norm], eps=norm.eps)
        return out

    def _product(self, panels: Panels, prepared: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
        out = self._floats(name, panels.outputs)
        self.program.linear(panels, prepared, out, bias=bias)
        return out

    def _block(self, block: Block, layer: int) -> None:
        normed = self._normed(self.x, self.c.hidden_size, block.input_layernorm)
        attention = block.self_attn
        if isinstance(attention, LatentAttention):
            self._latent_attention(attention, normed, layer)
        else:
            self._grouped_attention(attention, normed, layer)
        if isinstance(block.mlp, MoE):
            self._moe(block.mlp, block.post_attention_layernorm)
        else:
            assert isinstance(block.mlp, MLP)
            self._mlp(block.mlp, self._normed(self.x, self.c.hidden_size, block.post_attention_layernorm))

    def _latent_attention(self, a: LatentAttention, normed: Tensor, layer: int) -> None:
        c, p, cache = self.c, self.program, self.runner.cache[layer]
        first, q_b, w_uk, w_uv, w_o = self.parts.of[a]
        H, C, R = c.num_attention_heads, c.kv_lora_rank, c.qk_rope_head_dim
        low = self._product(first, normed, "down")  # query (or its latent), then latent, then key
        q_width = H * c.qk_head_dim if c.q_lora_rank is None else c.q_lora_rank
        numbers = [C, R, cache.shape[-1], self._narrow, low.stride(0), padded(C)]
        tensors = [low[:, q_width:], self.parts.of[a.kv_a_layernorm], cache, *self.runner.angles]
        p.record("latent", numbers, tensors, a.kv_a_layernorm.eps)
        q = low if q_b is None else self._product(q_b, self._normed(low, q_width, a.q_a_layernorm), "query")
        wide = padded(C) + padded(R)  # a query in the latent space, beside its rotated part
        queries = self._floats("absorbed", H * wide)
        nope = self._prepared(w_uk.format, c.qk_nope_head_dim, H)
        p.prepare(w_uk.format, q, c.qk_nope_head_dim, nope, inner=H, inner_stride=c.qk_head_dim)
        p.heads(w_uk, nope, queries, wide)
        numbers = [H, R, q.stride(0), c.qk_head_dim, True, wide, False, 0, 0, 0, R, queries.stride(0)]
        p.record("turn", numbers, [q[:, c.qk_nope_head_dim :], None, queries[:, padded(C) :], *self.runner.angles])
        mixed = self._floats("mixed", H * padded(C))
        numbers = [1, H, wide, padded(C), cache.shape[-1], self._narrow, 0, 0, 0, wide, padded(C)]
        p.record("attend", numbers, [queries, cache, mixed], a.scale)
        latents = self._prepared(w_uv.format, C, H)
        p.prepare(w_uv.format, mixed, C, latents, inner=H, inner_stride=padded(C))
        values = self._floats("values", H * padded(c.v_head_dim))
        p.heads(w_uv, latents, values, padded(c.v_head_dim))
        self._add(w_o, values)

    def _grouped_attention(self, a: GroupedAttention, normed: Tensor, layer: int) -> None:
        c, p, cache = self.c, self.program, self.runner.cache[layer]
        projections, bias, w_o, o_bias = self.parts.of[a]
        H, G, D, wide = c.num_attention_heads, c.num_key_value_heads, c.head_dim, padded(c.head_dim)
        low = self._product(projections, normed, "down", bias)
        queries, width = self._floats("queries", H * wide), cache.shape[-1]

        def turn(
            x: Tensor, heads: int, norm: RMSNorm | None, out: Tensor, to_cache: bool, offset: int, by: Any
        ) -> None:
            stride = 0 if to_cache else out.stride(0)
            numbers = [heads, D, x.stride(0), D, False, wide, to_cache, width, self._narrow, offset, D, stride]
            weight = None if norm is None else self.parts.of[norm]
            p.record("turn", numbers, [x, weight, out, *by], 0.0 if norm is None else norm.eps)

        turn(low, H, a.q_norm, queries, False, 0, self.runner.angles)
        turn(low[:, H * D :], G, a.k_norm, cache, True, 0, self.runner.angles)
        turn(low[:, (H + G) * D :], G, None, cache, True, G * wide, (None, None))
        values = self._floats("values", H * wide)
        numbers = [G, H // G, wide, wide, width, self._narrow, wide, wide, G * wide, wide, wide]
        p.record("attend", numbers, [queries, cache, values], a.scale)
        self._add(w_o, values, o_bias)

    def _add(self, panels: Panels, values: Tensor, bias: Tensor | None = None) -> None:
        """x += values x matrix^T."""
        prepared = self._prepared(panels.format, panels.inputs)
        self.program.prepare(panels.format, values, panels.inputs, prepared)
        self.program.linear(panels, prepared, self.x, adds=True, bias=bias)

    def _mlp(self, mlp: MLP, normed: Tensor) -> None:
        up, down = self.parts.of[mlp]
        both = self._product(up, normed, "gate_up")
        prepared = self._prepared(down.format, down.inputs)
        self.program.swiglu(down.format, both, down.inputs, prepared)
        self.program.linear(down, prepared, self.x, adds=True)

    def _moe(self, moe: MoE, norm: RMSNorm) -> None:
        c, p, K = self.c, self.program, self.c.num_experts_per_tok
        router, bias, up, down = self.parts.of[moe]
        normed = self._normed(self.x, c.hidden_size, norm)
        exact = self._normed(self.x, c.hidden_size, norm, "float32")
        logits = self._product(router, exact, "router")
        chosen = p.integers(ROWS, K)
        self._chosen.append(chosen)
        weights = self._floats("gates", K)
        start, tokens, pairs = p.integers(c.n_routed_experts + 1), p.integers(ROWS * K), p.integers(ROWS * K)
        kept = c.n_group if c.topk_method == "greedy" else c.topk_group
        counted = 2 if c.topk_method == "noaux_tc" else 1
        numbers = [c.n_routed_experts, c.n_group, kept, counted, K, c.scoring_func == "sigmoid", c.norm_topk_prob]
        p.record("route", [*numbers, logits.stride(0), weights.stride(0)],
                 [logits, bias, chosen, weights, start, tokens, pairs], c.routed_scaling_factor)  # fmt: skip
        both = self._floats("experts_up", up.outputs, K)
        p.experts(up, normed, both, start, tokens, pairs, by_pair=False)
        prepared = self._prepared(down.format, down.inputs, K)
        p.swiglu(down.format, both, down.inputs, prepared, inner=K)
        out = self._floats("experts_down", down.outputs, K)
        p.experts(down, prepared, out, start, tokens, pairs, by_pair=True)
        if moe.shared_experts is not None:
            self._mlp(moe.shared_experts, normed)
        p.record("combine", [c.hidden_size, K, out.stride(0), self.x.stride(0), weights.stride(0)],
                 [self.x, out, weights])  # fmt: skip

    def _join(self, layer: MTPLayer) -> None:
        """x = eh_proj [norm(embedding) ; norm(hidden state of the layer before)]."""
        D, p, eh_proj = self.c.hidden_size, self.program, self.parts.of[layer]
        both = self._floats("joined", 2 * D)
        norms = [self.parts.of[layer.enorm], self.parts.of[layer.hnorm]]
        p.record("join", [D, self.x.stride(0), both.stride(0)], [self.x, self.hidden, *norms, both], layer.enorm.eps)
        prepared = self._prepared(eh_proj.format, 2 * D)
        p.prepare(eh_proj.format, both, 2 * D, prepared)
        p.linear(eh_proj, prepared, self.x)

    def _finish(self, norm: RMSNorm) -> None:
        """The last norm of every row, and the head of the wanted ones."""
        D, p, head = self.c.hidden_size, self.program, self.parts.head
        p.prepare("float32", self.x, D, None, norm=self.parts.of[norm], eps=norm.eps, floats=self.hidden, rows=ALL)
        prepared = self._prepared(head.format, D)
        p.prepare(head.format, self.hidden, D, prepared, rows=WANTED, by_want=True)
        self.logits = self._floats("logits", head.outputs)
        p.linear(head, prepared, self.logits, rows=WANTED)

    @property
    def _narrow(self) -> bool:
        return self.runner.cache_dtype == torch.bfloat16
