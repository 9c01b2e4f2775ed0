"""What each document of the config repo may say: one strict model per kind.

`KINDS` maps the top-level key that tells what a file is to the model of the whole file.
"""

from __future__ import annotations

from reconciler.config.models.agent import AgentFile
from reconciler.config.models.evals import CaseFile, RecordedFile, SentinelFile, SuiteFile
from reconciler.config.models.fields import Document
from reconciler.config.models.fleet import FleetFile, LockFile, TeamsFile
from reconciler.config.models.platform import BudgetsFile, ModelsFile, ScriptFile
from reconciler.config.models.principals import PrincipalsFile
from reconciler.config.models.rules import CachesFile, GuardrailsFile, RateLimitsFile
from reconciler.config.models.servers import ServersFile

KINDS: dict[str, type[Document]] = {
    "fleet": FleetFile,
    "teams": TeamsFile,
    "lock": LockFile,
    "providers": ModelsFile,
    "models": ModelsFile,
    "virtual_models": ModelsFile,
    "servers": ServersFile,
    "destructive": ServersFile,
    "budgets": BudgetsFile,
    "rate_limits": RateLimitsFile,
    "guardrails": GuardrailsFile,
    "caches": CachesFile,
    "principals": PrincipalsFile,
    "script": ScriptFile,
    "agent": AgentFile,
    "suite": SuiteFile,
    "case": CaseFile,
    "sentinel": SentinelFile,
    "recorded": RecordedFile,
}

__all__ = ["KINDS", "Document"]
