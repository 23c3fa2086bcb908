from pathlib import Path

import pytest

from napari_medreasoner.core.errors import QuestionError, TemplateError
from napari_medreasoner.core.prompts import BUILT_IN, MAX_QUESTION, PromptTemplate


@pytest.mark.parametrize("name", ["Reasoning", "Direct"])
def test_the_built_in_templates_demand_the_answers_keys(name: str) -> None:
    (message,) = BUILT_IN[name].render("where is it?", 640, 480)
    assert message.role == "user"
    for needed in ("where is it?", "640 x 480", '"bbox"', '"points_1"', '"points_2"', "<answer>"):
        assert needed in message.content
    assert ("<think>" in message.content) == (name == "Reasoning")


def test_a_question_is_put_in_as_it_is() -> None:
    question = 'costs $5? ${question} {x} "quoted" <think>'
    (message,) = BUILT_IN["Direct"].render(question, 1, 1)
    assert question in message.content


@pytest.mark.parametrize("question", ["", "  \n\t", "x" * (MAX_QUESTION + 1)])
def test_an_empty_or_endless_question_is_refused(question: str) -> None:
    with pytest.raises(QuestionError):
        BUILT_IN["Reasoning"].render(question, 1, 1)


def test_a_users_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "Mine"\nsystem = "Be brief, $$5."\nuser = "$question ($width)"\n')
    system, user = PromptTemplate.from_file(path).render("why?", 3, 4)
    assert (system.role, system.content) == ("system", "Be brief, $5.")
    assert user.content == "why? (3)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "TOML"),
        ('name = "x"', "user"),
        ('name = "x"\nuser = "no placeholder"', "question"),
        ('name = "x"\nuser = "$question $age"', "age"),
        ('name = "x"\nuser = "$question costs $ 5"', r"\$"),
        ('name = "x"\nuser = "$question"\nextra = 1', "extra"),
    ],
)
def test_a_wrong_file_is_named_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=f"bad.toml.*{reason}"):
        PromptTemplate.from_file(path)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.toml", "none.toml"):
        with pytest.raises(TemplateError, match="cannot be read"):
            PromptTemplate.from_file(tmp_path / name)
