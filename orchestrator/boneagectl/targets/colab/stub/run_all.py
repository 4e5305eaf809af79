"""Runs the code cells of a notebook one after the other, as Colab's "Run all": the first that fails ends it.

    python run_all.py NOTEBOOK.ipynb

A plain process and no kernel: it needs nothing but the interpreter that trains, and ends whole when it is killed.
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
