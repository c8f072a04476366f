"""The numbers that define a DeepSeek-V3-shaped model, under Hugging Face's field names."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from kogia.errors import ShapeError

MAX_COUNTS = {"num_hidden_layers": 1024, "num_nextn_predict_layers": 64, "n_routed_experts": 4096}
MAX_DIMENSION = 1 << 20  # far above any published model; bounds what a hostile config.json can allocate


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a DeepSeek-V3 model (arXiv 2412.19437, section 4.2). Fields are those of HF's `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    first_k_dense_replace: int
    num_nextn_predict_layers: int = 0
    routed_scaling_factor: float = 2.5
    norm_topk_prob: bool = True
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.006
    tie_word_embeddings: bool = False
    bos_token_id: int = 0
    eos_token_id: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type in ("int", int):
                self._check_dimension(field.name, getattr(self, field.name))
            elif field.type in ("float", float):
                self._check_real(field.name, getattr(self, field.name))
            elif field.type in ("bool", bool) and not isinstance(getattr(self, field.name), bool):
                raise ShapeError(f"{field.name} is {getattr(self, field.name)!r}: it must be true or false")
        if self.q_lora_rank is not None:
            self._check_dimension("q_lora_rank", self.q_lora_rank)
        self._check_experts()
        if self.qk_rope_head_dim % 2:
            raise ShapeError(f"qk_rope_head_dim is {self.qk_rope_head_dim}: RoPE turns pairs, so it must be even")
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ShapeError(
                f"first_k_dense_replace is {self.first_k_dense_replace}, "
                f"but there are only {self.num_hidden_layers} layers (num_hidden_layers)"
            )

    def _check_dimension(self, name: str, value: object) -> None:
        may_be_zero = name in (
            "first_k_dense_replace", "num_nextn_predict_layers", "bos_token_id", "eos_token_id", "n_shared_experts",
        )  # fmt: skip
        least, most = 0 if may_be_zero else 1, MAX_COUNTS.get(name, MAX_DIMENSION)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ShapeError(f"{name} is {value!r}: it must be a whole number from {least} to {most}")

    def _check_real(self, name: str, value: object) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 < value < float("inf"):
            raise ShapeError(f"{name} is {value!r}: it must be a number over 0")

    def _check_experts(self) -> None:
        experts, groups = self.n_routed_experts, self.n_group
        if experts % groups:
            raise ShapeError(f"n_routed_experts is {experts}, which does not divide into n_group = {groups} groups")
        if experts // groups < 2:
            raise ShapeError(
                f"n_group = {groups} leaves {experts // groups} expert a group; a group's score is the sum of its "
                f"best two, so n_group must be at most {experts // 2}"
            )
        if self.topk_group > groups:
            raise ShapeError(f"topk_group is {self.topk_group}, but there are only n_group = {groups} groups")
        reachable = self.topk_group * (experts // groups)
        if self.num_experts_per_tok > reachable:
            raise ShapeError(
                f"num_experts_per_tok is {self.num_experts_per_tok}, but topk_group = {self.topk_group} groups "
                f"hold only {reachable} experts"
            )

    @property
    def qk_head_dim(self) -> int:
        """Width of a query or key head: the part without and the part with position."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Values cached for each token and layer: the compressed keys/values and the one rotated key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def is_dense(self, layer: int) -> bool:
        """Whether layer number `layer` has a plain MLP instead of experts. MTP layers come last and have experts."""
        return layer < self.first_k_dense_replace

    def to_json(self) -> dict[str, Any]:
        """The `config.json` of a Hugging Face folder; also what vLLM and llama.cpp look for."""
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            **dataclasses.asdict(self),
            "num_key_value_heads": self.num_attention_heads,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "moe_layer_freq": 1,
            "hidden_act": "silu",
            "attention_bias": False,
            "rope_scaling": None,
            "pad_token_id": self.eos_token_id,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read a `config.json`; refuses, by name, what this version cannot compute exactly.

        Raises:
            ShapeError: another family, a missing field, or a setting that is not supported.
        """
        family = values.get("model_type")
        if family != "deepseek_v3":
            raise ShapeError(f'config.json says model_type {family!r}: this version reads "deepseek_v3" only')
        rope = values.get("rope_parameters") or {}
        if not isinstance(rope, dict):
            raise ShapeError(f"rope_parameters is {rope!r}: it must be an object")
        scaling = values.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
        if scaling:
            raise ShapeError(f"rope_scaling {scaling} is not supported yet: only plain RoPE is")
        if values.get("quantization_config"):
            raise ShapeError("quantization_config is set: quantised checkpoints are not supported yet")
        for key, only in {"hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
                          "attention_bias": False, "rope_interleave": True, "moe_layer_freq": 1}.items():  # fmt: skip
            if values.get(key, only) != only:
                raise ShapeError(f"{key} is {values[key]!r}: only {only!r} is supported yet")
        known = {field.name: field for field in dataclasses.fields(cls)}
        found = {name: values[name] for name in known if name in values}
        if "rope_theta" not in found and "rope_theta" in rope:
            found["rope_theta"] = rope["rope_theta"]
        missing = [n for n, f in known.items() if n not in found and f.default is dataclasses.MISSING]
        if missing:
            raise ShapeError(f"config.json lacks {', '.join(missing)}")
        return cls(**found)


_NANO: dict[str, Any] = dict(
    vocab_size=1024, hidden_size=128, intermediate_size=320, moe_intermediate_size=64,
    num_hidden_layers=4, num_attention_heads=4, q_lora_rank=96, kv_lora_rank=64,
    qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
    n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=2, n_group=4, topk_group=2,
    first_k_dense_replace=1, num_nextn_predict_layers=2, max_position_embeddings=512,
    initializer_range=0.04,  # V3's 0.006 at width 7168, scaled to width 128
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "nano": _NANO,
    "tiny": _NANO | dict(
        hidden_size=64, intermediate_size=128, moe_intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
        n_routed_experts=8, vocab_size=512,
    ),
}  # fmt: skip


def preset(name: str, **changes: Any) -> ModelConfig:
    """A named configuration, with some fields changed.

    Raises:
        ShapeError: unknown preset or field (the nearest valid names are given), or numbers that do not fit.
    """
    if name not in PRESETS:
        raise ShapeError(f"unknown model preset {name!r}: there are {', '.join(sorted(PRESETS))}")
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(changes) - fields)
    if unknown:
        raise ShapeError(f"unknown model field {unknown[0]!r}: the fields are {', '.join(sorted(fields))}")
    return ModelConfig(**(PRESETS[name] | changes))
