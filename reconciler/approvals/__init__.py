"""Approvals: who said yes to what, and what is in force because of it.

What an agent or a setting may newly do is a *loosening* (reconciler.plan finds them). A loosening
goes live when the owners of the stricter value have approved exactly it; until then the value
before it stays in force, by whatever route the change reached the branch.

- `decide`: whether a person's word counts, and whether a subject has all the words it needs. Pure.
- `restore`: a fleet with the units that are not approved put back to what is in force. Pure.
- `store`: approvals, what waits for one, and what is in force, as rows.
"""
