"""llama.cpp, as xllamacpp packs it, asked in a process of its own: where it disagrees with a file, it aborts.

    python llama_cpp.py JOB ANSWER     both JSON files; a job names the file and says what to ask

`generate(path, prompts, n)` and `tokenise(path, texts)` are what tests call.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path


class Refused(Exception):
    """llama.cpp did not load the file, or aborted."""


def generate(path: Path, prompts: list[list[int]], tokens: int, draft: int = 0) -> list[dict]:
    """Greedy continuations of `prompts` without an end: each as the server's answer, with the best 5 log-probabilities
    of the first token. draft: how many tokens ahead the MTP layer drafts."""
    return _ask(dict(path=str(path), prompts=prompts, tokens=tokens, draft=draft))


def tokenise(path: Path, texts: list[str], special: bool = False) -> list[list[int]]:
    """Token ids of each text; special: whether texts of control tokens become those."""
    return _ask(dict(path=str(path), texts=texts, special=special))


def _ask(job: dict) -> list:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job").write_text(json.dumps(job))
        command = [sys.executable, __file__, f"{folder}/job", f"{folder}/answer"]
        env = {**os.environ, "GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
        if done.returncode:
            raise Refused((done.stdout + done.stderr)[-2000:])
        return json.loads((Path(folder) / "answer").read_text())


def _serve(job: dict):
    """One thread, everything in FP32."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.port = job["path"], 512, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if job.get("draft"):
        params.load_mtp = True
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
        params.speculative.draft.n_max = job["draft"]
    return xllamacpp.Server(params)


def _answer(job: dict) -> list:
    server = _serve(job)

    def post(route: str, body: dict) -> dict:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + route, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    if "texts" in job:
        asked = dict(add_special=False, parse_special=job["special"])
        return [post("/tokenize", {"content": text, **asked})["tokens"] for text in job["texts"]]
    asked = dict(temperature=0, cache_prompt=False, return_tokens=True, n_probs=5, ignore_eos=True)
    return [post("/completion", {"prompt": prompt, "n_predict": job["tokens"], **asked}) for prompt in job["prompts"]]


if __name__ == "__main__":
    answer = _answer(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(answer))
    os._exit(0)  # the server's own farewell takes a second
