"""The offline gate of a pull request's head: opened, told, and its verdict for the status.

The same rollout machine judges it as judges what is merged; it only never becomes a canary. Its
verdict is bound to (candidate, stable, suite, policy): merged while all of these match, it counts,
and nothing is gated twice.
"""

from __future__ import annotations

from gateway.values import AgentName, derived_id, show_usd
from reconciler.forge.model import Pull, PullNumber, StatusState
from reconciler.record import audit
from reconciler.rollout import store
from reconciler.rollout.model import Rollout, RolloutPolicy, State, Verdict
from reconciler.tick.ceilings import publish_ceilings
from reconciler.tick.context import Context, Declared, Looked
from reconciler.tick.declare import rollout_policy

ACTOR = "interlock"


def open_for_pull(
    context: Context, declared: Declared, pull: Pull, looked: Looked, allowed: bool
) -> bool:
    """Open a rollout for every agent whose release this head changes and whose policy has a gate.

    Without `allowed` nothing is opened. True when one was.
    """
    gated = looked.gated
    if gated is None or not allowed:
        return False
    now = context.clock.now()
    fresh: list[Rollout] = []
    with context.database.transaction() as tx:
        for agent in _judged(declared, looked):
            if agent in looked.held:
                continue
            release = gated.releases[agent]
            pointer = store.pointer(tx, agent)
            stable = pointer["stable"] if pointer else None
            if release.digest == stable or store.quarantined(tx, release.digest) is not None:
                continue
            policy = _policy(declared, gated, agent)
            suite = gated.fleet.agents[agent].suite
            if policy.gate is None or suite is None:
                continue
            earlier = store.of_agent(tx, agent)
            if any(judged_same(r, release.digest, stable, suite.digest, policy) for r in earlier):
                continue
            rollout = Rollout(
                id=derived_id(
                    "rollout", "pull", pull.number, agent, release.digest, stable or "",
                    suite.digest, len(earlier),
                ),
                agent=agent,
                candidate=release.digest,
                stable=stable,
                anchor=pointer["anchor"] if pointer else None,
                policy=policy,
                suite=suite.digest,
                commit=str(pull.head),
                state=State.EVALUATING,
                look=policy.gate.looks[0],
                reason=f"opened for pull request #{pull.number}",
                opened_at=now,
                since=now,
                pull=pull.number,
            )  # fmt: skip
            for one in (release, *gated.sentinels.get(agent, {}).values()):
                store.remember_release(tx, one.digest, one.text(), commit=rollout.commit, now=now)
            store.save(tx, rollout)
            audit.append(
                tx,
                now=now,
                actor=ACTOR,
                action="rollout.open",
                agent=agent,
                subject=rollout.id,
                reason=f"#{pull.number}: {stable or 'nothing'} → {release.digest}",
            )
            fresh.append(rollout)
        publish_ceilings(tx, declared, [rollout.agent for rollout in fresh])
    return bool(fresh)


def judged_same(
    rollout: Rollout, candidate: str, stable: str | None, suite: str, policy: RolloutPolicy
) -> bool:
    """Whether this rollout judges, or has judged, exactly this: then its verdict counts."""
    return (
        (rollout.candidate, rollout.stable, rollout.suite) == (candidate, stable, suite)
        and rollout.policy.gate == policy.gate
        and rollout.state is not State.CANCELLED
    )


def _judged(declared: Declared, looked: Looked) -> list[AgentName]:
    """Agents whose release differs from the one the watched branch asks for."""
    assert looked.gated is not None
    names = looked.gated.releases.keys() if looked.changed is None else looked.changed
    return sorted(
        name
        for name in names
        if name in looked.gated.releases
        and (
            name not in declared.releases
            or looked.gated.releases[name].digest != declared.releases[name].digest
        )
    )


def _policy(declared: Declared, gated: Declared, agent: AgentName) -> RolloutPolicy:
    """How it is judged: as the watched branch says, whatever the head would like."""
    config = declared.fleet.agents.get(agent) or gated.fleet.agents[agent]
    return rollout_policy(config)


def of_pull(context: Context, looked: Looked) -> list[Rollout]:
    """The rollouts that judge what this head would make live, the newest of each agent."""
    if looked.gated is None or context.declared is None:
        return []
    found: list[Rollout] = []
    with context.database.snapshot() as tx:
        for agent in _judged(context.declared, looked):
            config = looked.gated.fleet.agents[agent]
            pointer = store.pointer(tx, agent)
            stable = pointer["stable"] if pointer else None
            policy = _policy(context.declared, looked.gated, agent)
            suite = config.suite.digest if config.suite is not None else ""
            digest = looked.gated.releases[agent].digest
            found += [
                r
                for r in store.of_agent(tx, agent)
                if judged_same(r, digest, stable, suite, policy)
            ][:1]
    return found


def verdict_of(context: Context, pull: Pull, looked: Looked) -> tuple[StatusState, str] | None:
    """State and words of the gate's status; None when nothing of this head is gated."""
    found = of_pull(context, looked)
    if not found:
        return None
    words = "; ".join(f"{r.agent}: {_word(r)}" for r in found)[:140]
    if any(r.verdict is Verdict.FAIL for r in found):
        return StatusState.FAILURE, words
    if all(r.verdict is Verdict.PASS for r in found):
        return StatusState.SUCCESS, words
    if any(not r.final and r.verdict is None for r in found):
        return StatusState.PENDING, words
    return StatusState.FAILURE, words


def told(context: Context, looked: Looked) -> str:
    """Markdown: each gated agent's verdict, or what the gate will cost before it has one."""
    if looked.gated is None or context.declared is None:
        return ""
    rows: list[str] = []
    known = {r.agent: r for r in of_pull(context, looked)}
    for agent in _judged(context.declared, looked):
        config = looked.gated.fleet.agents[agent]
        policy = _policy(context.declared, looked.gated, agent)
        if policy.gate is None:
            rows.append(f"| {agent} | no gate | goes live on merge, proven by nothing |")
        elif agent in looked.held:
            rows.append(f"| {agent} | not run | something on the branch waits for an approval |")
        elif agent in known:
            rows.append(f"| {agent} | {_word(known[agent])} | {_cell(known[agent].reason)} |")
        else:
            cases = len(config.suite.cases) if config.suite is not None else 0
            runs = cases * 2 * policy.gate.looks[-1]
            limit = config.limits.max_cost
            most = f", at most {show_usd(limit * runs)}" if limit is not None else ""
            rows.append(
                f"| {agent} | not run | {cases} cases, up to {runs} runs{most}; somebody of a team "
                "can ask for it with `/interlock gate` |"
            )
    if not rows:
        return ""
    return "\n".join(["| agent | verdict | why |", "|---|---|---|", *rows])


def _word(rollout: Rollout) -> str:
    if rollout.verdict is not None:
        return rollout.verdict.value
    return "running" if not rollout.final else rollout.state.value


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("@", "@\u200b")
    return line if len(line) <= 400 else line[:399] + "…"


def declared_for(context: Context, declared: Declared | None, rollout: Rollout) -> Declared | None:
    """The declaration a rollout is about: a pull request's head has one of its own.

    None when the pull request is closed, or its head is another one now.
    """
    if rollout.pull is None:
        return declared
    looked = context.pulls.get(PullNumber(rollout.pull))
    if looked is None or looked.gated is None or looked.head != rollout.commit:
        return None
    return looked.gated
