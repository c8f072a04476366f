"""The same numbers as Hugging Face transformers: logits, gradients, MTP, tokens, and folders in both directions."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import foreign, foreign_gradient, largest_difference, text, transformers

from kogia.errors import KogiaError
from kogia.models.folder import load_model, save_model
from kogia.models.names import select, stored_tensors
from kogia.models.rotary import RopeScaling
from kogia.text.prompts import encode_chat

YARN = RopeScaling("yarn", 40.0, 16, mscale=1.0, mscale_all_dim=1.0)  # V3's, over a short context


SHAPES = [
    {},
    {"q_lora_rank": None},
    {"n_group": 1, "topk_group": 1},
    {"n_group": 2, "topk_group": 1},
    {"n_group": 4, "topk_group": 1, "num_experts_per_tok": 2},
    {"n_group": 4, "topk_group": 4, "num_experts_per_tok": 5},
    {"n_routed_experts": 12, "n_group": 4, "topk_group": 3, "num_experts_per_tok": 3},
    {"first_k_dense_replace": 0},
    {"first_k_dense_replace": 2},
    {"num_hidden_layers": 3, "first_k_dense_replace": 1},
    {"num_attention_heads": 1},
    {"num_attention_heads": 5, "qk_nope_head_dim": 12, "qk_rope_head_dim": 6, "v_head_dim": 20, "kv_lora_rank": 24},
    {"n_shared_experts": 2},
    {"norm_topk_prob": False, "routed_scaling_factor": 1.0},
    {"rope_theta": 500.0},
    {"rms_norm_eps": 1e-3},  # the norms of the latents keep 1e-6 in transformers and in DeepSeek's own code
    {"tie_word_embeddings": True},
    {"num_nextn_predict_layers": 0},
    {"rope_scaling": YARN},
    {"rope_scaling": RopeScaling("yarn", 4.0, 64, mscale=0.707, mscale_all_dim=0.707), "q_lora_rank": None},
    {"rope_scaling": RopeScaling("yarn", 4.0, 64)},  # no mscale: the temperature is in the rotation, as in Qwen
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_logits(make_model, tmp_path, changes):
    model = make_model(61, initializer_range=0.1, **changes)
    save_model(tmp_path, model)
    assert largest_difference(model, tmp_path) < 1e-5


@st.composite
def shapes(draw):
    """Any configuration whose numbers fit together."""
    groups = draw(st.sampled_from([1, 2, 4]))
    a_group = draw(st.integers(2, 4))
    topk_group = draw(st.integers(1, groups))
    layers = draw(st.integers(1, 3))
    return {
        "n_group": groups,
        "n_routed_experts": groups * a_group,
        "topk_group": topk_group,
        "num_experts_per_tok": draw(st.integers(1, min(4, topk_group * a_group))),
        "n_shared_experts": draw(st.integers(1, 2)),
        "num_hidden_layers": layers,
        "first_k_dense_replace": draw(st.integers(0, layers)),
        "num_attention_heads": draw(st.integers(1, 4)),
        "q_lora_rank": draw(st.sampled_from([None, 8, 24])),
        "kv_lora_rank": draw(st.sampled_from([4, 16, 20])),
        "qk_nope_head_dim": draw(st.sampled_from([4, 16])),
        "qk_rope_head_dim": draw(st.sampled_from([2, 4, 8])),
        "v_head_dim": draw(st.sampled_from([4, 12, 16])),
        "norm_topk_prob": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "num_nextn_predict_layers": draw(st.integers(0, 1)),
        "rope_scaling": draw(st.sampled_from([None, YARN])),
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(shapes())
def test_logits_of_any_shape(make_model, tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("model")
    model = make_model(62, initializer_range=0.1, vocab_size=96, hidden_size=32, **changes)
    save_model(folder, model)
    assert largest_difference(model, folder) < 1e-5


@torch.no_grad()
def test_absorbed_decoding_against_transformers_cache(make_model, tmp_path):
    """Token by token through our latent cache and their key-value cache."""
    model = make_model(63, initializer_range=0.1, rope_scaling=YARN)
    save_model(tmp_path, model)
    other, tokens = foreign(tmp_path), text(model, length=16)
    cache = torch.zeros(model.config.num_hidden_layers, 2, 16, model.config.cache_width)
    past = None
    for i in range(16):
        mine = model.logits(model.decode(tokens[:, i : i + 1], cache, torch.full((2, 1), i)))
        out = other(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        torch.testing.assert_close(mine, out.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"rope_scaling": YARN}, {"q_lora_rank": None, "tie_word_embeddings": True}], ids=str
)
def test_gradients(make_model, tmp_path, changes):
    model = make_model(64, initializer_range=0.1, num_nextn_predict_layers=0, **changes)
    save_model(tmp_path, model)
    other, tokens = foreign(tmp_path), text(model, rows=3)
    losses = []
    for logits in (model(tokens), other(tokens).logits):
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    compared = 0
    for stored in stored_tensors(model.config, mine):
        a, b = select(mine[stored.parameter].grad, stored), foreign_gradient(theirs, stored)
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-9, stored.name
        compared += a.numel()
    assert compared == sum(p.numel() for p in mine.values()) == sum(p.numel() for p in theirs.values())


# multi-token prediction ----------------------------------------------------------------------------------------------


@pytest.fixture
def mtp_pair(make_model, tmp_path):
    """Our model, and transformers' MTP layers read from the very folder we wrote."""
    from transformers.modeling_layers import MtpModel

    model = make_model(65, initializer_range=0.1, num_nextn_predict_layers=3, num_hidden_layers=3, rope_scaling=YARN)
    save_model(tmp_path, model)
    other = foreign(tmp_path)
    # transformers looks for layer 61 only, that of the published model
    other._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{i}\." for i in range(3, 6)]
    return model, other, MtpModel.from_pretrained(other).eval()


@torch.no_grad()
def test_mtp_layers(mtp_pair):
    model, other, mtp = mtp_pair
    T, tokens = 12, text(model, length=15)
    h = model.hidden_states(tokens[:, :T])
    torch.testing.assert_close(h, other.model(tokens[:, :T]).last_hidden_state, rtol=0, atol=1e-5)
    theirs = h
    for k, mine in enumerate(model.further_hidden_states(h, tokens), start=1):
        positions = torch.arange(k, k + T).unsqueeze(0)
        theirs = mtp.forward_layer(k - 1, theirs, positions, None, input_ids=tokens[:, k : k + T])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)
        torch.testing.assert_close(model.logits(mine), mtp._project_to_logits(theirs), rtol=0, atol=1e-4)


def test_mtp_weights_map_one_to_one(mtp_pair):
    """Every MTP tensor of ours is one of theirs and the other way round."""
    model, _, mtp = mtp_pair
    theirs = {name: t for name, t in mtp.state_dict().items() if name.startswith("layers.")}
    mine = {name.removeprefix("mtp."): t for name, t in model.state_dict().items() if name.startswith("mtp.")}
    names = {}
    for name in mine:
        k, rest = name.split(".", 1)
        rest = {"norm.weight": "post_norm.weight"}.get(rest, rest.replace("block.", "mtp_block.", 1))
        names[name] = f"layers.{k}.{rest}"
    assert set(names.values()) == set(theirs)
    assert all(torch.equal(mine[name], theirs[other]) for name, other in names.items())


# folders from elsewhere ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_folder_that_transformers_wrote(make_model, tmp_path):
    model = make_model(66, initializer_range=0.1, num_nextn_predict_layers=0, rope_theta=3000.0)
    save_model(tmp_path / "ours", model)
    foreign(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = load_model(tmp_path / "theirs").eval()
    assert again.config == model.config
    assert torch.equal(again(text(model)), model(text(model)))


def test_config_means_the_same_to_both(make_model, tmp_path):
    model = make_model(q_lora_rank=None, rope_theta=3000.0)
    save_model(tmp_path, model)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.rope_parameters["rope_theta"] == 3000.0 and config.rope_parameters["rope_type"] == "default"
    for name in ("vocab_size", "hidden_size", "n_routed_experts", "topk_group", "q_lora_rank", "kv_lora_rank",
                 "first_k_dense_replace", "routed_scaling_factor", "norm_topk_prob", "max_position_embeddings",
                 "rms_norm_eps", "bos_token_id", "eos_token_id", "num_key_value_heads"):  # fmt: skip
        assert getattr(config, name) == model.config.to_json()[name], name


@torch.no_grad()
def test_greedy_generation(make_model, tiny_tokenizer, tmp_path):
    """Their generate() and our engine say the same."""
    from kogia.engine.engine import Engine
    from kogia.engine.request import SamplingParams

    model = make_model(67, vocab_size=400, initializer_range=0.2)
    save_model(tmp_path, model)
    other = foreign(tmp_path)
    for prompt in ([5, 6, 7], [300], [9] * 20):
        mine = Engine(model, tiny_tokenizer).generate([prompt], [SamplingParams(10, temperature=0.0)])[0].token_ids
        theirs = other.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False)[0, len(prompt) :].tolist()
        assert mine == theirs[: len(mine)] and (len(theirs) == len(mine) or mine[-1] == 1)


# tokens --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign_tokenizer(tiny_tokenizer, make_model, tmp_path_factory):
    """Our folder's tokenizer as transformers reads it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_model(folder, make_model(vocab_size=400))
    tiny_tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


TEXTS = [
    "The quick brown fox, 3 + 4 = 7!",
    "다람쥐 헌 쳇바퀴에 타고파. 123개",
    "def f(x):\n\treturn x**2  # 값\r\n\n\nprint(f(12345))",
    "  leading and trailing  ",
    "👩‍👩‍👧‍👦🇰🇷 漢字 ½",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids(tiny_tokenizer, foreign_tokenizer, text):
    ids = tiny_tokenizer.encode(text)
    assert foreign_tokenizer(text)["input_ids"] == ids
    assert foreign_tokenizer.decode(ids) == tiny_tokenizer.decode(ids) == text


def test_special_tokens(tiny_tokenizer, foreign_tokenizer):
    assert (foreign_tokenizer.bos_token_id, foreign_tokenizer.eos_token_id) == (tiny_tokenizer.bos, tiny_tokenizer.eos)
    assert len(foreign_tokenizer) == tiny_tokenizer.vocab_size
    reply = "<think>\n3 + 4\n</think>\n\n7<｜end▁of▁sentence｜>"
    assert foreign_tokenizer(reply)["input_ids"] == tiny_tokenizer.encode_trusted(reply)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


THOUGHT = "<think>\n2 + 2 = 4\n</think>\n\nIt is 4."

CONVERSATIONS = {
    "one question": [said("user", "What is 3 + 4?")],
    "Korean": [said("user", "3 + 4 값은 얼마입니까?")],
    "system": [said("system", "Be brief."), said("user", "Hi")],
    "several turns": [said("user", "2 + 2?"), said("assistant", "4"), said("user", "그리고?")],
    "thinking is left out": [said("user", "2 + 2?"), said("assistant", THOUGHT), said("user", "Sure?")],
    "developer": [said("developer", "Be brief."), said("user", "Hi")],
    "thinking that never ended": [said("user", "a"), said("assistant", "<think>\nb"), said("user", "c")],
    "spaces around": [said("user", "  a\n"), said("assistant", "\n\n b \n"), said("user", "\nc")],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_chat_template(tiny_tokenizer, foreign_tokenizer, name):
    """The template in the folder says what `encode_chat` says, so that other servers prompt the model as we do."""
    theirs = foreign_tokenizer.apply_chat_template(CONVERSATIONS[name], add_generation_prompt=True, tokenize=False)
    mine = encode_chat(tiny_tokenizer, CONVERSATIONS[name])
    assert theirs == tiny_tokenizer.decode(mine)
    assert foreign_tokenizer(theirs)["input_ids"] == mine


@pytest.mark.parametrize("reply", ["<think>b</think>c</think>d", "b</think>c", "b <think>c</think>d"])
def test_chat_template_with_markers_where_none_belong(tiny_tokenizer, foreign_tokenizer, reply):
    """Only the text can agree: a template cannot keep what looks like a special token from becoming one."""
    messages = [said("user", "a"), said("assistant", reply), said("user", "e")]
    theirs = foreign_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert theirs == tiny_tokenizer.decode(encode_chat(tiny_tokenizer, messages))


def test_an_unknown_role_is_refused_by_both(tiny_tokenizer, foreign_tokenizer):
    messages = [said("tool", "x"), said("user", "y")]
    with pytest.raises(KogiaError):
        encode_chat(tiny_tokenizer, messages)
    with pytest.raises(Exception, match="role"):
        foreign_tokenizer.apply_chat_template(messages, add_generation_prompt=True)


def test_generation_config_is_read(make_model, tmp_path):
    save_model(tmp_path, make_model(), {"temperature": 0.6, "top_p": 0.95})
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (config.temperature, config.top_p, config.eos_token_id, config.do_sample) == (0.6, 0.95, 1, True)
    assert json.loads((tmp_path / "generation_config.json").read_text())["bos_token_id"] == 0
