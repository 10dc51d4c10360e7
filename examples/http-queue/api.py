"""api.py: the HTTP interface of the queue.

serve.py runs it; /docs in a browser describes it.
"""

import routes_people
import routes_producers
import routes_workers
from broker_queue import BrokerQueue
from desk import Desk, Settings, add_errors
from fastapi import FastAPI
from guard import Guard
from intake import Readers
from table_queue import TableQueue


def create_app(
    queue: TableQueue | BrokerQueue,
    settings: Settings,
    readers: Readers | None = None,
) -> FastAPI:
    """The API on a queue that its caller starts and closes."""
    app = FastAPI(
        title="A queue behind HTTP",
        version="1.0",
        description="Messages go in one by one or as a spreadsheet; workers "
        "claim them with a lease, and complete or fail them.",
    )
    app.state.desk = Desk(queue, settings, readers or Readers())
    app.add_middleware(Guard, settings=settings)
    add_errors(app)
    # First those that are called often, as they are: see Direct.
    app.router.routes += routes_workers.direct.routes
    app.router.routes += routes_producers.direct.routes
    app.include_router(routes_workers.router)
    app.include_router(routes_producers.router)
    app.include_router(routes_people.public)
    app.include_router(routes_people.router)
    if isinstance(queue, TableQueue):
        app.include_router(routes_people.lookups)
    return app
