"""systemd takes the units as they are."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.deploy import DEPLOY, SYSTEMD_ANALYZE
from tests.test_serving import gunicorn
from tests.waiting import PATIENCE_SECONDS


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "systemd", tmp_path, dirs_exist_ok=True)
    units = []
    for path in tmp_path.glob("*.service"):
        path.write_text(path.read_text().replace("/opt/progress/bin/", f"{Path(sys.executable).parent}/"))
        units.append(str(path).replace("@.", "@8000."))
    assert len(units) == 4
    units += map(str, tmp_path.glob("*.timer"))

    command = [str(SYSTEMD_ANALYZE), "verify", "--man=no", *units]
    done = subprocess.run(command, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_server_tells_systemd_when_it_is_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_SECONDS)
        with gunicorn("sqlite:///:memory:", workers=1, NOTIFY_SOCKET=str(tmp_path / "notify")):
            assert systemd.recv(4096).splitlines()[0] == b"READY=1"
