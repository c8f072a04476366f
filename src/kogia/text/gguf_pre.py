"""How text is cut before byte-level BPE merges: `tokenizer.ggml.pre` and what stands in a tokenizer.json.

GGUF names the cutting and llama.cpp knows the names; the regular expressions are those of the models' own
tokenizer.json files. A tokenizer whose cutting has no name gets the nearest one, with a measured warning.
"""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

from kogia.errors import FolderError
from kogia.formats.untrusted import shown

DIGITS = "digits"  # in `splits`: every number character on its own (tokenizers' Digits)
GPT2 = "gpt2"  # in `splits`: GPT-2's regular expression, as tokenizers' ByteLevel has it built in
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = (  # of Latin, Greek, Cyrillic, Georgian, Cherokee and Glagolitic writing
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"  # in effect the Han, Hangul and some other letters


@dataclass(frozen=True)
class Cutting:
    """splits: what the text is cut by, one after another. nfc: whether it is composed first (llama.cpp does not).
    whole: whether a piece that is a token is never looked at as its parts (tokenizers' ignore_merges)."""

    splits: tuple[str, ...]
    nfc: bool = False
    whole: bool = False


_QWEN2 = Cutting((_CONTRACTIONS + _WORDS + r"\p{N}" + _REST,), nfc=True)
CUTTINGS: dict[str, Cutting] = {
    "gpt-2": Cutting((GPT2,)),
    "smollm": Cutting((DIGITS, GPT2)),
    "llama-bpe": Cutting((_CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST,), whole=True),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "deepseek-llm": Cutting(("[\r\n]", rf"\s?[{_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CJK, DIGITS)),
    "deepseek-coder": Cutting(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, DIGITS)),
    "deepseek-v3": Cutting(
        (
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        )
    ),
    # what llama.cpp does when a file names none: its own choice, which no model was trained with
    "default": Cutting((r"[\p{P}\$\+<=>\^~\|]+", GPT2_REGEX, r"\p{N}+", "[0-9][0-9][0-9]")),
}
SAMPLES = (
    "The quick brown fox jumps over the lazy dog; it didn't mind, and they're friends since 1987.",
    "First, 3 + 4 = 7. Then 12 x 34 = 408, so the answer is \\boxed{408}.\n\nIs 1,234.5 more than 999? Yes.",
    "Question: what is 17 - 29 + 105?\nLet's see: 17 - 29 = -12, and -12 + 105 = 93.\n",
    "먼저 3 + 4 = 7입니다. 그러면 12 곱하기 34는 408이므로, 답은 \\boxed{408}입니다.\n",
    "다람쥐 헌 쳇바퀴에 타고파. 안녕하세요, 세계! 오늘은 2026년 11월 22일(일)입니다.",
    "나라의 말이 중국과 달라 한자와는 서로 통하지 아니하므로…",
    "def add(left: int, right: int) -> int:\n    return left + right  # 12345\n\n\nfor i in range(10):\n\tprint(i)\n",
    "if (x == 0) { return a[i]->b; } /* done */\r\n  ++count;\r\n",
    "- one\n- two\n\n  * nested\n\n```py\nx = {'k': 1}\n```\n",
    "  leading spaces, trailing spaces   \n   \n\ttabs\tand\tmore",
    "café naïve Größe Übung, 中文测试，日本語テスト。 Привет, мир! 🐳🎉 ½ ² π≈3.14159",
    "https://example.org/a_b?c=1&d=%20 <user@example.org> #tag C++ 50% $9.99 'quoted' \"it's\"",
)  # fmt: skip


def pre_tokenizer(cutting: Cutting) -> dict[str, Any]:
    """The cutting as a tokenizer.json has it, ending in the step that writes bytes as letters."""
    steps: list[dict[str, Any]] = []
    for split in cutting.splits:
        if split == DIGITS:
            steps.append({"type": "Digits", "individual_digits": True})
        elif split != GPT2:
            steps.append({"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False})
    letters = {"add_prefix_space": False, "trim_offsets": True, "use_regex": GPT2 in cutting.splits}
    return {"type": "Sequence", "pretokenizers": [*steps, {"type": "ByteLevel", **letters}]}


def cutting_named(name: str) -> Cutting:
    """The cutting that a GGUF names.

    Raises:
        FolderError: a name that this version does not know.
    """
    if name not in CUTTINGS:
        raise FolderError(f"tokenizer.ggml.pre is {shown(name)}: this version knows {', '.join(CUTTINGS)}")
    return CUTTINGS[name]


def recognise(backend: dict[str, Any]) -> str | None:
    """The name of a tokenizer.json's cutting; None if llama.cpp has no name for exactly it."""
    steps = _steps(backend.get("pre_tokenizer") or {})
    normalised = _without_ornaments(backend.get("normalizer"))
    for name, cutting in CUTTINGS.items():
        same = steps == _steps(pre_tokenizer(cutting)) and normalised == ([{"type": "NFC"}] if cutting.nfc else [])
        if same and name != "default" and bool(backend["model"].get("ignore_merges")) == cutting.whole:
            return name
    return None


def nearest(backend: Backend) -> tuple[str, int]:
    """The name of the cutting that gives the same tokens for most of `SAMPLES`, and for how many it does not."""
    wanted = [backend.encode(text, add_special_tokens=False).ids for text in SAMPLES]
    differing = {}
    for name, cutting in CUTTINGS.items():
        changed = json.loads(backend.to_str())
        changed["normalizer"], changed["pre_tokenizer"] = None, pre_tokenizer(cutting)
        changed["model"]["ignore_merges"] = cutting.whole
        other = Backend.from_str(json.dumps(changed))
        got = [other.encode(text, add_special_tokens=False).ids for text in SAMPLES]
        differing[name] = sum(one != another for one, another in zip(wanted, got, strict=True))
    best = min(differing, key=lambda name: (differing[name], name == "default"))
    return best, differing[best]


def _steps(pre: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps in one list, without what does not change the tokens."""
    if pre.get("type") == "Sequence":
        return [step for part in pre["pretokenizers"] for step in _steps(part)]
    return [{key: value for key, value in pre.items() if key != "trim_offsets"}]


def _without_ornaments(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    if normalizer.get("type") == "Sequence":
        return [step for part in normalizer["normalizers"] for step in _without_ornaments(part)]
    return [normalizer]
