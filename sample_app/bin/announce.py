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
  {cli} scale web=4 worker=4  # in place: nobody is restarted
  {cli} deploy --label v2     # migrate, then workers, web and beat in their turn
  {cli} logs -f worker
  kill -9 <a pid of `status`>  # a master, a worker, Redis; or the daemon: then `make run` takes all over
  {cli} why worker.0          # what happened and was done, and what went back to its queue
  {cli} events

A rollout that goes wrong; then one that does not, and is taken back:

  sed -i 's/sample.wsgi/sample.nothing/' {file}; {cli} reload
  sed -i 's/sample.nothing/sample.wsgi/; s/threads: 4/threads: 8/' {file}; {cli} reload
  {cli} rollback web

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
    return TEXT.format(web=web, metrics=metrics, directory=root, cli=cli, file=shlex.quote(given))


if __name__ == "__main__":
    main()
