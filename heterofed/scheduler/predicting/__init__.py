"""Predictions with what a completed run has trained: the host asks for embeddings of rows, collaborators answer."""
