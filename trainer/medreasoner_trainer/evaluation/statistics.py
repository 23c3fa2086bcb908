"""Means with intervals, per group of cases, and the comparison of two runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medreasoner_trainer.evaluation.case import REASONER_FAILED, SEGMENTER_FAILED, Case
from medreasoner_trainer.evaluation.folder import RunConfig, RunFolder
from medreasoner_trainer.evaluation.words import PromptMode
from napari_medreasoner.core.errors import InputError

__all__ = [
    "MEASURES",
    "Comparison",
    "Estimate",
    "Group",
    "Summary",
    "compare",
    "describe",
    "estimates",
    "summary_of",
]

MEASURES: Final = (
    "iou",
    "hit",
    "pdice",
    "pdice_released",
    "dice",
    "dice_points",
    "dice_box",
    "dice_both",
)
"""The scores of a case, `hit` (IoU of 0.5 or more) and `dice` (that of the run's prompt mode)."""

_RESAMPLES: Final = 2000
_CHUNK: Final = 200
"""Resamples drawn at a time, which bounds the memory: 14,000 patients take 22 MB."""

Floats = NDArray[np.float64]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """A mean and its 95 % interval, which is None where all cases share one patient or image."""

    mean: float
    interval: tuple[float, float] | None


class Group(_Frozen):
    """Cases that share a modality, a super-category or a category, or all of them.

    Attributes
    ----------
    n, clusters : int
        Cases, and the patients or images they come from.
    refused, unparsed, reasoner_failed : int
        True refusals; texts of which nothing could be used; engine faults. All score 0.
    half : int
        Answers of which only box or points could be used.
    segmenter_failed : int
        Answers with which the segmenter failed in one prompt mode at least.
    seconds : float
        Mean time of a case.
    measures : dict of str to Estimate
        Of `MEASURES`.
    """

    n: int
    clusters: int
    refused: int
    unparsed: int
    reasoner_failed: int
    half: int
    segmenter_failed: int
    seconds: float
    measures: dict[str, Estimate]

    @property
    def without_answer(self) -> int:
        """The paper's "# Ref.": cases with nothing to score, for whatever reason."""
        return self.refused + self.unparsed + self.reasoner_failed


class Summary(_Frozen):
    """The content of `summary.json`.

    Attributes
    ----------
    configuration : RunConfig
        Of the run.
    boxes, points : bool
        Whether any answer held a usable box, and a usable pair of points.
    problems : int
        Records left out.
    overall : Group
        All cases.
    modality, supercategory, category : dict of str to Group
        By the value of that field; an empty value is left out.
    """

    configuration: RunConfig
    boxes: bool
    points: bool
    problems: int
    overall: Group
    modality: dict[str, Group]
    supercategory: dict[str, Group]
    category: dict[str, Group]


class Comparison(_Frozen):
    """One measure of two runs over the cases they share, second minus first.

    Attributes
    ----------
    n : int
        Shared cases.
    difference : Estimate
        Mean difference.
    better, worse : int
        Cases in which the second run scores higher, lower.
    p : float
        Two-sided, of a permutation test that swaps the runs within each patient or image.
    """

    n: int
    difference: Estimate
    better: int
    worse: int
    p: Annotated[float, Field(ge=0, le=1)]


def _values(case: Case, mode: PromptMode) -> tuple[float, ...]:
    """The measures of one case, in the order of `MEASURES`."""
    scores = {"hit": float(case.iou >= 0.5), "dice": case.dice(mode)}
    return tuple(scores[name] if name in scores else getattr(case, name) for name in MEASURES)


def _clusters(groups: Sequence[str], values: Floats) -> tuple[Floats, Floats]:
    """Sums of the values (cluster, measure) and number of cases (cluster,) by group."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, index, values)
    return sums, counts.astype(np.float64)


def estimates(groups: Sequence[str], values: Floats, seed: int) -> list[Estimate]:
    """Means of columns, with intervals by resampling whole patients (percentile bootstrap).

    Parameters
    ----------
    groups : sequence of str
        Patient or image of each case.
    values : array of float, shape (case, measure)
        What is averaged over cases.
    seed : int
        Of the resamples.
    """
    means = values.mean(axis=0)
    sums, counts = _clusters(groups, values)
    if len(counts) < 2:
        return [Estimate(mean=float(mean), interval=None) for mean in means]
    rng = np.random.default_rng(seed)
    even = np.full(len(counts), 1 / len(counts))
    resampled = []
    for _ in range(_RESAMPLES // _CHUNK):
        times = rng.multinomial(len(counts), even, size=_CHUNK).astype(np.float64)
        resampled.append((times @ sums) / (times @ counts)[:, None])
    low, high = np.percentile(np.concatenate(resampled), (2.5, 97.5), axis=0)
    return [
        Estimate(mean=float(mean), interval=(float(a), float(b)))
        for mean, a, b in zip(means, low, high, strict=True)
    ]


def describe(cases: Sequence[Case], mode: PromptMode, seed: int) -> Group:
    """Sum up some cases, of which there must be one at least."""
    values = np.array([_values(case, mode) for case in cases])
    groups = [case.group for case in cases]
    faults = Counter(case.fault for case in cases)
    without = sum(not case.parsed for case in cases)
    refused = sum(case.refused for case in cases)
    found = estimates(groups, values, seed)
    return Group(
        n=len(cases),
        clusters=len(set(groups)),
        refused=refused,
        unparsed=without - refused - faults[REASONER_FAILED],
        reasoner_failed=faults[REASONER_FAILED],
        half=sum(case.parsed and (case.bbox is None or case.points is None) for case in cases),
        segmenter_failed=faults[SEGMENTER_FAILED],
        seconds=float(np.mean([case.seconds for case in cases])),
        measures=dict(zip(MEASURES, found, strict=True)),
    )


def summary_of(folder: RunFolder) -> Summary:
    """Sum up the finished cases of a run, overall and by group.

    Raises
    ------
    InputError
        When there is no case.
    ReadError
        When the folder holds no run, or a damaged one.
    """
    config, cases = folder.config(), folder.cases()
    if not cases:
        raise InputError(f"{folder.path} holds no finished case, so there is nothing to sum up.")
    return Summary(
        configuration=config,
        boxes=any(case.bbox for case in cases),
        points=any(case.points for case in cases),
        problems=len(folder.problems()),
        overall=describe(cases, config.prompt_mode, config.seed),
        modality=_by("modality", cases, config),
        supercategory=_by("supercategory", cases, config),
        category=_by("category", cases, config),
    )


def _by(field: str, cases: Sequence[Case], config: RunConfig) -> dict[str, Group]:
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[getattr(case, field)].append(case)
    return {
        name: describe(found[name], config.prompt_mode, config.seed)
        for name in sorted(found)
        if name
    }


def compare(
    first: Iterable[Case], second: Iterable[Case], modes: tuple[PromptMode, PromptMode], seed: int
) -> Mapping[str, Comparison]:
    """Compare two runs case by case, for each of `MEASURES`.

    Parameters
    ----------
    first, second : iterable of Case
        Of the two runs.
    modes : (str, str)
        Their prompt modes.
    seed : int
        Of the resamples and the permutations.

    Raises
    ------
    InputError
        When they have no case in common.
    """
    known = {case.id: case for case in first}
    pairs = [(known[case.id], case) for case in second if case.id in known]
    if not pairs:
        raise InputError("The two runs have no case in common; evaluate both on the same data.")
    before = np.array([_values(case, modes[0]) for case, _ in pairs])
    after = np.array([_values(case, modes[1]) for _, case in pairs])
    groups = [case.group for case, _ in pairs]
    differences = after - before
    found = estimates(groups, differences, seed)
    chances = _chances(_clusters(groups, differences)[0], seed)
    return {
        name: Comparison(
            n=len(pairs),
            difference=found[column],
            better=int((differences[:, column] > 0).sum()),
            worse=int((differences[:, column] < 0).sum()),
            p=chances[column],
        )
        for column, name in enumerate(MEASURES)
    }


def _chances(sums: Floats, seed: int) -> list[float]:
    """Two-sided p of each column's total under random signs of the clusters."""
    rng = np.random.default_rng(seed)
    total = np.abs(sums.sum(axis=0))
    beyond = np.ones(sums.shape[1])  # the observed signs are one of the permutations
    for _ in range(_RESAMPLES // _CHUNK):
        signs = rng.integers(0, 2, size=(_CHUNK, len(sums))) * 2.0 - 1
        beyond += (np.abs(signs @ sums) >= total - 1e-12).sum(axis=0)
    return [float(count) / (_RESAMPLES + 1) for count in beyond]
