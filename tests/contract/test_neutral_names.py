"""The settings that `veridical check` uses are those that the shared tests hold to be neutral."""

from veridical.decoders.neutral import FAINT, NEUTRAL
from veridical.pipelines.registry import DECODERS

from . import table


def test_every_decoder_has_the_neutral_settings_of_the_shared_tests(name):
    assert name in NEUTRAL, f'add the settings at which "{name}" is plain decoding to decoders/neutral.py'
    assert DECODERS.make(NEUTRAL[name]) == table.neutral(name)


def test_every_decoder_with_faint_settings_in_words_has_them_for_users(name):
    faint = table.entry(name).faint
    assert (name in FAINT) == isinstance(faint, str)
    if name in FAINT:
        assert DECODERS.make(FAINT[name]) != DECODERS.make(NEUTRAL[name])


def test_no_name_is_left_behind():
    assert set(NEUTRAL) <= set(DECODERS.names)
