"""The numbers that define a model, under Hugging Face's field names: DeepSeek-V3, V2, and the dense families."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from kogia.errors import ShapeError
from kogia.models.rotary import RopeScaling, attention_temperature

LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
EXPERTS = (
    "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group",
    "first_k_dense_replace", "routed_scaling_factor", "norm_topk_prob", "scoring_func", "topk_method",
)  # fmt: skip
GROUPED = ("num_key_value_heads", "head_dim")
OWN_FIELDS: dict[str, tuple[str, ...]] = {  # the fields that a family has beside those of every family
    "deepseek_v3": (*LATENT, *EXPERTS, "num_nextn_predict_layers"),
    "deepseek_v2": (*LATENT, *EXPERTS),
    "llama": (*GROUPED, "attention_bias"),
    "qwen2": GROUPED,
    "qwen3": (*GROUPED, "attention_bias"),
}
ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM", "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
ONLY: dict[str, dict[str, Any]] = {  # settings of a config.json that are computed in one way only
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "attention_bias": False,
                    "rope_interleave": True, "moe_layer_freq": 1},
    "deepseek_v2": {"scoring_func": "softmax", "norm_topk_prob": False, "attention_bias": False,
                    "rope_interleave": True, "moe_layer_freq": 1},
    "llama": {},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
}  # fmt: skip
ONLY_ANY = {"hidden_act": "silu", "mlp_bias": False, "partial_rotary_factor": 1.0}
TOPK_METHODS = {"deepseek_v3": ("noaux_tc",), "deepseek_v2": ("greedy", "group_limited_greedy")}

MAX_COUNTS = {"num_hidden_layers": 512, "num_nextn_predict_layers": 16, "n_routed_experts": 4096,
              "max_position_embeddings": 1 << 24}  # fmt: skip
MAX_REAL = 1e15
MAX_DIMENSION = 1 << 20  # far above any published model; bounds what a hostile config.json can allocate
MAY_BE_ZERO = ("first_k_dense_replace", "num_nextn_predict_layers", "n_shared_experts")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model of one of the families in `OWN_FIELDS`. Fields are those of HF's `config.json`; a field that
    the family does not have keeps its default."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    model_type: str = "deepseek_v3"
    # latent attention: the DeepSeek families
    q_lora_rank: int | None = None
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    # grouped-query attention: the dense families
    num_key_value_heads: int = 0
    head_dim: int = 0
    attention_bias: bool = False
    # experts
    moe_intermediate_size: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 0
    routed_scaling_factor: float = 2.5
    norm_topk_prob: bool = True
    scoring_func: str = "sigmoid"
    topk_method: str = "noaux_tc"
    # every family
    num_nextn_predict_layers: int = 0
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.006
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        if self.model_type not in OWN_FIELDS:
            raise ShapeError(f"model_type {self.model_type!r} is not known: {_known_families()}")
        absent = _absent(self.model_type)
        for field in dataclasses.fields(self):
            if field.name in absent:
                if getattr(self, field.name) != field.default:
                    raise ShapeError(f"{field.name} is set, but model_type {self.model_type} has no such field")
            else:
                self._check_field(field.name, field.type, getattr(self, field.name))
        self._check_tokens()
        if self.is_latent:
            self._check_experts()
        elif self.num_attention_heads % self.num_key_value_heads:
            raise ShapeError(
                f"num_attention_heads is {self.num_attention_heads}, which does not divide into "
                f"num_key_value_heads = {self.num_key_value_heads} groups"
            )
        if self.rope_scaling and self.rope_scaling.rope_type == "yarn" and self.rope_theta <= 1.0:
            raise ShapeError(f"rope_theta is {self.rope_theta}: YaRN needs one over 1")
        if self.rotary_dim % 2:
            name = "qk_rope_head_dim" if self.is_latent else "head_dim"
            raise ShapeError(f"{name} is {self.rotary_dim}: RoPE turns pairs, so it must be even")

    def _check_field(self, name: str, kind: Any, value: object) -> None:
        if kind is int or (name == "q_lora_rank" and value is not None):
            self._check_dimension(name, value)
        elif kind is float:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 < value <= MAX_REAL:
                raise ShapeError(f"{name} is {value!r}: it must be a number over 0 and up to {MAX_REAL:g}")
        elif kind is bool and not isinstance(value, bool):
            raise ShapeError(f"{name} is {value!r}: it must be true or false")

    def _check_dimension(self, name: str, value: object) -> None:
        least, most = 0 if name in MAY_BE_ZERO else 1, MAX_COUNTS.get(name, MAX_DIMENSION)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ShapeError(f"{name} is {value!r}: it must be a whole number from {least} to {most}")

    def _check_tokens(self) -> None:
        for name, ids in (("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)):
            if name == "bos_token_id" and ids is None:
                continue
            for value in ids if isinstance(ids, tuple) and ids else (ids,):
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_DIMENSION:
                    raise ShapeError(f"{name} is {value!r}: it must be a whole number from 0 to {MAX_DIMENSION - 1}")

    def _check_experts(self) -> None:
        experts, groups = self.n_routed_experts, self.n_group
        if self.topk_method not in TOPK_METHODS[self.model_type]:
            known = " or ".join(TOPK_METHODS[self.model_type])
            raise ShapeError(f"topk_method is {self.topk_method!r}: {self.model_type} has {known}")
        if self.scoring_func != ONLY[self.model_type]["scoring_func"]:
            raise ShapeError(f"scoring_func is {self.scoring_func!r}, which model_type {self.model_type} does not have")
        if experts % groups:
            raise ShapeError(f"n_routed_experts is {experts}, which does not divide into n_group = {groups} groups")
        if experts // groups < 2 and self.topk_method == "noaux_tc":
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
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ShapeError(
                f"first_k_dense_replace is {self.first_k_dense_replace}, "
                f"but there are only {self.num_hidden_layers} layers (num_hidden_layers)"
            )

    @property
    def is_latent(self) -> bool:
        """Whether attention is MLA (the DeepSeek families) and not grouped-query attention."""
        return self.model_type in ("deepseek_v3", "deepseek_v2")

    @property
    def qk_head_dim(self) -> int:
        """Width of a query or key head; in MLA the part without and the part with position."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim if self.is_latent else self.head_dim

    @property
    def rotary_dim(self) -> int:
        """Width of what RoPE turns in a head."""
        return self.qk_rope_head_dim if self.is_latent else self.head_dim

    @property
    def cache_width(self) -> int:
        """Values cached for each token and layer: MLA's compressed keys/values and its one rotated key, or the keys
        and values of every group."""
        if self.is_latent:
            return self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.num_key_value_heads * self.head_dim

    @property
    def softmax_scale(self) -> float:
        """Factor of the attention scores. MLA under YaRN has the square of YaRN's temperature in it (DeepSeek's code:
        0.135234 for V3, not 192^-0.5 = 0.072169); the dense families have it in the rotation instead."""
        scaling = self.rope_scaling if self.is_latent else None
        temperature = attention_temperature(scaling.factor, scaling.mscale_all_dim) if scaling else 1.0
        return self.qk_head_dim**-0.5 * temperature**2

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a reply, as a tuple."""
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    def is_dense(self, layer: int) -> bool:
        """Whether layer number `layer` has a plain MLP instead of experts. MTP layers come last and have experts."""
        return not self.is_latent or layer < self.first_k_dense_replace

    def to_json(self) -> dict[str, Any]:
        """The `config.json` of a Hugging Face folder; also what vLLM and llama.cpp look for."""
        absent = _absent(self.model_type)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in absent}
        more: dict[str, Any] = {"hidden_act": "silu", "pad_token_id": self.stop_ids[0], "torch_dtype": "float32"}
        if self.is_latent:
            more |= {"num_key_value_heads": self.num_attention_heads, "moe_layer_freq": 1, "attention_bias": False}
        return {
            "architectures": [ARCHITECTURES[self.model_type]],
            **fields,
            "rope_scaling": self.rope_scaling.to_json() if self.rope_scaling else None,
            "eos_token_id": list(self.stop_ids) if isinstance(self.eos_token_id, tuple) else self.eos_token_id,
            **more,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read a `config.json`; refuses, by name, what this version cannot compute exactly.

        Raises:
            ShapeError: another family, a missing field, or a setting that is not supported.
        """
        family = values.get("model_type")
        if not isinstance(family, str) or family not in OWN_FIELDS:
            raise ShapeError(f"config.json says model_type {family!r}: {_known_families()}")
        for key, only in (ONLY_ANY | ONLY[family]).items():
            if values.get(key, only) != only:
                raise ShapeError(f"{key} is {values[key]!r}: only {only!r} is supported yet")
        kinds = values.get("layer_types") or []
        if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
            raise ShapeError("layer_types holds other kinds than full_attention: only that one is supported yet")
        found = _fields(cls, family, values)
        missing = [name for name in _required(family) if name not in found]
        if missing:
            raise ShapeError(f"config.json lacks {', '.join(missing)}")
        return cls(**found)


def _absent(family: str) -> set[str]:
    """The fields that other families have and this one has not."""
    return {field for fields in OWN_FIELDS.values() for field in fields} - set(OWN_FIELDS[family])


def _known_families() -> str:
    return f"this version reads {', '.join(OWN_FIELDS)}"


def _required(family: str) -> list[str]:
    """What a config.json must say; the rest has defaults that Hugging Face and DeepSeek share."""
    common = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    optional = ("num_nextn_predict_layers", "routed_scaling_factor", "norm_topk_prob", "scoring_func", "topk_method",
                "attention_bias")  # fmt: skip
    return common + [name for name in OWN_FIELDS[family] if name not in optional]


def _fields(cls: type[ModelConfig], family: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a config.json that are fields of ours, with the families' ways of leaving things out."""
    absent = _absent(family)
    found = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values and f.name not in absent}
    for name in ("attention_bias", "num_key_value_heads", "head_dim", "tie_word_embeddings"):
        if found.get(name, 0) is None:  # null is HF's way of leaving it out
            del found[name]
    theta, scaling = _rope(values)
    found |= {"rope_scaling": scaling} | ({"rope_theta": theta} if theta is not None else {})
    if "num_mtp_layers" in values and family == "deepseek_v3":  # transformers 5's name
        found.setdefault("num_nextn_predict_layers", values["num_mtp_layers"])
    if isinstance(found.get("eos_token_id"), list):
        found["eos_token_id"] = tuple(found["eos_token_id"])
    if family == "deepseek_v2":
        found = {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False,
                 "routed_scaling_factor": 1.0, **found}  # fmt: skip
    if "head_dim" in OWN_FIELDS[family]:
        heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
        if found.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            found["head_dim"] = hidden // heads
        if found.get("num_key_value_heads") is None and heads is not None:
            found["num_key_value_heads"] = heads
    return found


def _rope(values: dict[str, Any]) -> tuple[Any, RopeScaling | None]:
    """rope_theta and the scaling, from `rope_scaling` (DeepSeek, transformers 4) or `rope_parameters` (5)."""
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(values.get(key) or {}, dict):
            raise ShapeError(f"{key} is {values[key]!r}: it must be an object")
    parameters, old = values.get("rope_parameters") or {}, values.get("rope_scaling")
    theta = values.get("rope_theta", parameters.get("rope_theta"))
    return theta, RopeScaling.from_json(old or parameters, values.get("max_position_embeddings"))
