"""GRPO on real pictures of mixed sizes, with a tiny model, for real."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch

from medreasoner_trainer.training.grpo import check_expansion, collapsed
from medreasoner_trainer.training.policy import banned_tokens
from napari_medreasoner.core.errors import EngineError
from tests.trainer.training.runs import lines_of, prepared, train, weights


def test_three_steps_learn_from_pictures_of_mixed_sizes(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    run = prepared(tiny, data, tmp_path, "optimiser.max_steps=3", "loss.beta=0.01")
    shown = {run.sides.train.scale(index).shown for index in range(len(run.sides.train))}
    assert len(shown) > 1
    ending = run.train(resume=False)
    assert ending.step == 3
    logged = [line for line in lines_of(tmp_path / "log.jsonl") if "reward" in line]
    assert [line["step"] for line in logged] == [1, 2, 3]
    assert all(isfinite(line["loss"]) and isfinite(line["kl"]) for line in logged)
    for name in ("format_think", "format_seg", "bbox_iou", "points_dice"):
        assert f"rewards/{name}/mean" in logged[0]
        assert f"saturated/{name}" in logged[0]
    assert "frac_reward_zero_std" in logged[0]
    phases = {name.removeprefix("seconds/") for name in logged[0] if name.startswith("seconds/")}
    assert phases == {"preprocess", "generate", "log-probabilities", "reward", "update"}


def test_completions_hold_no_tokens_of_pictures_even_from_a_model_that_wants_them(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    run = prepared(tiny, data, tmp_path)
    trainer = run.trainer()
    banned = banned_tokens(run.processor)
    assert len(banned) == 4
    with torch.no_grad():
        head = trainer.model.get_output_embeddings()
        head.weight[banned] = 50 * head.weight.abs().max()
    made: list[list[int]] = []
    generate = trainer._generate_single_turn

    def watched(*args: Any, **options: Any) -> Any:
        result = generate(*args, **options)
        made.extend(result[0])
        return result

    trainer._generate_single_turn = watched
    trainer._generate_and_score_completions([run.sides.train.for_rewards()[0]] * 4)
    assert made
    assert not {token for tokens in made for token in tokens} & set(banned)


def test_a_token_of_pictures_that_comes_through_stops_the_run(
    tiny: Path, data: Path, tmp_path: Path
) -> None:
    run = prepared(tiny, data, tmp_path)
    trainer = run.trainer()
    trainer.generation_config.suppress_tokens = None
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.zero_()
        trainer.model.model.language_model.norm.weight.zero_()
    trainer._banned = frozenset(range(len(run.processor.tokenizer)))
    with pytest.raises(EngineError, match="stands for a picture"):
        trainer._generate_and_score_completions([run.sides.train.for_rewards()[0]] * 4)


@pytest.mark.parametrize(
    ("freeze", "still"),
    [("vision", "visual.blocks"), ("vision and projector", "visual")],
)
def test_what_is_frozen_keeps_its_weights(
    tiny: Path, data: Path, tmp_path: Path, freeze: str, still: str
) -> None:
    # SFT, as its gradient is never zero.
    train(
        tiny,
        data,
        tmp_path,
        f"model.freeze={freeze}",
        "method=sft",
        "batch.generations=1",
        "batch.per_device=2",
        "optimiser.max_steps=1",
    )
    before, after = weights(tiny), weights(tmp_path / "checkpoint-1")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if still in name}
    assert {name for name in changed if ".layers." in name}
    assert bool({name for name in changed if "merger" in name}) == (freeze == "vision")


def test_adapters_are_on_the_language_model_alone(tiny: Path, data: Path, tmp_path: Path) -> None:
    trainer = prepared(tiny, data, tmp_path, "lora.rank=2", "lora.alpha=4").trainer()
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora" in name and "language_model" in name for name in trained)


def test_placeholders_are_written_once_for_vllm() -> None:
    assert collapsed([1, 9, 9, 9, 2, 9, 3, 3], 9) == [1, 9, 2, 9, 3, 3]


def test_prompts_that_vllm_saw_otherwise_are_refused() -> None:
    check_expansion([[1, 2]], [[3, 4]])
    with pytest.raises(EngineError, match="3 tokens where training has 2"):
        check_expansion([[1, 2]], [[1, 2, 2]])
