"""`python -m progress_service.demo`: everything from the look at the port to gunicorn happens in this process."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import click
from flask_migrate import upgrade
from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]
from gunicorn.util import parse_address  # type: ignore[import-untyped]

from progress_service import serving
from progress_service.demo import people
from progress_service.store import database
from progress_service.store.database import db
from progress_service.web.auth import Caller, Role, issue
from wsgi import app

TOKENS_LAST = timedelta(days=1)
CALLERS = {"sam": Role.STUDENT, "ines": Role.INSTRUCTOR, "lms": Role.SERVICE, "ada": Role.ADMIN}
UPDATE = {"contentId": "sql-joins", "progressPercentage": 40.7, "timeSpentSeconds": 120, "position": "step 4"}
QUIZ = {"contentId": "sql-quiz", "progressPercentage": 100, "maxScore": 20}
BATCH = {"updates": [{"userId": "sam", **QUIZ, "score": 17}, {"userId": "tom", **QUIZ, "score": 12.5}]}


@click.command()
def main() -> None:
    """Migrate the database, fill it unless it has learners, say what to try, and serve."""
    _look_at_ports()
    with app.app_context():
        upgrade()
        database.write(partial(people.fill, now=datetime.now(UTC)))
        click.echo(_what_to_try(f"http://127.0.0.1:{app.config['PORT']}"))
        db.engine.dispose()  # the workers, which inherit the application, make connections of their own
    sys.argv[1:] = ["-c", "python:progress_service.serving", "wsgi:app"]
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]").run()


def _look_at_ports() -> None:
    """Raise an error that says what to do if a port cannot be used."""
    for host, port in (parse_address(address) for address in serving.bind if not address.startswith("unix:")):
        try:
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            message = f"Port {port} cannot be used: {reason}. Try another: make run PORT=..."
            raise click.ClickException(message) from None


def _what_to_try(address: str) -> str:
    """Return lines for people and for a shell: where the API is shown, and, where tokens can be made, requests."""
    shown = f"\n# {address}/docs shows the API. Ctrl-C ends the service."
    if not app.config.get("JWT_SECRET_KEY"):
        return shown
    tokens = (f"{name}={issue(Caller(name, role), TOKENS_LAST)}" for name, role in CALLERS.items())
    api = f"{address}/api/progress"
    return "\n".join(
        [
            shown,
            "# Paste a token there, or all of these lines into another terminal. The tokens last for a day:",
            "# sam is a student, ines an instructor, lms a service, ada an admin.",
            *tokens,
            _request("sam reports progress in the lab", "sam", api, UPDATE),
            _request("sam looks at the dashboard", "sam", f"{api}/me"),
            _request("the platform reports two quizzes", "lms", f"{api}/batch", BATCH),
            _request("ines looks at the statistics of a module", "ines", f"{api}/stats/sql-basics"),
            _request("ada looks at sam in that module", "ada", f"{api}/sam/sql-basics"),
            f"\n# the report of a module, for a browser\n{_flask()} progress report sql-basics > report.html\n",
        ]
    )


def _request(what: str, caller: str, url: str, body: Mapping[str, Any] | None = None) -> str:
    """Return the line of a request, below a line that says what it is."""
    sent = f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
    return f'\n# {what}\ncurl -H "Authorization: Bearer ${caller}"{sent} {url}'


def _flask() -> str:
    """Return the beginning of a command, with the key of the checkout if that is the key."""
    name = "PROGRESS_JWT_SECRET_KEY_FILE"
    key = f"{name}={quote(os.environ[name])} " if os.environ.get(name) else ""
    return f"{key}{quote(os.path.relpath(Path(sys.executable).with_name('flask')))} --app wsgi"


if __name__ == "__main__":
    main()
