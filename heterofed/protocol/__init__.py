"""Who may say what, when. No input or output, no torch."""
