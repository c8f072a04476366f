"""Which runner computes a model here, and what it can promise."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kogia.engine.batch import Runner
from kogia.engine.native_runner import NativeRunner
from kogia.engine.packed import QUANTISED
from kogia.engine.torch_runner import TorchRunner, inference_copy
from kogia.errors import UserError
from kogia.kernels.integer import Quantised, integer_linear, quantise
from kogia.kernels.native import why_not
from kogia.models.attention import LatentAttention
from kogia.models.decoder import Decoder
from kogia.models.layers import Linear
from kogia.models.moe import Experts


@dataclass(frozen=True)
class Choice:
    """How a model is computed: by the C++ "kernels" or by "torch"; in which format; whether it is exact; and why it is
    not what one would want, in words (None: it is)."""

    by: str
    format: str
    exact: bool
    why: str | None


def choose(dtype: torch.dtype, device: str, quantize: str | None, exact: bool | None) -> Choice:
    """What `make_runner` would do. exact: None asks for it where it can be had fast or slowly, on the CPU.

    Raises:
        UserError: an unknown `quantize`; exactness or integers asked for on a GPU.
    """
    if quantize not in (None, *QUANTISED):
        raise UserError(f"quantize is {quantize!r}: it must be {' or '.join(QUANTISED)}, or left out")
    format = quantize or str(dtype).removeprefix("torch.")
    if device != "cpu":
        if exact or quantize:
            what = "exact=True" if exact else f"quantize={quantize!r}"
            raise UserError(f"{what} is for the CPU: PyTorch's products on {device} are summed in changing orders")
        return Choice("torch", format, False, f"PyTorch on {device} sums in an order that depends on the batch")
    reason = why_not()
    if reason is None:
        return Choice("kernels", format, True, None)
    slow = exact is not False
    how = "every token is computed alone, which is slow" if slow else "sums depend on the batch, so answers may, too"
    return Choice("torch", format, slow, f"{reason}: PyTorch computes, {how}")


def make_runner(model: Decoder, quantize: str | None = None, exact: bool | None = None, threads: int = 0) -> Runner:
    """The best runner there is for a model here. threads: for arithmetic (0: as many as PyTorch has).

    Raises:
        UserError: as `choose`, or weights that the format cannot hold.
    """
    choice = choose(model.dtype, model.embed_tokens.weight.device.type, quantize, exact)
    if choice.by == "kernels":
        return NativeRunner(model, choice.format, threads or torch.get_num_threads())
    if quantize:
        return _QuantisedTorchRunner(model, quantize, choice.exact)
    return TorchRunner(model, one_by_one=choice.exact)


class _QuantisedTorchRunner(TorchRunner):
    """The fallback for integers: a copy of the model whose products are those of `kernels.integer`."""

    def __init__(self, model: Decoder, format: str, one_by_one: bool) -> None:
        self._format = format
        super().__init__(_quantised_copy(model, format), one_by_one)
        self.live = model

    def refresh(self) -> None:
        """Quantise the live model's weights anew."""
        self.model = _quantised_copy(self.live, self._format)


@torch.no_grad()
def _quantised_copy(model: Decoder, format: str) -> Decoder:
    """A copy whose linear layers compute with integers; embedding, router, and what MLA folds into others do not."""
    twin = inference_copy(model)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            whole = isinstance(module, LatentAttention) and name == "kv_b_proj"
            if isinstance(child, Linear) and not whole:
                setattr(module, name, _IntegerLinear(child, "int8" if child is twin.lm_head else format))
            elif isinstance(child, Experts):
                setattr(module, name, _IntegerExperts(child, format))
    return twin


class _IntegerLinear(nn.Module):
    def __init__(self, linear: Linear, format: str) -> None:
        super().__init__()
        self.matrix, self.bias = quantise(linear.weight, format), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = integer_linear(x.flatten(0, -2), self.matrix).unflatten(0, x.shape[:-1])
        return (y if self.bias is None else y + self.bias.float()).to(x.dtype)


class _IntegerExperts(nn.Module):
    def __init__(self, experts: Experts, format: str) -> None:
        super().__init__()
        pairs = zip(experts.gate_up_proj, experts.down_proj, strict=True)
        self.matrices: list[tuple[Quantised, Quantised]] = [
            (quantise(u, format), quantise(d, format)) for u, d in pairs
        ]

    def forward(self, x_ND: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> tuple[Tensor, Tensor]:
        """As `Experts.forward`; a token's experts are added up in the order of their choice."""
        y_NKD = x_ND.new_zeros(*experts_NK.shape, x_ND.shape[1], dtype=torch.float32)
        for e, (up, down) in enumerate(self.matrices):
            token, choice = (experts_NK == e).nonzero(as_tuple=True)
            gate, value = integer_linear(x_ND[token], up).chunk(2, dim=-1)
            y_NKD[token, choice] = integer_linear(nn.functional.silu(gate) * value, down)
        out = torch.zeros_like(y_NKD[:, 0])
        for k in range(experts_NK.shape[1]):
            out = out + y_NKD[:, k] * weights_NK[:, k, None]
        return out.to(x_ND.dtype), torch.bincount(experts_NK.flatten(), minlength=len(self.matrices))
