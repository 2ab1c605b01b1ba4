"""(5) Loss -> gradients, and their way back across the cut."""
