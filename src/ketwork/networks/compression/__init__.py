"""Networks made smaller: what their states do not hold is cut, without training."""
