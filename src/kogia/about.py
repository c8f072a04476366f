"""What a model folder holds, in numbers: for `kogia info`."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from kogia.files import read_json
from kogia.kernels.host import compute_dtype
from kogia.models.config import ModelConfig
from kogia.models.decoder import Decoder
from kogia.models.folder import load_config
from kogia.plan.flops import forward_flops


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Parameters (the balancing biases included, as DeepSeek counts them): without MTP, of the MTP layers, and those
    that one token uses (embedding and head included, MTP not)."""
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    mtp = sum(t.numel() for name, t in state.items() if name.startswith("mtp."))
    total = sum(t.numel() for t in state.values()) - mtp
    idle = config.n_routed_experts - config.num_experts_per_tok
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    moe_layers = config.num_hidden_layers - config.first_k_dense_replace
    return {"total": total, "mtp": mtp, "active": total - moe_layers * idle * expert}


def describe(folder: str | Path) -> dict[str, Any]:
    """Facts about a model folder; needs `config.json` only. Keys are stable.

    Raises:
        FolderError, ShapeError: no folder, or a config that this version cannot read.
    """
    folder = Path(folder)
    config = load_config(folder)
    life = folder / "kogia.json"
    return {
        "family": "deepseek_v3",
        "layers": config.num_hidden_layers,
        "mtp_depth": config.num_nextn_predict_layers,
        "experts": f"{config.num_experts_per_tok} of {config.n_routed_experts} + {config.n_shared_experts} shared",
        "parameters": parameter_counts(config),
        "cache_bytes_per_token": config.num_hidden_layers * config.latent_dim * 2,
        "flops_per_token": forward_flops(config, config.max_position_embeddings / 2),
        "context": config.max_position_embeddings,
        "compute_dtype_here": str(compute_dtype("auto")).removeprefix("torch."),
        "bill": read_json(life)["total"] if life.is_file() else None,
        "config": dataclasses.asdict(config),
    }
