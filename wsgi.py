"""The application object, for gunicorn and for the `flask` command."""

from progress_service import create_app

app = create_app()
