"""Dialogues mixed from recordings and synthetic callers by a seeded recipe, with true times exact to the sample.

    python -m benchmarks.dialogues --list report --kind echo --count 5 --write /tmp/listen

There are two lists, disjoint by speaker, voice, room, background and sentence: figures are chosen on `tune`, and judged on `report`. Kinds:

- turn: a whole turn of the caller's, of people who talk to a machine or synthetic, then silence. The caller may pause inside; only the
  end is an end.
- read: a learner of English reads a sentence aloud, some word by word: judged apart, as nobody talks to a machine like this.
- pause: a synthetic caller who hesitates in the middle, or one of the `turn_pairs`, parted where the longer of a pair goes on. The silence
  between is log-normal, median 500 ms (sigma 0.6, cut to 200 to 2,000): about what our hesitant recordings have (median 450).
- backchannel, noise, others, echo, interruption: something is heard while the agent speaks. The caller has spoken before, so that the
  server may know how they sound; the agent's reply is the pocket voice's.
"""

from benchmarks.dialogues.recipe import KINDS, Dialogue, Kind, load

__all__ = ["KINDS", "Dialogue", "Kind", "load"]
