"""`interlock demo`: the whole story on a temporary repo, told by running the real commands."""
