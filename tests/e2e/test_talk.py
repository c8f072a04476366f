"""`kogia chat`, `kogia serve` and `kogia info` on what `kogia run` made."""

import json
import re

import pytest
from command import kogia, start


def test_chat_answers_each_line_of_a_pipe(tiny_run):
    code, out, errors = kogia("chat", tiny_run[0] / "final", "--max-tokens", 12, "--seed", 1, stdin="1 + 2\n3 + 4\n")
    assert code == 0, errors
    again = kogia("chat", tiny_run[0] / "final", "--max-tokens", 12, "--seed", 1, stdin="1 + 2\n3 + 4\n")[1]
    assert re.sub(r"[\d.,]+ tokens/s", "", out) == re.sub(r"[\d.,]+ tokens/s", "", again)
    assert out.count("tokens/s") == 2


def test_info(tiny_run):
    code, out, errors = kogia("info", tiny_run[0] / "final", "--json")
    assert code == 0, errors
    facts = json.loads(out)
    config = json.loads((tiny_run[0] / "final" / "config.json").read_text())
    assert facts["config"]["hidden_size"] == config["hidden_size"]
    assert facts["parameters"]["active"] < facts["parameters"]["total"]
    assert facts["cache_bytes_per_token"] == 2 * 2 * (32 + 8)  # 2 layers of 32 + 8 values in BF16
    assert facts["bill"]["money"] > 0


def test_serve_speaks_to_the_openai_client(tiny_run):
    openai = pytest.importorskip("openai", reason="pip install 'kogia-llm[test]'")
    process = start("serve", tiny_run[0] / "final", "--port", 0)
    try:
        line = ""
        while "http://127.0.0.1:" not in line:
            line = process.stdout.readline() or process.stderr.readline()
            assert process.poll() is None, line
        url = re.search(r"http://127\.0\.0\.1:\d+", line).group()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        messages = [{"role": "user", "content": "계산하세요: 3 + 4"}]
        asked = {"model": "final", "messages": messages, "max_tokens": 16, "seed": 5}
        whole = client.chat.completions.create(**asked)
        pieces = [c.choices[0].delta for c in client.chat.completions.create(**asked, stream=True) if c.choices]
        said = "".join(piece.content or "" for piece in pieces)
        thought = "".join(getattr(piece, "reasoning_content", None) or "" for piece in pieces)
        message = whole.choices[0].message
        assert said == (message.content or "") and thought == (getattr(message, "reasoning_content", None) or "")
        assert whole.usage.completion_tokens > 0
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)  # -15: the signal is passed on after a clean end
