"""The last oneshot of a start: says where everything is, and what to try next."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

TEXT = """
The shop is open.

  http://{web}/             the pages: authors, books, tasks with live progress
  http://{web}/api/status   JSON: who answers, the heartbeat, the latest changes
  http://{web}/healthz      what the daemon asks before it calls a worker ready
  http://{metrics}/metrics      for Prometheus

In another terminal, in {directory}:

  {cli} status --watch
  {cli} scale web=4
  {cli} restart web
  {cli} logs -f worker
  {cli} events
  kill -9 <a pid of `status`>      and look at `events` again

Ctrl-C here stops everything.
"""


def main() -> None:
    """Print the text for these addresses."""
    parser = argparse.ArgumentParser(description="Say where the sample shop is, and what to try.")
    parser.add_argument("--web", required=True, metavar="HOST:PORT")
    parser.add_argument("--metrics", required=True, metavar="HOST:PORT")
    parser.add_argument("--config", required=True, type=Path, help="the file that the daemon runs")
    options = parser.parse_args()
    print(text(options.web, options.metrics, options.config))


def text(web: str, metrics: str, config: Path) -> str:
    """The text, with commands that can be pasted into a shell in the repository's root."""
    root = Path(__file__).resolve().parents[2]
    file = config.resolve()
    given = str(file.relative_to(root) if file.is_relative_to(root) else file)
    cli = f".venv/bin/supervisor-d -c {shlex.quote(given)}"
    return TEXT.format(web=web, metrics=metrics, directory=root, cli=cli)


if __name__ == "__main__":
    main()
