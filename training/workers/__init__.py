"""Devices, and several workers: who they are, how they meet, what they tell one another."""
