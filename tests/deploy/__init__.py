"""What is in deploy/ does what it says. What needs a program that is not installed is left out."""

import os
import shutil
import subprocess
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX, SYSTEMD_ANALYZE = (
    shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") for name in ("nginx", "systemd-analyze")
)


def secrets(folder: Path) -> dict[str, str]:
    """Make the secrets of the compose file in another folder, and return them by their names."""
    script = folder / "secrets.sh"
    script.write_bytes((DEPLOY / "secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, stderr=subprocess.DEVNULL)
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
