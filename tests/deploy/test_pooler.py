"""PostgreSQL and the pooler of the compose file let the service in with the secrets that the script makes."""

import os
import subprocess

import psycopg
import pytest

from tests.deploy import DEPLOY, secrets
from tests.postgres import PGBOUNCER, PostgresServer
from tests.test_roles import NEW, psql
from tests.test_serving import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until


def test_the_roles_are_those_of_the_documents() -> None:
    lines = [line for line in (DEPLOY / "roles.sql").read_text().splitlines() if not line.startswith(("--", "\\set"))]

    told = "\n".join(lines).replace(":'owner_password'", "'change me'").replace(":'server_password'", "'change me too'")
    assert told == NEW.strip()


def test_the_pooler_knows_the_password_of_the_service() -> None:
    with PostgresServer() as server:
        made = secrets(server.directory)
        (server.directory / "secrets").chmod(0o755)
        psql(server, (DEPLOY / "roles.sql").read_text().replace("/run/secrets/", f"{server.directory}/secrets/"))
        (server.directory / "users").write_text(made["pgbouncer_users"])
        port = str(free_port())
        text = (DEPLOY / "pgbouncer.ini").read_text()
        for written, instead in {
            "host=postgres": f"host={server.directory}",
            "listen_addr = *": "listen_addr = 127.0.0.1",
            "6432": port,
            "/run/secrets/pgbouncer_users": str(server.directory / "users"),
        }.items():
            assert written in text
            text = text.replace(written, instead)
        (server.directory / "pgbouncer.ini").write_text(text)
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [str(PGBOUNCER), "-q", *as_nobody, "pgbouncer.ini"], cwd=server.directory, start_new_session=True
        )
        url = made["database_uri"].replace("pgbouncer:6432", f"127.0.0.1:{port}")

        def user() -> object:
            with psycopg.connect(url) as connection:
                return connection.execute("SELECT current_user").fetchone()

        def listens() -> bool:
            try:
                return user() is not None
            except psycopg.OperationalError as error:
                return "refused" not in str(error)

        try:
            wait_until(lambda: listens() or process.poll() is not None)
            assert user() == ("progress_server",)
            url = url.replace("server:", "server:x")
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                user()
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
