"""Plain networks of convolutions and rectifiers, the paper's among them."""
