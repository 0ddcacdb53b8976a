"""The writer's half of the contract between training and serving."""
