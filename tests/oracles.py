"""Our folders as transformers reads them, and how far its logits are from ours."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from kogia.models.names import select

transformers = pytest.importorskip("transformers", "5.20", reason="oracle missing: pip install 'transformers>=5.20'")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CLASSES = {
    "deepseek_v3": "DeepseekV3ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM", "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip


def foreign(folder, attention: str = "eager"):
    """The folder as transformers' own model, with nothing missing and nothing but MTP left over."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    assert type(model).__name__ == CLASSES[model.config.model_type]
    assert not report["missing_keys"] and not report["mismatched_keys"] and not report["error_msgs"]
    layers = model.config.num_hidden_layers
    left_over = {int(name.split(".")[2]) for name in report["unexpected_keys"]}
    assert left_over == set(range(layers, layers + getattr(model.config, "num_mtp_layers", 0)))
    return model.eval()


def text(model, rows: int = 2, length: int = 24) -> torch.Tensor:
    """The same random tokens for both sides."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, model.config.vocab_size, (rows, length), generator=generator)


@torch.no_grad()
def largest_difference(model, folder, length: int = 24) -> float:
    """Largest difference of a logit, over the largest logit."""
    tokens = text(model, length=length)
    expected = foreign(folder)(tokens).logits
    return float((model(tokens) - expected).abs().max() / expected.abs().max())


def foreign_gradient(parameters: dict[str, torch.Tensor], stored) -> torch.Tensor:
    """Their gradient of one tensor on disk. In memory they stack experts as we do, under the disk's prefix."""
    if stored.expert is None:
        return parameters[stored.name].grad
    stem = stored.name[: stored.name.index(".experts.") + len(".experts.")]
    kind = "down_proj" if stored.rows is None else "gate_up_proj"
    return select(parameters[stem + kind].grad, stored)
