"""Two tables in, a model and predictions out: schedulers that need no code of the user's.

    host = TableHost("bank", "bank.csv", "id", label="fraud")              # the party with the label column
    shop = TableCollaborator("shop", "shop.parquet", "customer")
    run_locally(host, shop)                                                # or launch_task(task_id) in each process

They are small subclasses of `HostScheduler` and `CollaboratorScheduler`: read them to write your own. After a run,
`TableHost.from_run(folder, data)` and `TableCollaborator.from_run(folder, data)` make predictions for other rows.
"""

from heterofed.tabular.collaborator import TableCollaborator
from heterofed.tabular.host import TableHost
from heterofed.tabular.runs import LoadedRun, load_run

__all__ = ["LoadedRun", "TableCollaborator", "TableHost", "load_run"]
