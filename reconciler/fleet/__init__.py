"""What only shows when agents are looked at together: owners, claims, triggers, readiness.

Everything here is pure: a `Fleet` (and today's date, where it matters) in, values out. `owners`
answers who decides about a path, `claims` what two agents own both, `graph` what starts what,
`load` how many runs start at once, `lint` whether a loop may be left alone, `touches` what an agent
can reach and who can reach a thing.
"""
