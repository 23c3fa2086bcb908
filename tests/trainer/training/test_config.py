"""Recipes, overrides and what is refused in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from medreasoner_trainer.training.arguments import check_versions, grpo_arguments, sft_arguments
from medreasoner_trainer.training.arithmetic import Arithmetic
from medreasoner_trainer.training.loading import load_config, recipe_folder, save_config
from medreasoner_trainer.training.scoring import reward_weights
from napari_medreasoner.core.errors import SettingsError

RECIPES = sorted(file.stem for file in recipe_folder().glob("*.yaml"))
DEVICES = {"embedded": 1, "tiny-cpu": 1, "lora-1gpu": 1, "multinode": 16}


def test_the_recipes_of_the_paper_and_of_smaller_machines_ship() -> None:
    assert set(RECIPES) >= {
        "soft",
        "hard",
        "base",
        "base-released",
        "sft",
        "soft-6k-ood",
        "lora-1gpu",
        "paper-8gpu",
        "multinode",
        "tiny-cpu",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_that_trl_takes(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    counts = Arithmetic.of(config, 12_000, DEVICES.get(name, 8))
    if config.method == "sft":
        assert sft_arguments(config, tmp_path, counts, cuda=False).max_steps == counts.steps
        return
    arguments = grpo_arguments(config, tmp_path, counts, [5, 6], cuda=False)
    assert arguments.num_generations == config.batch.generations
    assert not arguments.log_multimodal
    assert len(reward_weights(config.reward)) in (3, 4, 5, 8)
    assert config.data.template.user


def test_a_resolved_recipe_is_read_back_the_same(tmp_path: Path) -> None:
    for name in RECIPES:
        config = load_config(name, ["seed=7"])
        save_config(config, tmp_path / "config.yaml")
        assert load_config(str(tmp_path / "config.yaml")) == config


def test_the_papers_batch_in_trls_terms(tmp_path: Path) -> None:
    config = load_config("paper-8gpu")
    counts = Arithmetic.of(config, 12_288, 8)
    assert (counts.sequences, counts.accumulation, counts.passes) == (2048, 32, 64)
    assert (counts.rollouts, counts.steps) == (480, 960)
    arguments = grpo_arguments(config, tmp_path, counts, [], cuda=False)
    assert arguments.generation_batch_size == 2048
    assert (arguments.loss_type, arguments.beta, arguments.epsilon) == ("grpo", 0.01, 0.2)
    assert (arguments.delta, arguments.learning_rate) == (3.0, 1e-6)
    assert arguments.vllm_max_model_length == 4096
    assert not arguments.vllm_importance_sampling_correction


@pytest.mark.parametrize(("schedule", "end"), [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_every_schedule_warms_up(tmp_path: Path, schedule: str, end: float) -> None:
    chosen = [f"optimiser.schedule={schedule}", "optimiser.warmup_steps=4"]
    config = load_config("tiny-cpu", chosen)
    counts = Arithmetic.of(config, 99, 1)
    arguments = grpo_arguments(config, tmp_path, counts, [], cuda=False)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    rates = get_scheduler(
        arguments.lr_scheduler_type, optimiser, arguments.warmup_steps, num_training_steps=20
    )
    found = []
    for _ in range(21):
        found += rates.get_last_lr()
        optimiser.step()
        rates.step()
    assert found[:5] == [0, 0.25, 0.5, 0.75, 1]
    assert found[-1] == pytest.approx(end)


def test_presets_of_the_loss(tmp_path: Path) -> None:
    def made(*overrides: str) -> object:
        config = load_config("tiny-cpu", overrides)
        return grpo_arguments(config, tmp_path, Arithmetic.of(config, 99, 1), [], cuda=False)

    assert vars(made("loss.preset=dr_grpo"))["scale_rewards"] == "none"
    dapo = vars(made("loss.preset=dapo"))
    assert (dapo["epsilon_high"], dapo["mask_truncated_completions"]) == (0.28, True)
    assert vars(made("loss.preset=dapo", "loss.epsilon_high=0.4"))["epsilon_high"] == 0.4
    assert vars(made())["beta"] == 0


def test_tokens_of_pictures_are_banned_in_both_engines(tmp_path: Path) -> None:
    for name, expected in (
        ("tiny-cpu", {"suppress_tokens": [5, 6]}),
        ("soft", {"logit_bias": {5: -100.0, 6: -100.0}}),
    ):
        config = load_config(name)
        counts = Arithmetic.of(config, 99, 1)
        made = grpo_arguments(config, tmp_path, counts, [5, 6], cuda=False)
        assert made.generation_kwargs == expected


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.learning_rate=1", 'did you mean "optimiser"?'),
        ("optimiser.learning_rat=1", 'did you mean "optimiser.learning_rate"?'),
        ("zzz=1", "known there are: method, model"),
        ("loss", "section.key=value"),
        ("optimiser.learning_rate=fast", "optimiser.learning_rate: Input should be"),
        ("data.validation=test", 'the split "test" is for the evaluation'),
        ("data.train=val", "must be different splits"),
        ("batch.generations=1", "must be 2 or more"),
        ("reward.preset=best", "preset must be one of: soft"),
        ("reward.weights.iou=2", "iou is none of"),
        ("data.side=100", "multiple of 28"),
        ("loss.beta=.nan", "finite"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(override: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_config("tiny-cpu", [override])
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_evaluations_fall_where_a_rollout_is_used_up() -> None:
    with pytest.raises(SettingsError, match=r"multiple of batch\.updates"):
        load_config("paper-8gpu", ["evaluation.every=5"])


def test_files_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: soft\nloss:\n  beta: 0.02\n")
    config = load_config(str(mine), ["rollout.vllm=null"])
    assert (config.loss.beta, config.reward.preset, config.rollout.vllm) == (0.02, "soft", None)
    mine.write_text(f"extends: {mine}\n")
    with pytest.raises(SettingsError, match="extends itself"):
        load_config(str(mine))
    mine.write_text("a: [")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_config(str(mine))
    with pytest.raises(SettingsError, match='no recipe "sofd"; give a YAML file or one of: base'):
        load_config("sofd")


def test_a_batch_that_does_not_divide_is_told_what_would() -> None:
    config = load_config("soft", ["batch.prompts=3", "batch.generations=4"])
    with pytest.raises(SettingsError, match=r"to a multiple of 4 or batch\.per_device"):
        Arithmetic.of(config, 99, 8)
    with pytest.raises(SettingsError, match="There are 2 training records"):
        Arithmetic.of(config, 2, 1)


def test_vllm_of_another_version_is_refused() -> None:
    check_versions("0.31.0")
    with pytest.raises(SettingsError, match=r"vLLM 0\.33\.0 is none that TRL"):
        check_versions("0.33.0")


def test_old_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from medreasoner_trainer.training import arguments

    monkeypatch.setattr(arguments, "_FLOORS", (("trl", "1.15.0", "1.16"),))
    with pytest.raises(SettingsError, match=r"trl 1\.15\.0 has faults"):
        check_versions()
