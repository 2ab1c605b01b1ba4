"""The local loop of a party: what it keeps and how it goes on. Imports no scheduler."""
