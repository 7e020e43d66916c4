"""``fusedbert serve`` with a path of yours: all its paths, limits and metrics are there, and yours next to them.

pip install "fusedbert[cpu,serve]"
python examples/fastapi_service.py artifacts/sst2-mini
curl "localhost:8000/label?text=I+loved+it."
"""

import os
import sys

from fusedbert.engine.server import create_app, run

app = create_app(sys.argv[1:])


@app.get("/label")
async def label(text: str) -> str:
    """Return the likeliest label of a text; it waits in the queue with those of the other paths."""
    first = next(iter(app.state.models.served.values()))
    answer = await first.batcher.classify(text, top_k=1)
    return str(answer[0]["label"])


if __name__ == "__main__":
    run(app, port=int(os.environ.get("PORT", "8000")))
