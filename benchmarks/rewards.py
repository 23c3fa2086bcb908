"""Microseconds a completion's reward takes, over a plain implementation of the same formulas.

The reference is written as one would at first: a function a component, each with its own
regular expressions and `json.loads`. "parsed once" is the same with one parse for all. Both are
checked to give the same numbers in the same run. Run: `python benchmarks/rewards.py`.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable
from time import process_time
from typing import Any

from medreasoner_trainer.rewards.score import PRESETS, score
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import RELEASED

_COMPLETIONS = 2048
_CHARACTERS = 1800
_REPEATS = 15
_SENTENCE = "The margin is sharp, and its density is higher than that of the tissue around it. "

_Parsed = tuple[str | None, str | None, Any]
_Part = Callable[[_Parsed, Truth], float]


def _parse(text: str) -> _Parsed:
    think = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
    answer = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    try:
        fields = json.loads(answer.group(1).strip().replace("'", '"')) if answer else None
    except ValueError:
        fields = None
    return think and think.group(1), answer and answer.group(1), fields


def _numbers(parsed: _Parsed, key: str, count: int) -> list[float] | None:
    found = parsed[2].get(key) if isinstance(parsed[2], dict) else None
    return found if isinstance(found, list) and len(found) == count else None


def _pair(parsed: _Parsed) -> list[list[float]] | None:
    points = [_numbers(parsed, "points_1", 2), _numbers(parsed, "points_2", 2)]
    return None if None in points else points  # type: ignore[return-value]


def _log_smooth(value: float) -> float:
    return 0.1 + 0.9 * math.log(3 * value + 1) / math.log(4)


def _exp_smooth(value: float, centre: float) -> float:
    def sigmoid(d: float) -> float:
        return 1 / (1 + math.exp(3 * (d - centre)))

    return 0.1 + 0.9 * (sigmoid(value) - sigmoid(2)) / (sigmoid(0) - sigmoid(2))


def _inside(points: Any, box: Any) -> float:
    hits = [box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in points]
    return math.prod(1 if hit else 0.5 for hit in hits)


def _penalise(reward: float, first: float, second: float) -> float:
    return round(min(0.7 * reward + 0.3 * reward * (first + second) / 2, 1.0), 4)


def _penalise_box(reward: float, box: Any, truth: Truth) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    true = (truth.box[2] - truth.box[0]) * (truth.box[3] - truth.box[1])
    return _penalise(reward, _inside(truth.points, box), 1 if true / 2 < area < 2 * true else 0.5)


def _penalise_points(reward: float, points: Any, truth: Truth) -> float:
    apart = 1 if math.dist(*points) > 10 else 0.5
    return _penalise(reward, _inside(points, truth.box), apart)


def _format_think(parsed: _Parsed, _truth: Truth) -> float:
    return 0.0 if parsed[0] is None else 1.0 if parsed[0].strip() else 0.2


def _format_seg(parsed: _Parsed, _truth: Truth) -> float:
    if parsed[1] is None:
        return 0.0
    if not isinstance(parsed[2], dict):
        return 0.2
    if not {"bbox", "points_1", "points_2"} <= parsed[2].keys():
        return 0.4
    wrong = (_numbers(parsed, "bbox", 4) is None) + (_pair(parsed) is None)
    return (1.0, 0.6, 0.4)[wrong]


def _bbox_iou(parsed: _Parsed, truth: Truth) -> float:
    if (a := _numbers(parsed, "bbox", 4)) is None:
        return 0.0
    b = truth.box
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return _penalise_box(_log_smooth(shared / (sum(areas) - shared)), a, truth)


def _bbox_align(parsed: _Parsed, truth: Truth) -> float:
    if (a := _numbers(parsed, "bbox", 4)) is None:
        return 0.0
    b = truth.box
    mean = sum(abs(p - g) for p, g in zip(a, b, strict=True)) / 4
    return _penalise_box(_exp_smooth(min(mean / math.dist(b[:2], b[2:]), 2), 1), a, truth)


def _bbox_scale(parsed: _Parsed, truth: Truth) -> float:
    if (a := _numbers(parsed, "bbox", 4)) is None:
        return 0.0
    sides = [(box[2] - box[0], box[3] - box[1]) for box in (a, truth.box)]
    area, aspect = (math.log(f(*sides[0]) / f(*sides[1])) for f in (_product, _ratio))
    return _penalise_box(_exp_smooth(min(math.hypot(area, aspect), 1), 0.5), a, truth)


def _product(width: float, height: float) -> float:
    return width * height


def _ratio(width: float, height: float) -> float:
    return width / height


def _points_dice(parsed: _Parsed, truth: Truth) -> float:
    if (points := _pair(parsed)) is None:
        return 0.0
    r, s = (math.dist(*ends) / 2 + 1e-5 for ends in (points, truth.points))
    centres = [[(a + b) / 2 for a, b in zip(*ends, strict=True)] for ends in (points, truth.points)]
    d = math.dist(*centres)
    if d >= r + s:
        shared = 0.0
    elif d <= abs(r - s):
        shared = math.pi * min(r, s) ** 2
    else:
        alpha = math.acos((d * d + r * r - s * s) / (2 * d * r))
        beta = math.acos((d * d + s * s - r * r) / (2 * d * s))
        shared = r * r * (alpha - math.sin(2 * alpha) / 2)
        shared += s * s * (beta - math.sin(2 * beta) / 2)
    union = math.pi * (r * r + s * s) - shared
    return _penalise_points(_log_smooth(2 * shared / union), points, truth)


def _points_align(parsed: _Parsed, truth: Truth) -> float:
    if (points := _pair(parsed)) is None:
        return 0.0
    means = [
        sum(
            abs(p - g)
            for a, b in zip(points, order, strict=True)
            for p, g in zip(a, b, strict=True)
        )
        for order in (truth.points, truth.points[::-1])
    ]
    distance = min(means) / 4 / math.dist(truth.box[:2], truth.box[2:])
    return _penalise_points(_exp_smooth(min(distance, 2), 1), points, truth)


def _points_angle(parsed: _Parsed, truth: Truth) -> float:
    if (points := _pair(parsed)) is None:
        return 0.0
    u, v = ([b - a for a, b in zip(*ends, strict=True)] for ends in (points, truth.points))
    lengths = math.hypot(*u) * math.hypot(*v)
    cosine = abs(sum(a * b for a, b in zip(u, v, strict=True))) / lengths if lengths else 0.0
    return _penalise_points(_log_smooth(cosine), points, truth)


_SOFT = (_format_think, _format_seg, _bbox_iou, _points_dice)
_HARD = (*_SOFT, _bbox_align, _bbox_scale, _points_align, _points_angle)


def _cases() -> list[tuple[str, Truth]]:
    """Completions as a model in training writes them: most answers fair, one in eight spoilt."""
    chance = random.Random(0)  # noqa: S311 - not for secrets
    made = []
    for number in range(_COMPLETIONS):
        x, y, width, height = (chance.randint(20, 400) for _ in range(4))
        box = (x, y, x + width, y + height)
        points = tuple((chance.randint(x, box[2]), chance.randint(y, box[3])) for _ in range(2))
        near = [value + chance.randint(-19, 19) for value in (*box, *points[0], *points[1])]
        near[2], near[3] = max(near[2], near[0] + 1), max(near[3], near[1] + 1)
        answer = json.dumps({"bbox": near[:4], "points_1": near[4:6], "points_2": near[6:]})
        spoilt = (answer.replace('"', "'"), answer[:-9], '{"bbox": [1, 2, 3, 4]}', "no")
        if number % 8 == 0:
            answer = spoilt[number // 8 % len(spoilt)]
        think = (_SENTENCE * (_CHARACTERS // len(_SENTENCE) + 1))[: _CHARACTERS - len(answer) - 33]
        completion = f"<think>{think}</think>\n<answer>{answer}</answer>"
        made.append((completion, Truth(box, points).checked()))  # type: ignore[arg-type]
    return made


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of the quickest of several runs."""
    taken = []
    for _ in range(_REPEATS):
        start = process_time()
        work()
        taken.append(process_time() - start)
    return min(taken)


def _compare(made: list[tuple[str, Truth]], name: str, parts: tuple[_Part, ...]) -> None:
    """Check one preset's numbers, then print one row."""
    preset = PRESETS[name]
    for text, truth in made:
        ours = score(text, truth, preset, RELEASED)
        for part in parts:
            plain = part(_parse(text), truth)
            if abs(ours[part.__name__[1:]] - plain) > 1e-9:
                sys.exit(f"{part.__name__[1:]} differs from {plain}: {text}")
    total = _seconds(lambda: [score(text, truth, preset, RELEASED) for text, truth in made])
    plain = _seconds(lambda: [sum([f(_parse(text), truth) for f in parts]) for text, truth in made])
    once = _seconds(
        lambda: [
            sum([f(p, truth) for f in parts]) for p, truth in ((_parse(t), g) for t, g in made)
        ]
    )
    each = 1e6 / len(made)
    print(
        f"{name:<8}{total * each:>8.1f} us{total * 1e3:>8.1f} ms{plain * each:>9.1f} us"
        f"{plain / total:>8.1f}{once * each:>10.1f} us{once / total:>8.1f}"
    )


def main() -> None:
    """Print one row a preset, and how the time grows with hostile text."""
    made = _cases()
    mean = sum(len(text) for text, _ in made) / len(made)
    print(f"{len(made)} completions of {mean:.0f} characters; Python {sys.version.split()[0]}")
    print("preset       ours        all   reference   ratio parsed once   ratio")
    _compare(made, "soft", _SOFT)
    _compare(made, "hard", _HARD)
    base = _seconds(lambda: [score(text, truth, PRESETS["base"], RELEASED) for text, truth in made])
    print(f"{'base':<8}{base * 1e6 / len(made):>8.1f} us{base * 1e3:>8.1f} ms")
    for count in (1_000, 10_000, 100_000):
        hostile = ("<think>" * count, made[0][1], PRESETS["soft"], RELEASED)
        taken = _seconds(lambda arguments=hostile: score(*arguments))
        print(f"{count:>7,} unclosed tags:{taken * 1e6:>9.1f} us")


if __name__ == "__main__":
    main()
