"""The API over the models in a repository: arrays in, arrays out."""

from serving.api.service import Service

__all__ = ["Service"]
