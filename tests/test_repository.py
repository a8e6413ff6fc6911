"""What is in the repository is source: nothing that a run made, nothing that is one machine's."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_nothing_generated_is_tracked():
    if not (ROOT / ".git").exists():  # a source archive holds what was tracked, and no index
        return
    listing = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == ""
