"""The API over the models in a repository: arrays in, arrays out."""
