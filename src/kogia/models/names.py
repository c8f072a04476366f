"""Tensor names: ours in memory, Hugging Face's on disk. The one place where the two meet."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from kogia.models.config import ModelConfig


@dataclass(frozen=True)
class Stored:
    """A tensor on disk: its name, and where it lives in memory (an index picks one expert and rows of it)."""

    name: str
    parameter: str
    expert: int | None = None
    rows: tuple[int, int] | None = None
    copy: bool = False  # stored again for other programs' sake; need not be read


def stored_tensors(config: ModelConfig, parameters: dict[str, Tensor]) -> Iterator[Stored]:
    """Everything a Hugging Face folder of this model holds, in the order of the module tree.

    Experts are one stacked tensor in memory and one tensor each on disk. The MTP layers follow the last layer and
    carry copies of the embedding and the head, as DeepSeek's own checkpoints do.
    """
    for name in parameters:
        disk = disk_name(name, config)
        if name.endswith("experts.gate_up_proj"):
            width = config.moe_intermediate_size
            for e in range(config.n_routed_experts):
                stem = disk.removesuffix("gate_up_proj") + str(e)
                yield Stored(f"{stem}.gate_proj.weight", name, e, (0, width))
                yield Stored(f"{stem}.up_proj.weight", name, e, (width, 2 * width))
        elif name.endswith("experts.down_proj"):
            for e in range(config.n_routed_experts):
                yield Stored(f"{disk.removesuffix('down_proj')}{e}.down_proj.weight", name, e)
        else:
            yield Stored(disk, name, copy=name == "lm_head.weight" and config.tie_word_embeddings)
    for k in range(config.num_nextn_predict_layers):
        stem = f"model.layers.{config.num_hidden_layers + k}"
        head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        yield Stored(f"{stem}.embed_tokens.weight", "embed_tokens.weight", copy=True)
        yield Stored(f"{stem}.shared_head.head.weight", head, copy=True)


def disk_name(name: str, config: ModelConfig) -> str:
    """Our name of a whole tensor -> Hugging Face's."""
    if name == "lm_head.weight":
        return name
    if not name.startswith("mtp."):
        return f"model.{name}"
    _, k, rest = name.split(".", 2)
    rest = rest.removeprefix("block.")
    if rest == "norm.weight":
        rest = "shared_head.norm.weight"
    return f"model.layers.{config.num_hidden_layers + int(k)}.{rest}"


def is_matrix_of_a_layer(name: str) -> bool:
    """Whether DeepSeek publishes this tensor (HF's name) in FP8: projections of attention, MLPs and experts; not
    embedding, head, router, norms, nor an MTP layer's eh_proj (arXiv 2412.19437, section 3.3)."""
    return name.endswith(("_proj.weight", "kv_a_proj_with_mqa.weight")) and not name.endswith("eh_proj.weight")


def stays_float32(name: str, tensor: Tensor) -> bool:
    """Whether a tensor (our name) is kept in FP32 when the matrices are not: norms, biases, and the router."""
    return tensor.dim() < 2 or name.endswith("mlp.gate.weight")


def select(tensor: Tensor, stored: Stored) -> Tensor:
    """The part of the in-memory tensor that `stored` names (a view)."""
    if stored.expert is None:
        return tensor
    return tensor[stored.expert] if stored.rows is None else tensor[stored.expert, slice(*stored.rows)]
