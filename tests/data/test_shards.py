"""Packed tokens: every row once an epoch, whatever the batch, and the same after a restart."""

import numpy as np
import pytest
import torch

from kogia.data.corpus import Document
from kogia.data.shards import Shard, document_tokens, write_shard
from kogia.errors import CorpusError


@pytest.fixture
def numbered(tmp_path):
    """A shard of the tokens 0, 1, 2, ...: every row shows where it comes from."""

    def make(tokens: int, row_length: int = 4, overlap: int = 2, seed: int = 0) -> Shard:
        np.save(tmp_path / "shard.npy", np.arange(tokens, dtype=np.int32))
        return Shard(tmp_path / "shard.npy", row_length, overlap, seed)

    return make


def test_rows_are_consecutive_tokens_with_their_targets(numbered):
    shard = numbered(4 * 10 + 2)
    batch = shard.batch(0, 5)
    assert batch.shape == (5, 6) and batch.dtype == torch.int64
    assert all(row == list(range(row[0], row[0] + 6)) and row[0] % 4 == 0 for row in batch.tolist())


@pytest.mark.parametrize(("tokens", "rows"), [(6, 1), (9, 1), (10, 2), (42, 10), (45, 10), (46, 11)])
def test_as_many_rows_as_have_all_their_targets(numbered, tokens, rows):
    shard = numbered(tokens)
    assert shard.rows == rows
    assert int(shard.batch(0, rows).max()) <= tokens - 1


@pytest.mark.parametrize("batch_rows", [1, 3, 4, 7, 12, 25])
def test_every_row_once_an_epoch(numbered, batch_rows):
    shard = numbered(4 * 12 + 2)
    starts = [row[0] for step in range(60) for row in shard.batch(step, batch_rows).tolist()]
    epochs = [starts[i : i + 12] for i in range(0, len(starts) - 11, 12)]
    assert len(epochs) >= 5 and all(sorted(epoch) == list(range(0, 48, 4)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in a new order each time


def test_a_step_depends_on_the_seed_and_the_step_alone(numbered):
    shard, resumed = numbered(200), numbered(200)
    straight = [shard.batch(step, 5) for step in range(30)]
    assert torch.equal(resumed.batch(29, 5), straight[29])  # without having read the others
    assert torch.equal(shard.batch(3, 5), straight[3])  # going back is no matter
    assert not torch.equal(numbered(200, seed=1).batch(3, 5), straight[3])


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_too_small_a_corpus_names_the_numbers(numbered, tokens):
    with pytest.raises(CorpusError, match=rf"{tokens} tokens.*row of 4 \+ 2.*row_length"):
        numbered(tokens)


def test_documents_are_packed_whole_between_bos_and_eos(tiny_tokenizer, tmp_path):
    documents = [Document(text=f"document {i} 한국어 <think>") for i in range(20)]
    documents.append(Document(question="3 + 4?", reply="<think>\n3 + 4 = 7\n</think>\n\n\\boxed{7}"))
    count = write_shard(tmp_path / "s.npy", tiny_tokenizer, documents, seed=1)
    tokens = np.load(tmp_path / "s.npy")
    assert len(tokens) == count and tokens.dtype == np.int32
    starts = np.flatnonzero(tokens == tiny_tokenizer.bos)
    pieces = [piece.tolist() for piece in np.split(tokens, starts[1:])]
    assert all(piece[-1] == tiny_tokenizer.eos and piece.count(tiny_tokenizer.eos) == 1 for piece in pieces)
    assert sorted(pieces) == sorted(document_tokens(tiny_tokenizer, d) for d in documents)
    assert pieces != [document_tokens(tiny_tokenizer, d) for d in documents]  # shuffled
    write_shard(tmp_path / "again.npy", tiny_tokenizer, documents, seed=1)
    assert (tmp_path / "s.npy").read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_only_the_reply_of_a_conversation_has_thinking_tokens(tiny_tokenizer):
    think = tiny_tokenizer.ids["<think>"]
    assert think not in document_tokens(tiny_tokenizer, Document(text="<think>"))
    assert think not in document_tokens(tiny_tokenizer, Document(question="<think>", reply="x"))
    assert think in document_tokens(tiny_tokenizer, Document(question="x", reply="<think>\ny\n</think>\n\nz"))
