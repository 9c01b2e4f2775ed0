"""A plan for people: in a terminal, and as a comment on a pull request. Pure, plan in, text out."""

from reconciler.plan.render.markdown import MARKER, comment
from reconciler.plan.render.terminal import terminal

__all__ = ["MARKER", "comment", "terminal"]
