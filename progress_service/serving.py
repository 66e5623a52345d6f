"""How gunicorn serves the application: ``gunicorn -c python:progress_service.serving wsgi:app``.

Options on gunicorn's command line win over these settings. There is no access log, since the application logs each
request. The application is made before there are workers, so that a wrong setting ends gunicorn at once.
"""

import os
import signal
import socket
import struct
from functools import partial
from itertools import count
from typing import Any

from gunicorn.http import wsgi as answers  # type: ignore[import-untyped]

import wsgi
from progress_service import create_app, figures, processors
from progress_service.config import ConfigurationError
from progress_service.operations import logs, readiness, sharing

answers.SERVER = "progress-service"  # gunicorn puts its name into every answer, and has no setting for that

settings = wsgi.app.config
bind = [
    address if address.startswith("unix:") else f"{address}:{settings['PORT']}"
    for address in settings["BIND"].split(",")
]
forwarded_allow_ips = settings["FORWARDED_ALLOW_IPS"]

worker_class = "gthread"
workers = settings["WEB_CONCURRENCY"] or processors.usable() + 1
threads = settings["POOL_SIZE"]  # each has a database connection

timeout = settings["CLIENT_TIMEOUT"]
graceful_timeout = settings["GRACEFUL_TIMEOUT"]
keepalive = settings["KEEPALIVE_TIMEOUT"]

# 200 identifiers of 36 characters with encoded commas, and other filters, are below this; gunicorn takes no more.
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190

logger_class = logs.Gunicorn
loglevel = settings["LOG_LEVEL"].lower().replace("debug", "info")  # at debug, gunicorn tells the path of each request

# A parser in C, which gunicorn takes wherever it is installed, reads some requests otherwise.
http_parser = "python"

# Workers touch a file to show that they live. If the disk blocked, gunicorn would take them for dead.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
control_socket_disable = True


def when_ready(arbiter: Any) -> None:
    """Prepare what the workers inherit and how they will stop, and say how much they may use."""
    cfg = arbiter.cfg
    sharing.begin(worker_tmp_dir, cfg.uid, cfg.gid)
    for listener in arbiter.LISTENERS:
        close_silent_connections(listener, cfg.timeout)
    if settings["DRAIN_SECONDS"]:
        signal.signal(signal.SIGALRM, arbiter.signal)
        arbiter.handle_alrm, arbiter.handle_term = arbiter.handle_term, partial(drain, arbiter)
    numbers = cfg.workers, cfg.threads, cfg.workers * settings["POOL_SIZE"]
    arbiter.log.info("%d workers x %d threads, at most %d connections to the database", *numbers)


def pre_fork(arbiter: Any, worker: Any) -> None:
    """Give a worker the least number that no other has, so that there are only as many files of figures as workers."""
    taken = {other.number for other in arbiter.WORKERS.values()}
    worker.number = next(number for number in count() if number not in taken)


def post_fork(_: Any, worker: Any) -> None:
    """Begin the figures of a worker."""
    figures.begin(worker.number)


def child_exit(_: Any, worker: Any) -> None:
    """Forget what a worker was doing when it ended."""
    sharing.forget(worker.number)


def drain(arbiter: Any) -> None:
    """Go on for some seconds after TERM, so that gateways see that this server is not ready; TERM again ends it."""
    readiness.drain()
    signal.alarm(settings["DRAIN_SECONDS"])
    arbiter.handle_term = arbiter.handle_alrm


def pre_request(_: Any, request: Any) -> None:
    """Let clients of a server that is about to stop open their next connection elsewhere."""
    if readiness.is_draining():
        request.force_close()


def on_reload(arbiter: Any) -> None:
    """Read the settings again after HUP, for files that have changed; if one is wrong, they stay as they were."""
    try:
        wsgi.app = create_app()  # for the workers that begin now
    except ConfigurationError as fault:
        arbiter.log.error("The settings stay as they were. %s", fault.message)


def on_exit(_: Any) -> None:
    """Remove the files of the figures."""
    sharing.end()


def close_silent_connections(listener: socket.socket, seconds: int) -> None:
    """Close connections that fall silent within a request or an answer, since a thread of gunicorn waits for them."""
    patience = struct.pack("ll", seconds, 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        listener.setsockopt(socket.SOL_SOCKET, option, patience)  # its connections inherit this
