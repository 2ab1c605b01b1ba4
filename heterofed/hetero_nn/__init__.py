"""The source system's import paths: scripts written for `alphafed.hetero_nn` need only another import root."""

from heterofed.scheduler.collaborator import CollaboratorScheduler as HeteroNNCollaboratorScheduler
from heterofed.scheduler.host import HostScheduler as HeteroNNHostScheduler

__all__ = ["HeteroNNCollaboratorScheduler", "HeteroNNHostScheduler"]
