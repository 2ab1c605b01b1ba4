"""The hub's page: tasks, their parties, charts and files for people, on the same address as the REST interface.

Everything that the browser loads comes from the hub itself, so the page works in a network without the internet.
"""

from heterofed.hub.page.mounting import mount

__all__ = ["mount"]
