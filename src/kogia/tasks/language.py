"""Which language a text is written in: the share of its words in the script of the language asked for."""

import re

SCRIPTS = {
    "en": r"A-Za-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F",
    "ko": r"\uAC00-\uD7A3\u1100-\u11FF\u3130-\u318F",
}
_ANY = "".join(SCRIPTS.values())
_PIECE = re.compile("|".join(rf"[{letters}]+" for letters in SCRIPTS.values()) + rf"|(?:(?![{_ANY}])[^\W\d_])+")
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\\[A-Za-z]+|</?think>", re.DOTALL)


def language_share(text: str, language: str) -> float:
    """Share of the words of `text` that are in `language` ("en", "ko"), from 0 to 1 (R1's language consistency
    reward, arXiv 2501.12948, section 2.3.2).

    A word is a run of letters of one script; code in backticks, LaTeX commands, digits and signs are no words of any
    language. A text without words shows no language and gets 0, so that a model gains nothing by falling silent.
    """
    own = re.compile(rf"[{SCRIPTS[language]}]+")
    pieces = _PIECE.findall(_NOT_PROSE.sub(" ", text))
    return sum(own.fullmatch(piece) is not None for piece in pieces) / len(pieces) if pieces else 0.0
