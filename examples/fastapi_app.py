"""A FastAPI application with a route of its own, and the REST API of a model below /models.

python examples/fastapi_app.py <model base path> [<port>]
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from serving.api.service import Service
from serving.options import Options
from serving.rest.app import create_app


def make_app(options: Options) -> FastAPI:
    """Makes an application that loads the model when it starts, and unloads it when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Service(options) as service, create_app(service, options) as models:
            app.mount("/models", models)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    return app


if __name__ == "__main__":
    base_path, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    uvicorn.run(make_app(Options(model_name="m", model_base_path=base_path)), port=port)
