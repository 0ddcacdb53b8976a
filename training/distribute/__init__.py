"""The devices and the machines that train together."""
