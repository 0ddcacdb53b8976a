"""A FastAPI application with a route of its own, and the REST API of a model below /models.

python examples/fastapi_app.py <model base path> [<port>]
"""

import sys

import uvicorn
from fastapi import FastAPI

from serving.api import Service
from serving.options import Options
from serving.rest import create_app


def serve(base_path: str, port: int) -> None:
    """Loads the model, and serves until Ctrl-C."""
    options = Options(model_name="m", model_base_path=base_path)
    with Service(options) as service, create_app(service, options) as models:
        app = FastAPI()
        app.mount("/models", models)

        @app.get("/hello")
        def hello() -> dict[str, str]:
            return {"hello": "world"}

        uvicorn.run(app, port=port)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
