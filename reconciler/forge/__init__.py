"""Where people look at changes before they are merged: pull requests, comments, statuses.

`model` is what every forge has in common and the protocol behind which they stand; `commands` reads
what a person asks for in a comment; `people` tells who made a change. `local` is the built-in
forge: pull requests on a branch of the config repo itself, over any git remote, with no server.
"""
