"""The commands `dwcp releases ...`. Thin: `command.py` does the work."""

from pathlib import Path
from typing import Annotated, Optional

import typer

releases_app = typer.Typer(no_args_is_help=True, help="Releases of a model folder: list, compare, switch, go back.")

Models = Annotated[Path, typer.Option(help="Folder of the model set, with its releases.")]
Name = Annotated[str, typer.Argument(help="Release: its name or the beginning of it, current, previous, or candidate.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Keep = Annotated[
    Optional[int],
    typer.Option(help="Remove older releases beyond so many; never the current one nor the one before it."),
]


@releases_app.command("list", epilog="Example: dwcp releases list --models models")
def list_releases(models: Models, json: Json = False) -> None:
    """Lists the releases: age, size, detectors, thresholds, which one is current and which was before it."""
    from dwcp_training.releases.command import run_list

    raise typer.Exit(run_list(models, json))


@releases_app.command(epilog="Example: dwcp releases show current --models models")
def show(release: Name, models: Models, json: Json = False) -> None:
    """Opens a release, runs its golden vectors, and prints what it is."""
    from dwcp_training.releases.command import run_show

    raise typer.Exit(run_show(models, release, json))


@releases_app.command(epilog="Example: dwcp releases promote c388f885 --models models")
def promote(release: Name, models: Models, keep: Keep = None, json: Json = False) -> None:
    """Makes a release current, in one rename, after it has passed its golden vectors."""
    from dwcp_training.releases.command import run_promote

    raise typer.Exit(run_promote(models, release, keep, json))


@releases_app.command(epilog="Example: dwcp releases rollback --models models")
def rollback(models: Models, keep: Keep = None, json: Json = False) -> None:
    """Goes back to the release that was current before; another rollback undoes it."""
    from dwcp_training.releases.command import run_rollback

    raise typer.Exit(run_rollback(models, keep, json))


@releases_app.command(epilog="Example: dwcp releases prune --models models --keep 3")
def prune(models: Models, keep: Annotated[int, typer.Option(help="Releases to keep, the newest ones.")]) -> None:
    """Removes older releases; never the current one nor the one before it."""
    from dwcp_training.releases.command import run_prune

    raise typer.Exit(run_prune(models, keep))


@releases_app.command(
    epilog="Example: dwcp releases diff previous current --models models\n\n"
    "On given rows too: dwcp releases diff previous current --models models --data today.csv"
)
def diff(
    before: Name,
    after: Name,
    models: Models,
    data: Annotated[
        Optional[list[Path]], typer.Option(help="Rows to score with both; may be given several times.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Profile of these rows: name or YAML file.")] = "dwcp",
    json: Json = False,
) -> None:
    """Shows what changed: thresholds, hyperparameters, training period, scores of the golden samples and of rows."""
    from dwcp_training.releases.command import run_diff

    raise typer.Exit(run_diff(models, before, after, data or (), profile, json))
