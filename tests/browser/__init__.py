"""What people see, looked at in a real browser. These tests are left out where no Chromium is installed."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
