"""Real tiny models behind real servers: one that thinks and answers in Korean, one that never stops talking."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from openai import OpenAI

from kogia.models.decoder import Decoder
from kogia.models.folder import save_model
from kogia.models.presets import preset
from kogia.serve.http import bind, create_app, make_server
from kogia.serve.worker import Computing, Worker, load_engine
from kogia.text.prompts import encode_question, encode_reply
from kogia.text.tokenizer import SPECIALS, Tokenizer, train_tokenizer

TEXTS = [
    "The answer to the question is the number that the question asks for. What is it? It is what it is.",
    "안녕하세요, 세계! 다람쥐 헌 쳇바퀴에 타고파. 만나서 반갑다는 인사는 누구에게나 반갑습니다.",
]
THINKING = "인사에는 인사로 답한다. 뷁쀍꿻!"  # syllables that no merge covers: each comes in three tokens
CONVERSATIONS = {
    "안녕하세요?": f"<think>\n{THINKING}\n</think>\n안녕하세요, 세계! 만나서 반갑습니다.",
    "What is 3 + 4?": "<think>\n3 + 4 = 7.\n</think>\nThe answer is \\boxed{7}.",
    "바로 대답해 줘.": "네, 알겠습니다.",
}
GREETING = next(iter(CONVERSATIONS))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """At most 512 tokens, few enough that a Korean syllable often takes several."""
    return train_tokenizer(TEXTS * 3, 512)


@pytest.fixture(scope="session")
def thinker(tmp_path_factory, tokenizer) -> Path:
    """The folder of a model that has learnt CONVERSATIONS by heart."""
    model = Decoder(preset("tiny", num_nextn_predict_layers=0, initializer_range=0.05)).initialise(0)
    pairs = [(encode_question(tokenizer, q), encode_reply(tokenizer, a)) for q, a in CONVERSATIONS.items()]
    width = max(len(prompt) + len(reply) for prompt, reply in pairs)
    tokens = torch.zeros(len(pairs), width, dtype=torch.int64)
    labels = torch.full_like(tokens, -100)
    for row, (prompt, reply) in enumerate(pairs):
        end = len(prompt) + len(reply)
        tokens[row, :end] = torch.tensor(prompt + reply)
        labels[row, len(prompt) : end] = torch.tensor(reply)
    _learn(model, tokens, labels)
    return _save(tmp_path_factory.mktemp("models") / "thinker", model, tokenizer)


def _learn(model: Decoder, tokens: torch.Tensor, labels: torch.Tensor) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(400):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        if loss.item() < 0.01:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    raise AssertionError(f"the thinker did not learn its lines: loss {loss.item():.3f}")


@pytest.fixture(scope="session")
def babbler(tmp_path_factory, tokenizer) -> Path:
    """The folder of a random model with a long context that never says EOS and only says whole characters.

    The first dimension of its hidden state is the same large number everywhere, so that the first column of the head
    is a bias, and that bias forbids the rest.
    """
    model = Decoder(preset("tiny", max_position_embeddings=8192)).initialise(0)
    whole = [i for i in range(tokenizer.vocab_size) if "\ufffd" not in tokenizer.decode([i])]
    allowed = set(whole) - {tokenizer.ids[token] for token in SPECIALS}
    with torch.no_grad():
        model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[:, 0] = torch.tensor([0.0 if i in allowed else -20.0 for i in range(512)])
    return _save(tmp_path_factory.mktemp("models") / "babbler", model, tokenizer)


def _save(folder: Path, model: Decoder, tokenizer: Tokenizer) -> Path:
    save_model(folder, model)
    tokenizer.save(folder)
    return folder


HTTP = httpx.Client(verify=False, timeout=30)  # one for all: reading the system's certificates takes its time


@dataclass
class Served:
    """A running server."""

    url: str
    worker: Worker

    def client(self) -> OpenAI:
        """The real client, which would otherwise hide a 503 by trying again."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    def health(self) -> dict:
        """The body of GET /health."""
        return HTTP.get(f"{self.url}/health").json()

    def wait_until(self, reached: Callable[[dict], bool]) -> dict:
        """Ask /health until it says so; pytest's timeout ends it if it never does."""
        while not reached(health := self.health()):
            pass
        return health


@contextlib.contextmanager
def serving(folder: Path, max_batch: int = 8, max_waiting: int = 8) -> Iterator[Served]:
    """The real server in a thread, on a free port."""
    listener = bind("127.0.0.1", 0)
    worker = Worker(load_engine(folder, max_batch, Computing(threads=1)), max_waiting)
    server = make_server(create_app(worker, folder.name, [str(folder)]))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", worker)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def thinking_server(thinker) -> Iterator[Served]:
    """A server of the thinker."""
    with serving(thinker) as served:
        yield served


@pytest.fixture(scope="session")
def babbling_server(babbler) -> Iterator[Served]:
    """A server of the babbler."""
    with serving(babbler) as served:
        yield served
