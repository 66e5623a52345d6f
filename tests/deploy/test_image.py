"""What the Dockerfile does, done without an engine: in empty environments, with what the engine would copy."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.callers import KEY
from tests.deploy import DEPLOY
from tests.test_serving import ROOT, free_port
from tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

SENT = re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M)
"""What of the checkout an engine sees."""


class Image:
    """The steps of the Dockerfile, with another folder for /opt/progress and an environment as each stage's Python."""

    def __init__(self, folder: Path) -> None:
        self.installed = folder / "installed"
        self.variables: dict[str, str] = {}
        self.command: list[str] = []
        self.health: list[str] = []
        self.source = folder / "source"
        self.source.mkdir()
        for number, stage in enumerate(re.split(r"^FROM .+$", (DEPLOY / "Dockerfile").read_text(), flags=re.M)[1:]):
            self.python = folder / f"stage-{number}"
            subprocess.run([sys.executable, "-m", "venv", self.python], check=True)
            for instruction, rest in re.findall(r"^([A-Z]+) (.+)$", stage, re.M):
                self._do(instruction, rest)

    def _do(self, instruction: str, rest: str) -> None:
        if instruction == "RUN":
            self.run("sh", "-c", rest.replace("/opt/progress", str(self.installed))).check_returncode()
        elif instruction == "COPY" and not rest.startswith("--from="):
            for name in rest.split()[:-1]:
                assert name in SENT
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, self.source / name)
        elif instruction == "ENV":
            self.variables |= dict(
                part.split("=") for part in rest.replace("/opt/progress", str(self.installed)).split()
            )
        elif instruction == "HEALTHCHECK":
            self.health = json.loads(rest.partition("CMD ")[2])
        elif instruction == "CMD":
            self.command = json.loads(rest)

    def environment(self, **others: str) -> dict[str, str]:
        """Return the variables of a process in the image, with settings for a test."""
        path = os.pathsep.join([str(self.python / "bin"), os.environ["PATH"]])
        ours = {name: text.replace("$PATH", path) for name, text in self.variables.items()}
        return os.environ | {"PATH": path} | ours | others

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd=self.source, env=self.environment(**variables), capture_output=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    image = Image(tmp_path_factory.mktemp("image"))
    shutil.rmtree(image.source)  # which the last stage does not have
    image.source.mkdir()
    return image


def test_the_image_has_the_locked_packages_and_nothing_that_installs_others(image: Image) -> None:
    listed = (
        "from importlib.metadata import distributions as d; print(*sorted(f'{one.name}=={one.version}' for one in d()))"
    )
    found = image.run("python", "-c", listed).stdout.decode().lower().replace("_", "-").split()

    locked = set(re.findall(r"^([a-z0-9-]+==[^ ;]+)", (ROOT / "requirements.txt").read_text(), re.M))
    (own,) = set(found) - locked
    assert own.startswith("progress-service==")
    assert image.run("python", "-c", "import pip").returncode == 1
    assert image.run(str(image.python / "bin" / "python"), "-c", "import pip").returncode == 1


def test_a_container_migrates_serves_tells_its_health_and_stops(image: Image, tmp_path: Path) -> None:
    settings = {
        "PROGRESS_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/progress.db",
        "PROGRESS_JWT_SECRET_KEY": KEY,
        "PROGRESS_BIND": "127.0.0.1",
        "PORT": str(free_port()),
    }
    image.run("flask", "--app", "wsgi", "db", "upgrade", **settings).check_returncode()
    assert image.run(*image.health, **settings).returncode == 1

    process = subprocess.Popen(
        image.command, cwd=image.source, env=image.environment(**settings), start_new_session=True
    )
    try:
        wait_until(lambda: image.run(*image.health, **settings).returncode == 0 or process.poll())
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
