"""Agents and skills of other tools, brought into a config repo.

What people have is Markdown with front matter, written by many hands for a program that is
lenient: front matter that is no YAML, tools that mean nothing here, names with capitals. The rule
of this room: nothing is granted that was not there before, and nothing is lost without a word.
What has no counterpart is said in the report and stands as a comment in the file that is made.
"""

from reconciler.config.importers.claude import Brought, Known, brought_agent
from reconciler.config.importers.folder import (
    MAX_SOURCES,
    SkillSource,
    Sources,
    TextSource,
    find_sources,
)
from reconciler.config.importers.skills import BroughtSkill, brought_skill, skill_name

__all__ = [
    "MAX_SOURCES",
    "Brought",
    "BroughtSkill",
    "Known",
    "SkillSource",
    "Sources",
    "TextSource",
    "brought_agent",
    "brought_skill",
    "find_sources",
    "skill_name",
]
