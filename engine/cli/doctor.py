"""``fusedbert doctor``: prints what ``fusedbert.engine.cli.checks`` finds."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import click

from .streams import messages_on_stderr


@click.command()
@click.option("-m", "--model", metavar="MODEL", help="Also verify this model's files and replay its golden texts.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, metavar="P", help="auto, fp32, int8 or fp16.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def doctor(model: str | None, device: str, precision: str, as_json: bool) -> int:
    """Show what this machine offers and what the engine would choose; exit status 1 where a check fails."""
    from ..options import Options
    from .checks import Status, examine

    failed = False
    findings = []
    with messages_on_stderr():
        for finding in examine(model, Options.parse(device=device, precision=precision)):
            failed |= finding.status is Status.FAIL
            findings.append(dataclasses.asdict(finding))
            if not as_json:
                for line in lines(finding.name, finding.value, finding.status, finding.advice):
                    click.echo(line)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "python": sys.executable, "findings": findings}, indent=2, ensure_ascii=False))
    return int(failed)


def lines(name: str, value: Any, status: str, advice: str | None) -> list[str]:
    """Render one finding: its status, its name, its value, and the advice below."""
    head = f"{status:<4}  {name.replace('_', ' ')}"
    if isinstance(value, dict):
        rendered = [f"{head}:", *(f"        {key.replace('_', ' ')}: {_plain(each)}" for key, each in value.items())]
    else:
        rendered = [f"{head}: {_plain(value)}"]
    return [*rendered, f"      > {advice}"] if advice else rendered


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
