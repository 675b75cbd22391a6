"""Policies: Cedar texts in, decisions out. Pure: values in, values out; callers read the files.

``load_policy_set(sources, tools)`` once, then ``evaluate(policies, facts)`` for each request.
"""

from charter.policies.evaluate import evaluate, evaluate_trial
from charter.policies.explain import Explanation, PolicyNote, explain
from charter.policies.policy_set import PolicySet, PolicySources, load_policy_set
from charter.policies.replay import Change, compare, shadow
from charter.policies.shipped import shipped_files, shipped_sources, was_shipped
from charter.policies.testing import CaseResult, run_policy_tests
from charter.policies.visibility import could_ever, could_ever_of, uncovered

__all__ = [
    "CaseResult",
    "Change",
    "Explanation",
    "PolicyNote",
    "PolicySet",
    "PolicySources",
    "compare",
    "could_ever",
    "could_ever_of",
    "evaluate",
    "evaluate_trial",
    "explain",
    "load_policy_set",
    "run_policy_tests",
    "shadow",
    "shipped_files",
    "shipped_sources",
    "uncovered",
    "was_shipped",
]
