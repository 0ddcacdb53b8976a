"""The REST API."""

from serving.rest.app import create_app

__all__ = ["create_app"]
