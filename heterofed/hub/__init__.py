"""The optional hub: the tasks of several organisations in one place, with a page, a REST interface and notifications.

    page, api  ->  service  ->  access, audit, coordinator  ->  heterofed.tasks (the store)

Training does not depend on it: parties talk to each other as before. It sees names, states, endpoints, public keys,
metric rows and the files that a host chooses to leave there; never a row, an embedding, a gradient or a label.
"""
