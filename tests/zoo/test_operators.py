"""Faults in the kernels of torch's operators, where a program has no place for an op of ours."""

from __future__ import annotations

import pytest

# (program, operator, number of the call, phase, module, what its output is)
SAMPLE = [
    ("encoder", "aten::_transformer_encoder_layer_fwd", "1", "forward", "encoder.layers.1", ""),
    ("generate static", "aten::index_copy_", "3", "forward", "model.layers.1.self_attn", ""),
    ("optimizers AdamW fused", "aten::_fused_adamw_", "1", "optimizer", "", "head.weight"),
    ("scripted", "aten::mm", "5", "backward", "looping", ""),
]
FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"
NORM = "aten::native_layer_norm"
WHOLE = [
    ("amp", "aten::_amp_foreach_non_finite_check_and_unscale_", "1", "forward", "", ""),
    ("attention", FLASH, "1", "forward", "", ""),
    ("attention", f"{FLASH}_backward", "1", "backward", "", ""),
    ("compiled aot_eager", f"{NORM}_backward", "1", "backward", "1._orig_mod", ""),
    ("generate dynamic", "aten::silu", "3", "forward", "model.layers.1.mlp.act_fn", ""),
    (
        "optimizers AdamW foreach",
        "aten::_foreach_addcdiv_.ScalarList",
        "1",
        "optimizer",
        "",
        "head.weight",
    ),
    ("optimizers AdamW loop", "aten::addcdiv_", "5", "optimizer", "inner", ""),
    (
        "optimizers Adam foreach",
        "aten::_foreach_addcdiv_.ScalarList",
        "1",
        "optimizer",
        "",
        "head.weight",
    ),
    ("optimizers Adam fused", "aten::_fused_adam_", "1", "optimizer", "", "head.weight"),
    ("optimizers SGD foreach", "aten::_foreach_add_.List", "1", "optimizer", "", "inner.weight"),
    ("optimizers SGD fused", "aten::_fused_sgd_", "1", "optimizer", "", "head.weight"),
    ("scripted", "aten::addmm", "9", "forward", "looping", ""),
    ("trainer", NORM, "3", "forward", "transformer.h.0.ln_1", ""),
    ("trainer", f"{NORM}_backward", "1", "backward", "transformer.h.0.ln_2", ""),
    ("transforms", "aten::sin", "2", "forward", "", ""),
]


@pytest.mark.parametrize(
    ("program", "operator", "call", "phase", "module", "output"),
    [*SAMPLE, *(pytest.param(*case, marks=pytest.mark.whole) for case in WHOLE)],
)
def test_planted_in_a_kernel(zoo, program, operator, call, phase, module, output) -> None:
    name, *words = program.split()
    result = zoo(name, fault=True, words=tuple(words), PLANT_OP=operator, PLANT_CALL=call)
    assert result.code == 1, result.stderr
    op = operator.replace("::", ".")
    assert result.named() == (phase, module, op if op.count(".") > 1 else f"{op}.default")
    found = result.report["first_divergence"]
    assert found["output_name"] == output
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1
    if name == "encoder":
        # The fast path is kept: one fused op a layer, in each of two calls.
        within = [e.key for e in result.events() if e.key.module.startswith("encoder.layers")]
        assert [key.op for key in within if key.phase == "forward"] == [f"{op}.default"] * 4


@pytest.mark.whole
def test_planted_inside_flex_attention(zoo) -> None:
    # One op, whatever is within.
    result = zoo("flex", fault=True, PLANT_OP="aten::bmm", PLANT_CALL="1")
    assert result.named() == ("forward", "", "higher_order.flex_attention")
    assert result.report["first_divergence"]["call_site"].startswith("flex.py:")
