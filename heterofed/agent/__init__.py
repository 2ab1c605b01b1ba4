"""An agent at a party: it listens to where tasks are kept, checks this party's data, and starts what its owner
registered when a task is launched.

Nobody sends code: a task's record says which task is launched, and never what is to run. The classes are those that the
owner has named on the agent's command line, and nothing else is ever imported.
"""
