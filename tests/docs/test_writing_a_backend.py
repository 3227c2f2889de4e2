"""docs/writing-a-backend.md, done word by word in an empty folder.

Each code block is a file (the line before it names it) or, marked sh, commands; the block that
starts the server is run as a server of the test's, on a free port.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/clients"))
from server import Server  # noqa: E402

TEXT = (ROOT / "docs/writing-a-backend.md").read_text()
BLOCK = re.compile(r"^(?:`(?P<file>\S+)`:\n\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
SERVE = '"$TIS/build/trtserver" '

pytestmark = [
    pytest.mark.timeout(900),  # it builds the backend with what the machine has left
    *(pytest.mark.skipif(not shutil.which(tool), reason=f"no '{tool}'") for tool in ("cc", "curl"))]


def run(code, folder):
    done = subprocess.run(["bash", "-euc", code], cwd=folder, env={**os.environ, "TIS": str(ROOT)},
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout


def serve(command, folder):
    flags = [flag for flag in command.removeprefix(SERVE).split()
             if not flag.startswith(("--model-repository", "--http-port"))]
    return Server(folder / "models", *flags, "--exit-on-error=false")


def test_text_leads_to_answers(tmp_path):
    folder, server, answer, seen = tmp_path, None, None, []
    blocks = list(BLOCK.finditer(TEXT))
    assert len(blocks) == TEXT.count("\n```") / 2
    try:
        for block in blocks:
            code, kind = block["code"], block["kind"]
            seen.append(block["file"] or kind)
            if block["file"]:
                (folder / block["file"]).write_text(code)
            elif code.startswith(SERVE):
                server = serve(code, folder)
            elif kind == "sh":
                answer = run(code.replace("localhost:8000", server.url if server else ""), folder)
                if "cd my-backend" in code:
                    folder = folder / "my-backend"
            elif kind == "json":
                assert answer.strip() == code.strip()
            else:
                assert kind == "text"
                server.stop()
                config = folder / "models/double/config.pbtxt"
                config.write_text(config.read_text().replace('"2"', '"two"'))
                with serve("", folder) as other:
                    assert code.strip() in other.index()[0]["reason"]
    finally:
        if server:
            server.kill()
    assert seen == ["sh", "scale.c", "sh", "models/double/config.pbtxt", "sh", "sh", "json", "sh",
                    "text"]
