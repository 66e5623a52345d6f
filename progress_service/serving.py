"""How gunicorn serves the application: ``gunicorn -c python:progress_service.serving wsgi:app``.

Options on gunicorn's command line win over what is said here. There is no access log: the application
writes one line for each request itself.
"""

import os
import socket
import struct
from pathlib import Path
from typing import Any

from gunicorn.http import wsgi  # type: ignore[import-untyped]

from progress_service import metrics
from progress_service.config import DEFAULTS

wsgi.SERVER = "progress-service"  # gunicorn names itself in every answer, and has no setting for that

bind = f"127.0.0.1:{os.environ.get('PORT') or 8000}"

worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or (os.cpu_count() or 1) + 1)
threads = int(os.environ.get("PROGRESS_POOL_SIZE") or DEFAULTS["POOL_SIZE"])  # each with a connection of its own

timeout = 30
graceful_timeout = 30
# Longer than gateways keep idle connections (60 s as a rule), so that none reuses one that closes here.
keepalive = 75

# Two identifiers of 255 characters, percent-encoded, with a cursor and filters: well below.
limit_request_line = 4096
limit_request_fields = 64
limit_request_field_size = 8190

# Workers touch a file to show that they live; on a disk that blocks, they would be taken for dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
control_socket_disable = True


def when_ready(arbiter: Any) -> None:
    """Prepare what the workers, which begin now, have from this process."""
    metrics.share(worker_tmp_dir, arbiter.cfg.uid, arbiter.cfg.gid)
    for listener in arbiter.LISTENERS:
        give_up_the_silent(listener, arbiter.cfg.timeout)


def on_exit(_: Any) -> None:
    """Leave nothing."""
    metrics.end_sharing()


def give_up_the_silent(listener: socket.socket, seconds: int) -> None:
    """End connections that fall silent within a request or an answer, for which gunicorn's threads would wait."""
    patience = struct.pack("ll", seconds, 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        listener.setsockopt(socket.SOL_SOCKET, option, patience)  # connections inherit it
