"""The settings that classes and `veridical check` have are those that the shared tests hold to be neutral."""

from veridical.flows.checkup.run import neutral_settings
from veridical.pipelines.registry import DECODERS

from .. import table


def test_every_decoder_has_the_neutral_settings_of_the_shared_tests(name):
    neutral = table.neutral(name)
    assert neutral.is_neutral
    assert type(neutral)(**neutral.neutral) == neutral
    assert DECODERS.make(neutral_settings(name)[0]) == neutral


def test_a_decoder_off_its_neutral_strength_is_not_neutral(name):
    entry = table.entry(name)
    assert table.acting(name).is_neutral == (not entry.acts)
    for settings in neutral_settings(name)[1:]:
        assert not DECODERS.make(settings).is_neutral


def test_every_decoder_with_faint_settings_in_words_has_them_for_users(name):
    assert (len(neutral_settings(name)) == 2) == isinstance(table.entry(name).faint, str)
