"""Which structure a question asks about: text similarity to authored cue phrases."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion

__all__ = ["Catalogue", "Match"]


_OTHER_SIDE: Final = 0.4
"""Factor for the left one of a pair when only the right one was asked for, and vice versa."""

_OTHER_MODALITY: Final = 0.5
"""Factor for a structure that training never saw in the given modality."""

_FAMILIARITY: Final = 0.75
_WORDS_SHARE: Final = 0.7
_BEST_SHARE: Final = 0.6

_VIEWER: Final = re.compile(
    r"\b(left|right)(?=[\w\s-]{0,12}\b(?:of|in|on) (?:the|this) (?:image|picture|screen|display)\b)"
    r"|\b(?:image|picture|screen)'?s? (left|right)\b",
)
_SWAPPED: Final = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True)
class Match:
    """A structure and how similar the question is to its cue phrases, 0 to 1."""

    name: str
    similarity: float


class Catalogue:
    """Cue phrases of all structures, ready to be compared with questions.

    Parameters
    ----------
    modalities : dict of str to frozenset of str
        Modalities in which training saw each structure; a structure that is missing was
        never seen.
    """

    def __init__(self, modalities: dict[str, frozenset[str]]) -> None:
        text = (files(__package__) / "structures.toml").read_text("utf-8")
        table = tomllib.loads(text)
        phrases = {name: _phrases(cues) for name, cues in table["structures"].items()}
        self._stop = frozenset(table["stop_words"])
        self._spellings: dict[str, str] = table["modalities"]
        self._modalities = modalities
        self._names = list(phrases)
        self._owner = np.repeat(np.arange(len(phrases)), [len(cues) for cues in phrases.values()])
        cues = [self._subject(_plain(cue)) for group in phrases.values() for cue in group]
        wholes = [self._subject(_plain(" ".join(group))) for group in phrases.values()]
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
        self._vectorizer = FeatureUnion(
            [("words", self._words), ("letters", letters)],
            transformer_weights={
                "words": np.sqrt(_WORDS_SHARE),
                "letters": np.sqrt(1 - _WORDS_SHARE),
            },
        )
        self._cues = self._vectorizer.fit_transform(cues)
        self._wholes = self._vectorizer.transform(wholes)

    def modality(self, given: str) -> str:
        """Name training uses for a modality; empty when it is none of them."""
        known = {name.casefold(): name for found in self._modalities.values() for name in found}
        plain = given.strip().casefold()
        return known.get(plain) or self._spellings.get(plain, "")

    def match(self, question: str, modality: str) -> list[Match]:
        """All structures, most similar first, ties in the order of the catalogue.

        Parameters
        ----------
        question : str
            As typed.
        modality : str
            As given by `modality`; empty takes all alike.
        """
        plain = _plain(question)
        subject = self._subject(plain)
        asked = self._vectorizer.transform([subject]) * self._familiarity(subject)
        cues: NDArray[np.float64] = (self._cues @ asked.T).toarray().ravel()
        best = np.zeros(len(self._names))
        np.maximum.at(best, self._owner, cues)
        whole = (self._wholes @ asked.T).toarray().ravel()
        similarity = _BEST_SHARE * best + (1 - _BEST_SHARE) * whole
        matches = [
            # Rounded, so that equal cues of a left and a right organ tie exactly.
            Match(name, round(float(value) * self._discount(name, plain, modality), 6))
            for name, value in zip(self._names, similarity, strict=True)
        ]
        return sorted(matches, key=lambda match: -match.similarity)

    def _subject(self, plain: str) -> str:
        """Words that say what is meant: sides are judged apart, and asking is no subject."""
        words = re.findall(r"[a-z0-9]{2,}", plain)
        return " ".join(word for word in words if word not in self._stop | _SWAPPED.keys())

    def _familiarity(self, subject: str) -> float:
        """Share of words that occur in the catalogue at all, to a power.

        Without it one shared word in an unrelated sentence would weigh as much as a
        whole sentence of shared words.
        """
        words = subject.split()
        known = sum(word in self._words.vocabulary_ for word in words)
        return float((known / len(words)) ** _FAMILIARITY) if words else 0.0

    def _discount(self, name: str, question: str, modality: str) -> float:
        factor = 1.0
        side, _, rest = name.partition(" ")
        sides = {word for word in _SWAPPED if re.search(rf"\b{word}\b", question)}
        if side in _SWAPPED and f"{_SWAPPED[side]} {rest}" in self._names:
            factor *= _OTHER_SIDE if sides == {_SWAPPED[side]} else 1.0
        seen = self._modalities.get(name)
        if modality and seen is not None and modality not in seen:
            factor *= _OTHER_MODALITY
        return factor


def _phrases(cues: list[str]) -> list[str]:
    """The first cue lists names, each of which is a phrase of its own."""
    return [*cues[0].split(", "), *cues[1:]]


def _plain(text: str) -> str:
    """Lower case, and sides of the picture turned into sides of the patient.

    In the radiological convention the patient's right is at the picture's left.
    """
    lower = text.casefold().replace("\u2019", "'")
    return _VIEWER.sub(
        lambda found: found.group().replace(
            found.group(1) or found.group(2), _SWAPPED[found.group(1) or found.group(2)]
        ),
        lower,
    )
