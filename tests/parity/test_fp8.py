"""The same codes and scales as torchao's block-wise FP8 training, bit for bit, and as transformers' FP8 export."""

import math

import pytest
import torch

from kogia.kernels.fp8 import dequantise_blocks, quantise_blocks, quantise_tiles

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def weights(dtype):
    """Blocks of many sizes of numbers, each with its own spread; no block of zeros."""
    for size in (1e-3, 1.0, 50.0):
        w = torch.randn(256, 384) * torch.randn(256, 384).mul(2).exp().clamp(max=100.0) * size
        yield w.to(dtype)


def bits(codes):
    return codes.view(torch.uint8)


@pytest.fixture
def torchao():
    """torchao's plain PyTorch versions. Their module imports triton, which PyTorch for CPUs does not bring."""
    pytest.importorskip("triton", reason="oracle missing: pip install triton (torchao's FP8 kernels import it)")
    return pytest.importorskip("torchao.prototype.blockwise_fp8_training.kernels", reason="oracle missing: torchao")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_equal_torchaos_bit_for_bit(torchao, dtype):
    for w in weights(dtype):
        codes, scales = quantise_blocks(w)
        expected, expected_scales = torchao.torch_blockwise_scale_weight_quant(w)
        assert torch.equal(bits(codes), bits(expected)) and torch.equal(scales, expected_scales)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_activations_equal_torchaos_bit_for_bit(torchao, dtype):
    for x in weights(dtype):
        codes, scales = quantise_tiles(x)
        expected, expected_scales = torchao.torch_blockwise_scale_act_quant_lhs(x)
        assert torch.equal(bits(codes), bits(expected)) and torch.equal(scales, expected_scales)


def test_torchao_gives_a_block_of_zeros_another_scale(torchao):
    """The one difference: torchao clamps amax at 1e-12 for zeros, too. The codes, and what they mean, are the same."""
    w = torch.zeros(128, 128)
    codes, scales = torchao.torch_blockwise_scale_weight_quant(w)
    mine, my_scales = quantise_blocks(w)
    assert torch.equal(bits(codes), bits(mine))
    assert my_scales.item() == 1.0 and scales.item() == pytest.approx(1e-12 / 448)
    w[0, 0] = 1e-13
    codes, scales = torchao.torch_blockwise_scale_weight_quant(w)
    mine, my_scales = quantise_blocks(w)
    assert torch.equal(bits(codes), bits(mine)) and torch.equal(scales, my_scales)


@pytest.fixture
def transformers():
    """transformers(w, scale_fmt): codes and scale_inv of its FP8 export."""
    pytest.importorskip("transformers", "5.20", reason="oracle missing: pip install 'transformers>=5.20'")
    from transformers.integrations.finegrained_fp8 import Fp8Quantize
    from transformers.utils.quantization_config import FineGrainedFP8Config

    class Quantizer:
        def __init__(self, scale_fmt: str):
            self.quantization_config = FineGrainedFP8Config(weight_block_size=(128, 128))
            self.quantization_config.scale_fmt = scale_fmt

    def quantise(w, scale_fmt: str):
        out = Fp8Quantize(Quantizer(scale_fmt)).convert({"a.weight": w})
        return out["a.weight"], out["a.weight_scale_inv"]

    return quantise


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_equal_transformers(transformers, dtype):
    """But for a scale's last bit, which decides ties: its `448 / amax` is a reciprocal times 448, rounded twice."""
    for w in weights(dtype):
        codes, scales = quantise_blocks(w)
        expected, expected_scales = transformers(w, "float32")
        torch.testing.assert_close(scales, expected_scales, rtol=3e-7, atol=0)
        steps = (bits(codes).int() - bits(expected).int()).abs()
        assert steps.max() <= 1 and steps.float().mean() < 0.01
        torch.testing.assert_close(dequantise_blocks(codes, scales).to(dtype), w, rtol=0.07, atol=w.abs().max() / 448)


def test_powers_of_two_equal_transformers(transformers):
    for w in weights(torch.float32):
        codes, scales = quantise_blocks(w, ue8m0=True)
        expected, expected_scales = transformers(w, "ue8m0")
        assert torch.equal(bits(codes), bits(expected)) and torch.equal(scales, expected_scales.float())
        assert torch.equal(dequantise_blocks(expected, expected_scales), dequantise_blocks(codes, scales))


def test_transformers_rounds_a_scale_down_where_log2_cannot_tell(transformers):
    """One FP32 step above 448 / 1024 the scale has to be 2/1024; log2 in FP32 says -10, and the weight is cut off."""
    w = torch.zeros(128, 128)
    w[0, 0] = torch.nextafter(torch.tensor(448.0 / 1024), torch.tensor(math.inf))
    assert quantise_blocks(w, ue8m0=True)[1].item() == 2.0**-9
    assert transformers(w, "ue8m0")[1].float().item() == 2.0**-10
