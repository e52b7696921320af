"""The commands `dwcp feedback ...`. Thin: `command.py` does the work."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

feedback_app = typer.Typer(
    no_args_is_help=True, help="What operators say of alarms: true, false, missed. Measured, and used by dwcp retrain."
)

Models = Annotated[
    Optional[Path], typer.Option(help="Folder of the model set; marks are in its feedback.db.", metavar="DIR")
]
File = Annotated[Optional[Path], typer.Option("--feedback", help="Another file for the marks.", metavar="FILE")]
By = Annotated[str, typer.Option("--by", help="Who says it.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verdict = Literal["true", "false", "missed"]


@feedback_app.command(
    epilog="Example: dwcp feedback add --models models --series link-1 --start 2024-01-31T10:05:00Z --verdict false "
    "--note 'nightly backup'\n\n"
    "An incident without an alarm: dwcp feedback add --models models --start 2024-01-31T10:00Z --end 2024-01-31T10:20Z "
    "--verdict missed"
)
def add(
    start: Annotated[str, typer.Option(help="When it began: ISO 8601, UTC without a zone.", metavar="TIME")],
    verdict: Annotated[
        Verdict,
        typer.Option(help="true: the alarm was right. false: there was nothing. missed: an incident without an alarm."),
    ],
    models: Models = None,
    end: Annotated[str, typer.Option(help="Its last moment (default: the start, one row).", metavar="TIME")] = "",
    series: Annotated[
        str, typer.Option(help="Run, file or device, as the alarm says it (default: all).", metavar="NAME")
    ] = "",
    detector: Annotated[str, typer.Option(help="Whose alarm it was.", metavar="NAME")] = "",
    note: Annotated[str, typer.Option(help="Free text.", metavar="TEXT")] = "",
    by: By = "",
    feedback: File = None,
) -> None:
    """Marks an alarm true or false, or an incident missed."""
    from dwcp_training.feedback.command import Given, Where, run_add

    raise typer.Exit(run_add(Where(models, feedback), Given(start, end, verdict, series, detector, note, by)))


@feedback_app.command(
    "import",
    epilog="Example: dwcp feedback import marks.csv --models models\n\n"
    "Columns: start and verdict; end, series, detector, note and by where there are any.",
)
def import_(
    files: Annotated[list[Path], typer.Argument(help="CSV files with a mark a line.", metavar="FILE.csv")],
    models: Models = None,
    by: By = "",
    feedback: File = None,
) -> None:
    """Takes marks from CSV files, each whole or not at all; what is known already stays as it is."""
    from dwcp_training.feedback.command import Where, run_import

    raise typer.Exit(run_import(Where(models, feedback), files, by))


@feedback_app.command("list", epilog="Example: dwcp feedback list --models models")
def list_(models: Models = None, feedback: File = None, json: Json = False) -> None:
    """Lists all marks, by time."""
    from dwcp_training.feedback.command import Where, run_list

    raise typer.Exit(run_list(Where(models, feedback), json))


@feedback_app.command(epilog="Example: dwcp feedback remove 12 --models models")
def remove(
    number: Annotated[int, typer.Argument(help="Number of the mark, as list shows it.", metavar="MARK")],
    models: Models = None,
    feedback: File = None,
) -> None:
    """Takes a mark back."""
    from dwcp_training.feedback.command import Where, run_remove

    raise typer.Exit(run_remove(Where(models, feedback), number))


@feedback_app.command(epilog="Example: dwcp feedback report --models models --by month")
def report(
    models: Models = None,
    by: Annotated[Literal["day", "week", "month"], typer.Option(help="Length of a period, UTC.")] = "week",
    feedback: File = None,
    json: Json = False,
) -> None:
    """Shows how often alarms were right, and how many known incidents had one, over time."""
    from dwcp_training.feedback.command import Where, run_report

    raise typer.Exit(run_report(Where(models, feedback), by, json))


@feedback_app.command(
    epilog="Example: dwcp feedback export --models models --output incidents.csv\n\n"
    "Then: dwcp evaluate --models models --data recorded.csv --labels incidents.csv"
)
def export(
    models: Models = None,
    output: Annotated[str, typer.Option(help="File; - is standard output.", metavar="FILE")] = "-",
    verdict: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="true|false|missed",
            help="What to write; may be given several times (default: true and missed, the incidents).",
        ),
    ] = None,
    feedback: File = None,
) -> None:
    """Writes the known incidents as CSV that --labels and --exclude of other commands read."""
    from dwcp_training.feedback.command import Where, run_export

    raise typer.Exit(run_export(Where(models, feedback), output, verdict or ("true", "missed")))
