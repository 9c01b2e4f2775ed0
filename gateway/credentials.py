"""The shapes of credentials, as published by those who issue them: one list for the whole program.

The reconciler refuses them in a config repo (`reconciler.config.secrets`), the gateway in what goes
to models and tools (`gateway.guardrails`). Each pattern means the same to Python's `re`, to `regex`
and, less its look-behind, to RE2. Each takes time linear in the text: what is scanned may have been
written to hang us.
"""

from __future__ import annotations

from typing import Final

KINDS: Final = (
    ("an Anthropic key", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    ("an OpenRouter key", r"\bsk-or-[A-Za-z0-9_-]{20,}"),
    ("an OpenAI key", r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}"),
    ("a GitHub token", r"\b(?:gh[opsur]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    (
        "a GitLab token",
        r"\b(?:gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|ffct)-|gloas-|GR1348941)[A-Za-z0-9_-]{20,}",
    ),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a Google client secret", r"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    ("an Azure storage key", r"\bAccountKey=[A-Za-z0-9+/]{80,}"),
    ("a Slack token", r"\bx(?:ox[abeoprs]|app)-[A-Za-z0-9-]{10,}"),
    ("a Slack webhook", r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}"),
    ("a Stripe key", r"\b(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    ("a PyPI token", r"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
    ("a Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    ("a Docker token", r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    ("a Databricks token", r"\bdapi[0-9a-f]{32}"),
    ("a DigitalOcean token", r"\bdo[opr]_v1_[0-9a-f]{40,}"),
    ("a Groq key", r"\bgsk_[A-Za-z0-9]{40,}"),
    ("an xAI key", r"\bxai-[A-Za-z0-9]{40,}"),
    ("a Perplexity key", r"\bpplx-[A-Za-z0-9]{40,}"),
    ("a Replicate token", r"\br8_[A-Za-z0-9]{30,}"),
    ("a Linear key", r"\blin_(?:api|oauth)_[A-Za-z0-9]{30,}"),
    ("a Notion token", r"\bntn_[A-Za-z0-9]{40,}"),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("a Grafana token", r"\bgls[ac]_[A-Za-z0-9_]{30,}"),
    ("a Vault token", r"\bhv[sb]\.[A-Za-z0-9_-]{20,}"),
    ("a token of this gateway", r"\bilk_[A-Za-z0-9_-]{40,}"),
    ("an age key", r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    (
        "a JSON web token",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+",
    ),
    ("a private key", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"),
)
"""What each is, in words, and its pattern. The first that matches names it."""
