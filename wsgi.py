"""The application object, for gunicorn and for the `flask` command; a wrong setting ends the process with one line."""

import sys

from progress_service import create_app
from progress_service.config import ConfigurationError

try:
    app = create_app()
except ConfigurationError as fault:
    fault.show()
    sys.exit(fault.exit_code)
