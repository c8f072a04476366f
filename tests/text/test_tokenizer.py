"""The tokenizer: nothing is lost, nothing from outside becomes special, nothing half comes out."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from kogia.errors import CorpusError, FolderError
from kogia.text.tokenizer import SPECIALS, Detokenizer, Tokenizer, is_control, load_tokenizer, train_tokenizer

SAMPLES = [
    "Hello, world! 3 + 4 = 7.",
    "다람쥐 헌 쳇바퀴에 타고파. ㅋㅋㅋ 안녕하세요, 세계!",
    "각 각",  # composed and decomposed
    "def f(x):\n\treturn x  # 12345\r\n",
    "👩‍👩‍👧‍👦🇰🇷 emoji ✓ naïve café ﷽ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "  leading, trailing and \n\n\n many   spaces  ",
    "",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip(tiny_tokenizer, text):
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


@given(st.text())
def test_round_trip_of_any_text(tiny_tokenizer, text):
    ids = tiny_tokenizer.encode(text)
    assert tiny_tokenizer.decode(ids) == text
    assert all(0 <= i < tiny_tokenizer.vocab_size for i in ids)


@given(st.lists(st.sampled_from([*SPECIALS, "<", "|", "think", ">", "</", " ", "\n", "<|User|>", "가"]), max_size=8))
def test_plain_text_never_becomes_a_special_token(tiny_tokenizer, pieces):
    text = "".join(pieces)
    ids = tiny_tokenizer.encode(text)
    assert not set(ids) & set(tiny_tokenizer.ids.values())
    assert tiny_tokenizer.decode(ids) == text


@pytest.mark.parametrize("token", SPECIALS)
def test_trusted_text_may_hold_special_tokens(tiny_tokenizer, token):
    special = tiny_tokenizer.ids[token]
    assert tiny_tokenizer.encode_trusted(token) == [special]
    assert tiny_tokenizer.encode_trusted(f"a{token}b") == [
        *tiny_tokenizer.encode("a"), special, *tiny_tokenizer.encode("b"),
    ]  # fmt: skip
    assert tiny_tokenizer.decode([special]) == token


def test_special_ids(tiny_tokenizer):
    """BOS 0 and EOS 1, as in DeepSeek's tokenizers and in the default model configuration."""
    assert [tiny_tokenizer.ids[token] for token in SPECIALS] == list(range(6))
    assert (tiny_tokenizer.bos, tiny_tokenizer.eos) == (0, 1)


@pytest.mark.parametrize("number", ["0", "7", "42", "12345", "9" * 30])
def test_every_digit_is_a_token_of_its_own(tiny_tokenizer, number):
    ids = tiny_tokenizer.encode(number)
    assert [tiny_tokenizer.decode([i]) for i in ids] == list(number)
    in_text = tiny_tokenizer.encode(f"x = {number};")
    holding_digits = [t for t in (tiny_tokenizer.decode([i]) for i in in_text) if any(c.isdigit() for c in t)]
    assert [t.strip() for t in holding_digits] == list(number)


def test_merges_were_learned(tiny_tokenizer):
    """Frequent words take fewer tokens than bytes, in both languages."""
    assert tiny_tokenizer.vocab_size == 400
    assert len(tiny_tokenizer.encode(" return left")) <= 4
    assert len(tiny_tokenizer.encode("안녕하세요")) < len("안녕하세요".encode())


def test_training_is_deterministic(tiny_tokenizer):
    texts = ["한국어와 English and 12 numbers", "def f(): pass"] * 3
    a, b = train_tokenizer(texts, 300), train_tokenizer(texts, 300)
    assert [a.encode(t) for t in SAMPLES] == [b.encode(t) for t in SAMPLES]


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(CorpusError, match=r"vocab_size is 261.* 262"):
        train_tokenizer(["text"], 261)
    assert train_tokenizer(["text"], 262).vocab_size == 262


# folders -------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.ids == tiny_tokenizer.ids and again.vocab_size == tiny_tokenizer.vocab_size
    for text in [*SAMPLES, *SPECIALS]:
        assert again.encode(text) == tiny_tokenizer.encode(text)
        assert again.encode_trusted(text) == tiny_tokenizer.encode_trusted(text)
    again.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe\x00\x01", b'{"model": {"type": "BPE"}}', b"42"],
    ids=repr,
)
def test_broken_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_cut_off_file_is_refused(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FolderError, match=r"tokenizer\.json is not a readable tokenizer"):
        load_tokenizer(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(FolderError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_our_special_tokens_is_refused(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"] = [t for t in values["added_tokens"] if t["content"] != "<think>"]
    values["model"]["vocab"].pop("<think>")
    path.write_text(json.dumps(values))
    with pytest.raises(FolderError, match="no token <think>"):
        load_tokenizer(tmp_path)


def foreign(tokenizer, folder, said: dict | None = None, /, **files) -> None:
    """A folder of somebody else's: no <think>, and the given tokenizer_config.json and other files."""
    tokenizer.save(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<think>", "<thunk>"))
    (folder / "tokenizer_config.json").unlink()
    if said is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def test_stops_are_gathered_from_all_files(tiny_tokenizer, tmp_path):
    foreign(tiny_tokenizer, tmp_path, {}, generation_config={"eos_token_id": [1, 7]}, config={"eos_token_id": 9})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos, tokenizer.stops) == (1, {1, 7, 9})
    assert tokenizer.style == "deepseek-v3"  # by its tokens


def test_kogias_own_stops_with_eos_alone(tiny_tokenizer):
    assert tiny_tokenizer.stops == {tiny_tokenizer.eos} == {tiny_tokenizer.end_of_turn}
    assert tiny_tokenizer.style == "kogia"


def test_a_chat_template_in_a_file_of_its_own_is_recognised(tiny_tokenizer, tmp_path):
    foreign(tiny_tokenizer, tmp_path, {"eos_token": {"content": "<｜end▁of▁sentence｜>"}, "bos_token": None})
    (tmp_path / "chat_template.jinja").write_text("{{ '<|im_start|>' }} ... enable_thinking")
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.style, tokenizer.bos) == ("qwen3", None)
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").style == "qwen3"


def test_the_style_that_is_written_down_counts(tiny_tokenizer, tmp_path):
    foreign(tiny_tokenizer, tmp_path, {"kogia_prompt_style": "deepseek-v2", "chat_template": "<|im_start|>"})
    assert load_tokenizer(tmp_path).style == "deepseek-v2"


@pytest.mark.parametrize(
    ("config", "files", "named"),
    [
        ({"eos_token": "<nope>"}, {}, r"tokenizer\.json: .* no token <nope>"),
        ({"eos_token": "\x1b[2J"}, {}, r"no token '\\x1b\[2J'"),
        ({"eos_token": "\ud800"}, {}, r"tokenizer_config\.json holds half a surrogate pair"),
        ({"eos_token": {"content": "\ud800"}}, {}, r"tokenizer_config\.json holds half a surrogate pair"),
        ({"bos_token": "\ud800"}, {}, r"tokenizer_config\.json holds half a surrogate pair"),
        ({"chat_template": "\ud800"}, {}, r"tokenizer_config\.json holds half a surrogate pair"),
        ({"bos_token": 3}, {}, r"tokenizer_config\.json: bos_token is 3"),
        ({"kogia_prompt_style": ["x"]}, {}, r"kogia_prompt_style is \['x'\]"),
        ([], {}, r"tokenizer_config\.json holds a list"),
        ({}, {"generation_config": {"eos_token_id": "1"}}, r"generation_config\.json: eos_token_id is '1':"),
        ({}, {"config": {"eos_token_id": [1, -1]}}, r"config\.json: eos_token_id is \[1, -1\]"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused_by_name(tiny_tokenizer, tmp_path, config, files, named):
    foreign(tiny_tokenizer, tmp_path, config, **files)
    with pytest.raises(FolderError, match=named) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("said", [None, {"content": None}], ids=str)
def test_an_end_that_is_null_is_one_that_nobody_named(tiny_tokenizer, tmp_path, said):
    foreign(tiny_tokenizer, tmp_path, {"eos_token": said, "bos_token": None})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos, tokenizer.bos) == (1, None)
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").eos == 1


def test_no_known_end_is_refused(tmp_path):
    train_tokenizer(["x"], 262).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace(SPECIALS[1], "<end>"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(FolderError, match="must name it as eos_token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Fuse"}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
    ],
    ids=str,
)
def test_other_kinds_of_tokenizers_are_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], **content}))
    with pytest.raises(FolderError, match=r"tokenizer\.json: .* byte-level BPE only"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_cuts_texts_short_does_not_here(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    values["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(values))
    assert load_tokenizer(tmp_path).encode_trusted("hello world") == tiny_tokenizer.encode_trusted("hello world")


# tokenizer.json from strangers ---------------------------------------------------------------------------------------

BLOW = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 1000}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TEXT, BEGIN = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<think>", "type_id": 0}}
THOUGHT = {"<think>": {"id": "<think>", "ids": [4], "tokens": ["<think>"]}}


def nested(depth: int) -> dict:
    return {"type": "Sequence", "normalizers": [nested(depth - 1)]} if depth else {"type": "NFC"}


def cut(*steps: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def template(*single: dict) -> dict:
    return {"type": "TemplateProcessing", "single": list(single), "pair": [TEXT], "special_tokens": THOUGHT}


def altered(tokenizer, folder, **parts):
    """A folder with parts of tokenizer.json replaced; model: added to it."""
    tokenizer.save(folder)
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"] |= parts.pop("model", {})
    path.write_text(json.dumps(values | parts))
    return folder


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [BLOW] * 3}}, "normalizer has the type Replace"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "normalizer has the type Precomp"),
        ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "normalizer has the type Prepend"),
        ({"normalizer": {"type": ["NFC"]}}, r"normalizer has the type \['NFC'\]"),
        ({"normalizer": {}}, "normalizer has the type None"),
        ({"normalizer": "NFC"}, "normalizer has the type str"),
        ({"normalizer": nested(5)}, "normalizer is nested too deeply"),
        ({"normalizer": nested(200)}, "normalizer is nested too deeply"),
        ({"normalizer": {"type": "Sequence"}}, "normalizer is a Sequence without a list"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 65}}, "normalizer has 65 steps"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "pre_tokenizer has the type FixedLength"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, "pre_tokenizer has the type Metaspace"),
        ({"pre_tokenizer": None}, "pre_tokenizer does not write bytes as letters.* byte-level BPE only"),
        ({"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, "does not write bytes as letters"),
        ({"pre_tokenizer": cut({"type": "Split", "pattern": {"String": "ByteLevel"}, "behavior": "Isolated",
                                "invert": False})}, "does not write bytes as letters"),
        ({"pre_tokenizer": cut(BYTES, BYTES)}, "does not write bytes as letters"),
        ({"decoder": {"type": "Replace", "pattern": {"String": "ByteLevel"}, "content": ""}}, "byte-level BPE only"),
        ({"post_processor": template(*[TEXT] * 9)}, "template has the text 9 times"),
        ({"post_processor": {"type": "Sequence", "processors": [template()]}}, "template has the text 0 times"),
        ({"post_processor": {"type": "TemplateProcessing", "single": 3}}, "template has the text 0 times"),
        ({"post_processor": {"type": "BertProcessing"}}, "post_processor has the type BertProcessing"),
        ({"model": {"continuing_subword_prefix": "####"}}, "continuing_subword_prefix .*byte-level BPE only"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix .*byte-level BPE only"),
        ({"model": {"vocab": {"a": 2**32 - 1}}}, "a token has the id 4294967295: .* up to 16,777,215"),
        ({"model": {"vocab": {"a": -1}}}, "a token has the id -1"),
        ({"added_tokens": [{"id": 2**24, "content": "x"}]}, "a token has the id 16777216"),
        ({"model": {"vocab": []}}, "is not a readable tokenizer"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_a_hostile_tokenizer_asks_for_is_refused_before_it_is_done(tiny_tokenizer, tmp_path, parts, named):
    with pytest.raises(FolderError, match=rf"(?s)tokenizer\.json.*{named}"):
        load_tokenizer(altered(tiny_tokenizer, tmp_path, **parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": nested(3)},
        {"normalizer": {"type": "Sequence", "normalizers": []}},
        {"pre_tokenizer": cut(cut(BYTES))},
        {"padding": {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "x"}},
        {"post_processor": template(BEGIN, TEXT)},
        {"post_processor": {"type": "Sequence", "processors": [BYTES, template(BEGIN, TEXT, BEGIN)]}},
        {"model": {"continuing_subword_prefix": "", "end_of_word_suffix": ""}},
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_honest_tokenizers_say_changes_nothing(tiny_tokenizer, tmp_path, parts):
    tokenizer = load_tokenizer(altered(tiny_tokenizer, tmp_path, **parts))
    assert tokenizer.encode("hello 안녕 12") == tiny_tokenizer.encode("hello 안녕 12")
    assert tokenizer.encode_trusted("<think>hello") == tiny_tokenizer.encode_trusted("<think>hello")


def test_a_key_that_stands_twice_is_refused(tiny_tokenizer, tmp_path):
    """The library might take the other one than was checked."""
    path = altered(tiny_tokenizer, tmp_path) / "tokenizer.json"
    path.write_text(path.read_text().replace('"normalizer"', f'"normalizer": {json.dumps(BLOW)}, "normalizer"', 1))
    with pytest.raises(FolderError, match="names a key twice"):
        load_tokenizer(tmp_path)


class Panic(BaseException):
    """What the library raises when Rust panics is no Exception either."""


@pytest.mark.parametrize(
    ("raised", "becomes"), [(Panic, FolderError), (KeyboardInterrupt, KeyboardInterrupt), (SystemExit, SystemExit)]
)
def test_a_panic_of_the_library_is_a_broken_file(tiny_tokenizer, tmp_path, monkeypatch, raised, becomes):
    tiny_tokenizer.save(tmp_path)

    def fail(_: str):
        raise raised("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr("kogia.text.tokenizer_json.Backend", type("Backend", (), {"from_str": staticmethod(fail)}))
    with pytest.raises(becomes):
        load_tokenizer(tmp_path)


def test_dropout_is_for_training(tiny_tokenizer, tmp_path):
    tokenizer = load_tokenizer(altered(tiny_tokenizer, tmp_path, model={"dropout": 0.5}))
    for encode in (tokenizer.encode, tokenizer.encode_trusted):
        assert {tuple(encode("return left and right")) for _ in range(20)} == {
            tuple(tiny_tokenizer.encode("return left and right"))
        }
    tokenizer.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "tokenizer.json").read_text())["model"]["dropout"] is None


WORDS = ["EOT", "Hello", "ĠEOT"]  # the last is how the vocabulary writes " EOT"


@pytest.fixture(scope="module", params=["whole pieces", "merges"])
def in_words(request):
    """A tokenizer with control tokens that its own vocabulary has, too, and that text becomes without being one."""
    parts = json.loads(train_tokenizer(["EOT Hello EOT Hello EOT"] * 9, 290)._trusted.to_str())
    vocabulary = parts["model"]["vocab"]
    for word in WORDS:
        vocabulary.setdefault(word, len(vocabulary))
    parts["model"]["ignore_merges"] = request.param == "whole pieces"
    ordinary = dict(parts["added_tokens"][0], special=True)
    parts["added_tokens"] += [dict(ordinary, id=vocabulary[word], content=word) for word in WORDS]
    return Tokenizer(Backend.from_str(json.dumps(parts)), config={})


@given(st.lists(st.sampled_from([*WORDS, "E", "O", "T", " ", "Hel", "lo", "\n", "!", "한", *SPECIALS[:2]]), max_size=9))
def test_a_control_token_that_is_a_word_is_spelled_out(in_words, parts):
    text = "".join(parts)
    ids = in_words.encode(text)
    assert not set(ids) & set(in_words.ids.values())
    assert in_words.decode(ids) == text


def test_spelled_out_letter_by_letter_and_only_where_it_must_be(in_words):
    assert set(WORDS) <= set(in_words.ids) and in_words.encode_trusted("EOT") == [in_words.ids["EOT"]]
    assert [in_words.decode([id]) for id in in_words.encode("EOT")] == ["E", "O", "T"]
    assert [in_words.decode([id]) for id in in_words.encode("!EOT")] == ["!", "E", "O", "T"]


def test_a_control_token_that_is_a_byte_is_refused(tiny_tokenizer):
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str())
    backend.add_special_tokens(["A"])
    with pytest.raises(FolderError, match="token A is a control token and also a byte"):
        Tokenizer(backend, config={})


def test_vocab_size_counts_the_models_entries_and_the_largest_added_id(tiny_tokenizer):
    backend = Backend.from_str(tiny_tokenizer._trusted.to_str())
    assert tiny_tokenizer.vocab_size == backend.get_vocab_size(with_added_tokens=False) == 400
    backend.add_special_tokens(["<a>", "<b>"])
    assert Tokenizer(backend, config={}).vocab_size == 402


def test_rows_beyond_the_vocabulary_say_nothing(tiny_tokenizer):
    """Models round their vocabularies up; such a row may be sampled by a model that was never trained."""
    assert tiny_tokenizer.token_bytes(tiny_tokenizer.vocab_size) == b""
    assert tiny_tokenizer.decode([*tiny_tokenizer.encode("가"), 10**6]) == "가"


@pytest.mark.parametrize(
    ("text", "special", "control"),
    [
        ("<think>", False, True), ("｜DSML｜", False, True), ("<dsml:", False, True), ("[INST]", False, True),
        ("õ", False, False), ("  \n", False, False), ("õ", True, True), ("word", False, True),
    ],
)  # fmt: skip
def test_which_added_tokens_are_control(text, special, control):
    assert is_control(AddedToken(text, special=special)) is control


# streaming -----------------------------------------------------------------------------------------------------------


def stream(tokenizer, ids, sizes) -> list[str]:
    detokenizer, pieces, at = Detokenizer(tokenizer), [], 0
    for size in sizes:
        pieces.append(detokenizer.feed(ids[at : at + size]))
        at += size
    return [*pieces, detokenizer.feed(ids[at:], last=True)]


VALID = st.lists(st.sampled_from("가각힣ㅋ👩‍🚀🇰🇷é漢a \n7<>"), max_size=12).map("".join)


@given(VALID, st.lists(st.integers(0, 3), max_size=40))
def test_detokenizer_never_hands_out_half_a_character(tiny_tokenizer, text, sizes):
    pieces = stream(tiny_tokenizer, tiny_tokenizer.encode(text), sizes)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_detokenizer_hands_out_what_is_certain_at_once(tiny_tokenizer):
    ids = tiny_tokenizer.encode("q가x")
    assert len(ids) > 3  # the syllable is several tokens
    detokenizer = Detokenizer(tiny_tokenizer)
    pieces = [detokenizer.feed([i]) for i in ids]
    assert pieces[0] == "q" and pieces[-1].endswith("x") and "".join(pieces) == "q가x"


def test_bytes_that_never_become_a_character_come_out_at_the_end(tiny_tokenizer):
    half = tiny_tokenizer.encode("🦊")[:-1]
    detokenizer = Detokenizer(tiny_tokenizer)
    assert detokenizer.feed(half) == ""
    assert set(detokenizer.feed([], last=True)) == {"\ufffd"}


def test_bytes_that_never_become_a_character_do_not_hold_up_the_rest(tiny_tokenizer):
    detokenizer = Detokenizer(tiny_tokenizer)
    detokenizer.feed(tiny_tokenizer.encode("🦊")[:-1])
    assert detokenizer.feed(tiny_tokenizer.encode("abc")).endswith("abc")


@pytest.fixture(scope="module")
def overlapping():
    """A tokenizer whose commonest token is the end of one syllable and the beginning of the next, as BPE learns them
    from Korean: all syllables here are EA xx 80, so that 80 EA is the pair seen most."""
    rng = random.Random(0)
    syllables = [bytes((0xEA, middle, 0x80)).decode() for middle in range(0xB0, 0xC0)]
    words = ["".join(rng.choices(syllables, k=8)) for _ in range(300)]
    return train_tokenizer([" ".join(words)], 290), words


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_characters_that_begin_inside_the_token_of_the_one_before(overlapping, size):
    """Word for word no token but the last ends where a character does; still nothing valid may be torn."""
    tokenizer, words = overlapping
    ids = tokenizer.encode(words[0])
    assert len(ids) > 5 and all("\ufffd" in tokenizer.decode([i]) for i in ids)
    for word in words[:20]:
        ids = tokenizer.encode(word)
        pieces = stream(tokenizer, ids, [size] * (len(ids) // size))
        assert "".join(pieces) == word and not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, 399), max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_any_tokens_stream_as_what_they_decode_to(tiny_tokenizer, ids, sizes):
    """Also what a badly trained model says: bytes that form no character, and special tokens among them."""
    assert "".join(stream(tiny_tokenizer, ids, sizes)) == tiny_tokenizer.decode(ids)


def test_special_tokens_stream_as_their_text(tiny_tokenizer):
    ids = tiny_tokenizer.encode_trusted("<think>\n가\n</think>\n\n나")
    assert "".join(stream(tiny_tokenizer, ids, [1] * len(ids))) == "<think>\n가\n</think>\n\n나"
