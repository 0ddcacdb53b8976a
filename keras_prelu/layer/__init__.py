"""Layers: the learnt rectifier with its gradient and slopes, and spatial pyramid pooling."""
