"""The record as people read it: Markdown pages, small SVG charts, CSV.

`pages` says which files a state of the tables makes; the templates are in `record/templates`. Same
rows, same bytes: nothing here knows the time but from the values it is given.
"""

from __future__ import annotations

from reconciler.record.render.pages import agent_files, fleet_page, rollout_files, run_files

__all__ = ["agent_files", "fleet_page", "rollout_files", "run_files"]
