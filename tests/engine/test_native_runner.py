"""The native runner: the same model as models/decoder.py in FP32, and one row's bits whatever the step looks like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogia.engine.batch import BLOCK, Batch
from kogia.engine.native_program import ROWS, Crew
from kogia.engine.native_runner import NativeRunner
from kogia.errors import UserError
from kogia.kernels.native import why_not
from kogia.models.rotary import RopeScaling

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
FORMATS = ["float32", "bfloat16", "int8", "int4"]
YARN = RopeScaling("yarn", 4.0, 32)
SHAPES = [
    ("deepseek_v3", {}),
    ("deepseek_v3", {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 3}),
    ("deepseek_v3", {"kv_lora_rank": 24, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 20}),
    ("deepseek_v3", {"n_shared_experts": 2, "first_k_dense_replace": 0, "rope_scaling": YARN}),
    ("deepseek_v3", {"n_shared_experts": 0, "num_attention_heads": 7, "moe_intermediate_size": 20}),
    ("deepseek_v3", {"first_k_dense_replace": 2, "hidden_size": 72, "intermediate_size": 50}),
    ("deepseek_v3", {"n_routed_experts": 1280, "n_group": 640, "topk_group": 600, "num_experts_per_tok": 4}),
    ("deepseek_v3", {"kv_lora_rank": 20_000, "num_attention_heads": 1}),
    ("deepseek_v2", {}),
    ("deepseek_v2", {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "q_lora_rank": None}),
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"head_dim": 24, "attention_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("llama", {"rope_scaling": RopeScaling("llama3", 8.0, 32), "num_attention_heads": 9, "num_key_value_heads": 1}),
    ("qwen2", {"rope_scaling": YARN}),
    ("qwen3", {"attention_bias": True, "head_dim": 32}),
    ("qwen3", {"vocab_size": 99, "num_attention_heads": 6}),
]


def ints(values):
    return np.ascontiguousarray(np.array(list(values), dtype=np.int32))


def whole(tokens, tables, wanted=None):
    """All tokens (S, T) in one step."""
    S, T = tokens.shape
    rows = S * T
    return Batch(
        ints(tokens.flatten().tolist()), ints(list(range(T)) * S), ints(i // T for i in range(rows)), tables,
        ints(range(rows) if wanted is None else wanted),
    )  # fmt: skip


def tables_for(sequences, length, seed=0):
    """Scattered blocks."""
    pages = -(-length // BLOCK)
    order = np.random.default_rng(seed).permutation(sequences * pages)
    return order.reshape(sequences, pages).astype(np.int32)


def runner_of(model, format, sequences, length, threads=1):
    runner = NativeRunner(model, format, threads)
    runner.allocate(sequences * -(-length // BLOCK))
    return runner


@pytest.mark.parametrize(("family", "changes"), SHAPES, ids=str)
def test_float32_is_the_model(make_family, family, changes):
    model = make_family(family, 5, **changes)
    tokens = torch.randint(0, model.config.vocab_size, (3, 45))
    with torch.inference_mode():
        expected = model(tokens).flatten(0, 1)
        got = runner_of(model, "float32", 3, 45).forward(whole(tokens, tables_for(3, 45))).logits_WV
    assert float((got - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drafts_are_the_mtp_layers(make_model, depth):
    model = make_model(6, num_nextn_predict_layers=depth, initializer_range=0.1)
    tokens = torch.randint(0, model.config.vocab_size, (2, 30 + depth))
    tables, T = tables_for(2, 30), 30
    with torch.inference_mode():
        h = model.hidden_states(tokens[:, :T])
        expected = [model.logits(state).flatten(0, 1) for state in model.further_hidden_states(h, tokens)]
        runner = runner_of(model, "float32", 2, 30)
        hidden = runner.forward(whole(tokens[:, :T], tables)).hidden_ND.clone()
        for k in range(depth):
            logits, hidden = runner.draft(k, whole(tokens[:, 1 + k : 1 + k + T], tables), hidden)
            assert float((logits - expected[k]).norm() / expected[k].norm()) < 1e-5
            hidden = hidden.clone()


@settings(max_examples=30)
@given(
    st.sampled_from(FORMATS), st.sampled_from([SHAPES[i] for i in (0, 2, 4, -8, -6, -1)]), st.integers(1, 3),
    st.integers(0, 1000), st.data(),
)  # fmt: skip
def test_any_cut_of_the_rows_gives_the_same_bits(make_family, format, shape, threads, seed, data):
    """Sequences in chunks of any size, mixed with each other in any order, on other blocks: batch, chunk, page."""
    model = make_family(shape[0], 7, **shape[1])
    S, T = 3, 38
    tokens = torch.randint(0, model.config.vocab_size, (S, T), generator=torch.Generator().manual_seed(seed))
    expected = runner_of(model, format, S, T).forward(whole(tokens, tables_for(S, T))).logits_WV.unflatten(0, (S, T))
    expected = expected.clone()
    runner, tables = runner_of(model, format, S, T, threads), tables_for(S, T, seed)
    done = [0] * S
    while min(done) < T:
        chunks = [(s, data.draw(st.integers(0, min(9, T - done[s])))) for s in data.draw(st.permutations(range(S)))]
        rows = [(s, done[s] + i) for s, n in chunks for i in range(n)]
        if not rows:
            rows = [(s, done[s]) for s in range(S) if done[s] < T][:1]
        at = ints(p for _, p in rows)
        batch = Batch(
            ints(int(tokens[s, p]) for s, p in rows), at, ints(s for s, _ in rows), tables, ints(range(len(rows)))
        )
        logits = runner.forward(batch).logits_WV
        for i, (s, p) in enumerate(rows):
            assert torch.equal(logits[i], expected[s, p])
            done[s] = p + 1


@pytest.mark.parametrize("format", FORMATS)
def test_more_rows_than_fit_at_a_time(make_family, format):
    """They are cut; logits, hidden states and experts come back as one, and only what was wanted."""
    model = make_family("deepseek_v3", 8, max_position_embeddings=1024)
    T = 2 * ROWS + 37
    tokens = torch.randint(0, 400, (1, T))
    tables = tables_for(1, T)
    wanted = [0, 5, ROWS - 1, ROWS, T - 1]
    logits, hidden = runner_of(model, format, 1, T).forward(whole(tokens, tables, wanted))
    runner = runner_of(model, format, 1, T)
    for start in range(0, T, 100):
        part = whole(tokens, tables)
        rows = slice(start, min(start + 100, T))
        step = Batch(part.tokens_N[rows], part.positions_N[rows], part.sequence_N[rows], tables, ints([]))
        assert torch.equal(runner.forward(step).hidden_ND, hidden[rows])
    everything = runner_of(model, format, 1, T).forward(whole(tokens, tables)).logits_WV
    assert torch.equal(everything[wanted], logits)


def test_routed_experts_are_the_routers(make_family):
    model = make_family("deepseek_v3", 9)
    tokens = torch.randint(0, 400, (1, 20))
    seen = []
    for moe in model.experts():
        moe.gate.register_forward_hook(lambda m, i, routing: seen.append(routing.experts_NK.sort(-1).values))
    with torch.inference_mode():
        model(tokens)
    runner = runner_of(model, "float32", 1, 20)
    runner.forward(whole(tokens, tables_for(1, 20)))
    experts = torch.from_numpy(runner.routed_experts()).long().sort(-1).values  # (N, layers, K)
    layers = [i for i in range(2) if not model.config.is_dense(i)]
    assert experts.shape == (20, len(layers), model.config.num_experts_per_tok)
    assert torch.equal(experts.transpose(0, 1), torch.stack(seen[: len(layers)]))


@pytest.mark.parametrize("format", FORMATS)
def test_refresh_takes_over_live_weights(make_family, format):
    live, other = make_family("deepseek_v3", 1), make_family("deepseek_v3", 2)
    tokens, tables = torch.randint(0, 400, (1, 20)), tables_for(1, 20)
    runner = runner_of(live, format, 1, 20)
    before = runner.forward(whole(tokens, tables)).logits_WV.clone()
    live.load_state_dict(other.state_dict())
    runner.refresh()
    after = runner.forward(whole(tokens, tables)).logits_WV.clone()
    fresh = runner_of(other, format, 1, 20).forward(whole(tokens, tables)).logits_WV
    assert torch.equal(after, fresh) and not torch.equal(before, after)


def test_copied_blocks_hold_the_same(make_family):
    model = make_family("llama", 3)
    tokens = torch.randint(0, 400, (1, 20))
    runner = runner_of(model, "bfloat16", 2, 32)
    first = runner.forward(whole(tokens, np.array([[0, 1]], dtype=np.int32), [19])).logits_WV.clone()
    runner.copy_block(0, 2)
    runner.copy_block(1, 3)
    again = Batch(ints([int(tokens[0, 19])]), ints([19]), ints([0]), np.array([[2, 3]], dtype=np.int32), ints([0]))
    assert torch.equal(runner.forward(again).logits_WV, first)


@pytest.mark.parametrize("format", FORMATS)
def test_nan_stays_in_its_own_row(make_family, format):
    model = make_family("llama", 3)
    with torch.no_grad():
        model.embed_tokens.weight[7] = float("nan")  # untied: the head is sound
    tokens = torch.tensor([[5] * 18, [7] * 18])
    logits = runner_of(model, format, 2, 18).forward(whole(tokens, tables_for(2, 18))).logits_WV.unflatten(0, (2, 18))
    assert logits[0].isfinite().all() and not logits[1].isfinite().any()


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("bad", [float("nan"), 1e12])
def test_weights_that_integers_cannot_hold_are_refused(make_family, format, bad):
    model = make_family("llama", 3)
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight[3, 4] = bad
    with pytest.raises(UserError, match=format):
        NativeRunner(model, format)


def test_the_crew_finds_what_is_faster_and_looks_again():
    crew, slow = Crew(2), {1: 1.0, 2: 3.0}
    chosen = []
    for step in range(600):
        if step == 300:
            slow = {1: 3.0, 2: 1.0}  # the other program on this machine has ended
        threads = crew.choose(5)
        chosen.append(threads)
        crew.learn(5, threads, slow[threads])
    assert chosen[20:300].count(1) > 250 and chosen[500:].count(2) > 90
    assert Crew(1).choose(5) == 1
