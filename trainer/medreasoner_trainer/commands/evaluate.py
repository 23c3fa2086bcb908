"""`medreasoner-train eval | tables | report`: score engines on a data set and show it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from medreasoner_trainer.commands.extra import train_extra
from medreasoner_trainer.commands.left_out import Strict, tell_left_out
from medreasoner_trainer.evaluation.words import TRUE_PROMPTS, PromptMode
from napari_medreasoner import __version__
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import SettingsError

__all__ = ["evaluate", "report", "tables"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Data set: a folder or a Parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; a run begun there goes on.")],
    crm: Annotated[
        str, typer.Option(help=f'Reasoner, or "{TRUE_PROMPTS}" to score the segmenter alone.')
    ] = CRM,
    asm: Annotated[str, typer.Option(help="Segmenter.")] = ASM,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    prompt: Annotated[
        Literal["reasoning", "direct"], typer.Option(help="Prompt template.")
    ] = "reasoning",
    prompt_mode: Annotated[
        PromptMode,
        typer.Option(help="Which Dice is called Dice, and whose mask is kept; all are scored."),
    ] = "both",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score so many, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw, questions, intervals.")] = 0,
    strict: Strict = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray (RAY_ADDRESS, or here).")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Ray workers.")] = 2,
) -> None:
    """Score a reasoner and a segmenter on a data set; a killed run goes on where it was."""
    with train_extra():
        from medreasoner_trainer.data import open_data
        from medreasoner_trainer.evaluation.cluster import on_ray
        from medreasoner_trainer.evaluation.folder import RunConfig
        from medreasoner_trainer.evaluation.run import Worker, choose, evaluate_run, fingerprint
        from medreasoner_trainer.evaluation.tables import breakdown
    opened = open_data(data, split, strict=strict)
    records = choose(opened.records, limit, seed)
    config = RunConfig(
        version=__version__,
        crm=crm,
        asm=asm,
        data=str(data.resolve()),
        split=split,
        prompt=prompt,
        prompt_mode=prompt_mode,
        limit=limit,
        seed=seed,
        records=len(records),
        records_sha256=fingerprint(records),
    )
    ids = [record.id for record in records]
    spread = on_ray(config, workers) if ray else Worker.from_config(config, opened).work
    with _engine_log(out):
        summary, problems = evaluate_run(config, ids, spread, out, opened.problems, strict=strict)
    tell_left_out(problems)
    typer.echo(breakdown([summary]))


@contextmanager
def _engine_log(out: Path) -> Iterator[None]:
    """Keep the tracebacks of failing engines in a file that only then is made."""
    handler = logging.FileHandler(out / "engines.log", delay=True)
    logger = logging.getLogger("medreasoner_trainer")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def tables(
    runs: Annotated[list[Path], typer.Argument(help="Folders that eval wrote.")],
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare the second of two runs with the first.")
    ] = False,
) -> None:
    """Print the paper's Tables 2-6 with rows for these runs, as Markdown."""
    with train_extra():
        from medreasoner_trainer.evaluation.folder import RunFolder
        from medreasoner_trainer.evaluation.statistics import summary_of
        from medreasoner_trainer.evaluation.tables import breakdown, comparison, published_tables
    folders = [RunFolder(run) for run in runs]
    if paired and len(folders) != 2:
        raise SettingsError(f"--paired compares two runs, not {len(folders)}; name two folders.")
    summaries = [summary_of(folder) for folder in folders]
    typer.echo(published_tables(summaries))
    typer.echo(breakdown(summaries))
    if paired:
        typer.echo(comparison(*folders))


def report(
    run: Annotated[Path, typer.Argument(help="Folder that eval wrote.")],
    data: Annotated[
        Path | None, typer.Option(help="Where the data set is now, if it was moved.")
    ] = None,
    picks: Annotated[
        int, typer.Option(min=0, max=20, help="Best and worst cases of each super-category.")
    ] = 3,
) -> None:
    """Write RUN/report.html: one page with plots and pictures that opens from disk."""
    with train_extra():
        from medreasoner_trainer.evaluation.folder import RunFolder
        from medreasoner_trainer.evaluation.report import write_report
    path = write_report(RunFolder(run), data, picks)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB.")
