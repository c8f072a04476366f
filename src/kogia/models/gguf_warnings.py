"""Where llama.cpp computes otherwise than Kogia, or not at all: what to tell who exports a model.

Each of these was seen with the llama.cpp of October 2026 in xllamacpp 2026.10.11549 (tests/parity/test_gguf.py).
"""

from collections.abc import Iterator

from kogia.models.attention import LATENT_EPS
from kogia.models.config import ModelConfig

TAKEN_FOR_LITE = (26, 27)  # llama.cpp tells DeepSeek-V2-Lite by its number of layers


def differences(config: ModelConfig, mtp_layers: int) -> list[str]:
    """One line for each thing that llama.cpp does otherwise with a model of this configuration."""
    return [
        f"llama.cpp {line}" for line in [*_rope(config), *(_deepseek(config, mtp_layers) if config.is_latent else [])]
    ]


def _rope(c: ModelConfig) -> Iterator[str]:
    scaling = c.rope_scaling
    if scaling is None or scaling.rope_type == "llama3":
        return
    if scaling.rope_type == "linear" and c.is_latent:
        yield "scales the scores of a DeepSeek model under linear RoPE scaling: its output will differ"
    if scaling.rope_type == "yarn":
        if c.is_latent and not scaling.mscale_all_dim:
            yield "computes YaRN without mscale_all_dim otherwise for a DeepSeek model: its output will differ"
        if (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
            yield "takes YaRN's beta_fast to be 32 and beta_slow 1 whatever the file says: its output will differ"


def _deepseek(c: ModelConfig, mtp_layers: int) -> Iterator[str]:
    if c.n_shared_experts == 0 and c.first_k_dense_replace < c.num_hidden_layers + mtp_layers:
        yield "does not load a DeepSeek model without shared experts"
    if c.q_lora_rank is not None and c.num_hidden_layers in TAKEN_FOR_LITE:
        yield f"takes {c.num_hidden_layers} layers for DeepSeek-V2-Lite, which has no q_lora_rank, and fails to load"
    if c.rms_norm_eps != LATENT_EPS:
        yield f"norms the latents with rms_norm_eps = {c.rms_norm_eps} and not {LATENT_EPS}: small differences"
    if c.topk_method == "group_limited_greedy" and c.topk_group < c.n_group:
        yield "scores a group of experts by its best two and not its best one: other experts may be chosen"
    if mtp_layers > 1:
        yield f"loads {mtp_layers} MTP layers but drafts with one only: keep one if it is to draft"
    if mtp_layers and c.q_lora_rank is None:
        yield "cannot draft with an MTP layer without q_lora_rank"
