"""docs/deberta.md is correct: its command knows the size, and its code runs."""

import re
from pathlib import Path

from fusedbert.bench.cli import SIZES
from fusedbert.bench.engines.random.deberta import DebertaShape, write_checkpoint
from fusedbert.export import export_checkpoint

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deberta.md").read_text(encoding="utf-8")


def test_the_command_and_the_code_run(clone, checkpoint):
    (command,) = re.findall(r"^```bash\n(.*?)\n```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    ((size, folder),) = re.findall(r"^fusedbert bench checkpoint (\S+) (\S+)$", command)
    assert size in SIZES
    # A small one in its place: the base size takes seconds to write, and a minute to export.
    write_checkpoint(clone.folder / folder, DebertaShape(layers=1, heads=2, hidden=32), checkpoint / "vocab.txt")
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    (artifact,) = re.findall(r'from_pretrained\("(.*?)"', code)
    export_checkpoint(clone.folder / folder, clone.folder / artifact, target="cpu", required=False)
    done = clone("python", "-c", f"{code}\nprint(clf.max_length)")
    assert (done.stdout, done.returncode) == ("1024\n", 0), done.stderr
