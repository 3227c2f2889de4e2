"""The generated parts of docs/ are what today's server and table would give, and links lead
somewhere: both are what a reader meets first when they are wrong."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_parts_are_up_to_date():
    server = os.environ.get("TIS_SERVER", ROOT / "build" / "trtserver")
    done = subprocess.run([sys.executable, ROOT / "scripts/gen_docs", "--check", "--server", server],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_paths_and_functions_exist():
    done = subprocess.run([sys.executable, ROOT / "scripts/lint", "docs"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
