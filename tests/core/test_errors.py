import re

from napari_medreasoner.core import errors
from napari_medreasoner.core.errors import MedReasonerError, error_from_code


def tree(root: type[MedReasonerError]) -> list[type[MedReasonerError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def test_every_error_is_exported_drawn_and_survives_the_wire() -> None:
    classes = tree(MedReasonerError)
    assert {cls.__name__ for cls in classes} | {"error_from_code"} == set(errors.__all__)
    drawn = re.findall(r"\w+Error\b", (errors.__doc__ or "").split("The text of each")[0])
    assert sorted(drawn) == sorted(cls.__name__ for cls in classes)
    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        back = error_from_code(cls.code, "sentence")
        assert type(back) is cls
        assert str(back) == "sentence"


def test_an_unknown_code_is_a_plain_failure() -> None:
    assert type(error_from_code("from_the_future", "x")) is MedReasonerError
