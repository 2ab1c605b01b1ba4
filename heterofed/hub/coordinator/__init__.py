"""The coordinator: what happens on the hub when the parties of a task have said that a round, or its test, is done.

    dispatch (called inside the caller's transaction)  ->  tables  <-  work  ->  trainer  ->  events, notifications
    local, celery_dispatcher, worker: who calls `work`     sender: HTTP callbacks     sweeper: what was left behind

It follows a training and tells who listens; it does not run it. Parties train on while the hub is down.
"""
