"""Derives `priors.json`, what the `prior` reasoner knows, from training images."""

from __future__ import annotations

from pathlib import Path

from medreasoner_trainer.data import open_data
from medreasoner_trainer.structures import fit_structures
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.engines.embedded.priors import Priors, Provenance

__all__ = ["derive_priors", "write_priors"]

_SPLIT = "train"


def derive_priors(folder: Path) -> Priors:
    """Measure the training split of a data set; no other split is opened.

    Parameters
    ----------
    folder : Path
        Of the data set.

    Raises
    ------
    ReadError
        When the folder is not such a data set or a file in it is damaged.
    """
    data = open_data(folder, _SPLIT, strict=True)
    records = data.records
    return Priors(
        provenance=Provenance(
            data=folder.resolve().name,
            split=_SPLIT,
            records=len(records),
            images=len({record.image for record in records}),
            command="medreasoner-train priors",
        ),
        structures=fit_structures(data),
    )


def write_priors(priors: Priors, path: Path) -> None:
    """Write the numbers as JSON.

    Raises
    ------
    ExportError
        When the file cannot be written.
    """
    try:
        path.write_text(priors.model_dump_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{path} cannot be written; choose another place.") from error
