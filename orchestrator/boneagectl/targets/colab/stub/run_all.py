"""Runs the code cells of a notebook in order, like Colab's "Run all"; the first failure ends it.

    python run_all.py NOTEBOOK.ipynb

A plain process, not a kernel: it needs only the interpreter that trains, and nothing of it survives a kill.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def main(path: str) -> int:
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            print(f"[{cell['id']}]", flush=True)
            try:
                exec(compile("".join(cell["source"]), cell["id"], "exec"), scope)  # noqa: S102
            except Exception as error:
                shown = getattr(error, "_render_traceback_", None)
                print("\n".join(shown()) if shown else traceback.format_exc(), flush=True)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
