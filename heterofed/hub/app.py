"""The hub as one ASGI application."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

from heterofed import __version__
from heterofed.hub import api, migrations
from heterofed.hub.api.asking import TheHub, add_handlers
from heterofed.hub.limits import Guard, Rate, Streams
from heterofed.hub.service import Hub
from heterofed.hub.settings import HubSettings
from heterofed.tasks.database import Database
from heterofed.tasks.store import TaskStore


def open_hub(settings: HubSettings) -> Hub:
    """Open the database, bring it to the newest version, and return the hub in it; nothing is carried out yet.

    Raises:
        ConfigError: the database's URL cannot be used, or a newer heterofed has made it.
        OutputError: the database fails.
    """
    database = Database(settings.database, create=False)
    try:
        migrations.upgrade(database)
    except BaseException:
        database.close()
        raise
    store = TaskStore(
        database, max_output_bytes=settings.max_upload_bytes, advice="Look at the hub's page, or `heterofed task list`."
    )
    return Hub(settings, store)


def create_app(settings: HubSettings, *, page: bool = True) -> FastAPI:
    """Return the hub as an ASGI application.

    Args:
        settings: how it runs.
        page: with the page for people, if NiceGUI is installed; NiceGUI takes one application in a process.

    Raises:
        ConfigError: the database's URL cannot be used, or a newer heterofed has made it.
        OutputError: the database fails.
    """
    hub = open_hub(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.broker is None:
            from heterofed.hub.coordinator.local import InProcessDispatcher

            hub.dispatcher = InProcessDispatcher(hub.store.database, on_news=hub.news.stale)
        else:
            from heterofed.hub.coordinator.celery_dispatcher import CeleryDispatcher  # celery takes a while to load

            hub.dispatcher = CeleryDispatcher(hub.store.database, settings.broker, on_news=hub.news.stale)
        with hub.store.database.held_open():
            hub.dispatcher.start()
            try:
                yield
            finally:
                app.state.closing.set()
                hub.close()

    app = FastAPI(
        title="heterofed hub",
        version=__version__,
        description="Tasks, parties, their course and their results. It never sees rows, embeddings or gradients.",
        docs_url=None,  # their page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.hub = hub
    app.state.closing = threading.Event()
    app.state.streams = Streams()
    app.state.requests = Rate(settings.requests_per_minute)
    app.state.strangers = Rate(settings.strangers_per_minute)
    app.add_middleware(Guard, settings=settings)
    add_handlers(app)
    app.include_router(api.router)
    app.add_api_route("/healthz", _health, methods=["GET"], tags=["health"])
    if page and importlib.util.find_spec("nicegui") is not None:
        from heterofed.hub.page import mount

        mount(app, hub, settings)
    else:
        app.add_api_route("/", _nothing_to_see, include_in_schema=False)
    return app


def _health(hub: TheHub) -> JSONResponse:
    """Say that the hub is up and its database answers."""
    with hub.store.transaction() as connection:
        connection.execute(sa.select(1))
    return JSONResponse({"status": "ok"})


def _nothing_to_see() -> PlainTextResponse:
    return PlainTextResponse("heterofed hub: there is no page here, but /api and /openapi.json.\n")
