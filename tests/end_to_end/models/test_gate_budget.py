"""A budget of time on the embedded model, where a second is a position of a row that its decoder computes."""

import pytest

from veridical.datasets.world import scene
from veridical.flows.captioning.request import EMBEDDED
from veridical.flows.gating import budget as budgets
from veridical.flows.gating.budget import fit
from veridical.pipelines.model.spec import load


def test_what_the_model_computes_in_the_gates_run_is_within_the_budget(monkeypatch):
    """Counted positions: ungated vcd computes each of its own and the branch's; the gate's branch is read late."""
    monkeypatch.setattr(budgets, "SHARES", (0.05, 0.5))
    lvlm, computed = load(EMBEDDED), []

    def count(module, arguments, named):
        fed = (named.get("inputs_embeds"), named.get("input_ids"), *arguments)
        rows, width = next(value for value in fed if value is not None).shape[:2]
        computed.append(rows * width)

    opened, options = [scene("test", number).image for number in range(2)], {"batch_size": 2, "max_new_tokens": 12}
    hook = lvlm.decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        choice = fit(lvlm, "vcd", opened, 1.8, clock=lambda: float(sum(computed)), **options)
        cost, acted = {}, 0.0
        for decoders in ((), (choice.chosen.decoder,)):
            computed.clear()
            answers = lvlm.caption(opened, decoders, **options)
            cost[decoders], acted = sum(computed), sum(sum(one["acted"] for one in a.acted.values()) for a in answers)
    finally:
        hook.remove()
    assert choice.chosen.detector is not None
    assert cost[choice.chosen.decoder,] / cost[()] == pytest.approx(choice.chosen.ratio)
    assert choice.chosen.ratio <= 1.8 < choice.tried[0].ratio
    assert acted / 24 == pytest.approx(choice.chosen.share)
