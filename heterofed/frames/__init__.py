"""(2) Messages <-> bytes. No pickle, ever."""
