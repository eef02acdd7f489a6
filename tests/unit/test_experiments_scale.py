"""Bytes of collectives in the text of a compiled program."""

from experiments import scale

TEXT = """\
HloModule jit_step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body.1 (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %all-gather.2 = bf16[16,4]{1,0} all-gather(%x), dimensions={0}
}

%cond.1 (p: (s32[], f32[8,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main.3 (a: f32[8,4]) -> f32[] {
  %loop = (s32[], f32[8,4]) while(%t), condition=%cond.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"6"}}
  %all-reduce = (f32[10,3]{1,0}, f32[]) all-reduce(%a, %b), to_apply=%add
  ROOT %done = f32[] all-reduce-start(%c), to_apply=%add
}
"""


def test_what_a_loop_moves_counts_as_often_as_it_runs():
    assert scale.collectives(TEXT) == {"all-gather": 6 * 16 * 4 * 2, "all-reduce": 4 * (30 + 1 + 1)}


def test_a_program_of_one_device_moves_nothing():
    alone = TEXT.replace("all-", "no-")
    assert scale.collectives(alone) == {}
