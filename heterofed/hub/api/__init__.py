"""The REST interface: each route asks `heterofed.hub.service`, and says the answer as `heterofed.tasks.forms` does."""

from fastapi import APIRouter

from heterofed.hub.api import parties, tasks, users

router = APIRouter()
for each in (tasks, parties, users):
    router.include_router(each.router)

__all__ = ["router"]
