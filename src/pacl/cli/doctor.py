"""pacl doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pacl.cli.console import CANNOT_RUN, DONE, result, result_json, say


@dataclass(frozen=True)
class Doctor:
    """Look at this machine: what pacl needs, what is missing, and how to fix it."""

    json: bool = False
    """Print JSON in place of the table."""


def run_doctor(options: Doctor) -> int:
    """Print the facts; 3 where pacl cannot run."""
    from pacl.runtime.doctor import examine

    facts = examine()
    if options.json:
        result_json([asdict(fact) for fact in facts])
    else:
        width = max(len(fact.name) for fact in facts)
        for fact in facts:
            result(f"{fact.status:<4}  {fact.name:<{width}}  {fact.value}")
            if fact.fix:
                result(f"      {'':<{width}}  fix: {fact.fix}")
    n_failed = sum(fact.status == "fail" for fact in facts)
    say(f"{n_failed} problems keep pacl from running" if n_failed else "pacl can run here")
    return CANNOT_RUN if n_failed else DONE
