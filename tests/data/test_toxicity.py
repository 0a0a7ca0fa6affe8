"""Toxic comments: what is found, and above all what is not: the harsh words of our trade."""

from __future__ import annotations

import codecs
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.errors import ConfigError
from highrise.data import toxicity
from highrise.data.build import build_dataset
from highrise.data.config import TOXIC_CATEGORIES, CleaningConfig, DataConfig
from highrise.data.toxicity import comments, is_toxic
from tests.data.conftest import MakeRepository, module
from tests.data.test_streams import fates

SLUR = codecs.decode("snttbgf", "rot13")

TOXIC = [
    ("python", f"x = 1  # for {SLUR}\n", "identity attack"),
    ("python", "# all muslims are vermin\n", "identity attack"),
    ("python", "# if this fails go kill yourself\n", "threat"),
    ("c", "/* I will find you\n * and whoever merged this */\nint x;\n", "threat"),
    ("java", "// whoever wrote this must be a complete idiot\n", "insult"),
    ("java", "/* You are such\n * a moron. */\n", "insult"),
    ("python", '"""Fuck you, reader."""\n', "insult"),
    ("markdown", "These stupid idiots changed the interface.\n", "insult"),
    ("python", "# a site about blowjobs\n", "sexual"),
]

CODE_WORDS = [
    "# kill the child process, then its orphans and zombies; abort when the master dies",
    "# kill -9, killall, kill_worker(pid), SIGKILL, the killer feature, kill this thread yourself if it hangs",
    "# master/slave replication, blacklist and whitelist, the slave dies with its master",
    "# execute, terminate, destroy, nuke, purge, dump core, crash and burn, shoot the messenger",
    "# a worker process should kill itself; go kill yourself, worker process (SIGTERM)",
    "# commit suicide when the watchdog barks; a dead letter, a poison pill, a suicide note in the log",
    "# retarded potential, flame retardant, retards the clock; idiot-proof, an idiom, dummy, stupid simple",
    "# strip, penetration test, male and female connectors, gender changer, sex of the patient, virgin memory",
    "# abort, abortion of a transaction; fat, thin, lame MP3 encoder, gimp, bastard sword, hacker, cracker",
    "# assembly, assert, class, pass, bypass, Scunthorpe, cockpit, shuttlecock, analysis, cumulative, Essex",
    "# shit happens: this damn hack is ugly as hell, what a crap interface, WTF",
    "# hate speech detection: the model flags threats; women and men, blacks and whites of the image",
    "# garbage, trash, evil eval, brain-dead servers, sick leave, black box, white space, native code",
    "# you are the owner; you idle; those bits; these morphisms; screw drive, screwed joint; go to helper()",
    "# bomb: zip bomb, fork bomb, logic bomb, bombard; gun, bullet list, trigger, fire the event, target",
]


@pytest.mark.parametrize(("language", "text", "category"), TOXIC)
def test_toxic_comments_are_found(language: str, text: str, category: str) -> None:
    found = is_toxic(language, text, TOXIC_CATEGORIES)
    assert found is not None and found.startswith(f"{category}: ")
    assert is_toxic(language, text, ()) is None


@pytest.mark.parametrize("text", CODE_WORDS)
def test_words_of_our_trade_stay(text: str) -> None:
    assert is_toxic("python", text + "\n", CleaningConfig().toxic) is None


def test_code_outside_comments_is_not_asked() -> None:
    assert is_toxic("python", f"WORDS = {[SLUR]!r}\n", TOXIC_CATEGORIES) is None
    assert comments("python", "x = 1  # one\n'''two\nthree'''\n") == ["# one", "'''two\nthree'''"]
    assert comments("markdown", "one\n\ntwo") == ["one", "two"]


def test_the_detail_masks_the_words() -> None:
    assert is_toxic("python", "# you are a moron\n", TOXIC_CATEGORIES) == "insult: you are a m***n"


def test_the_standard_library_is_civil() -> None:
    """Thirteen thousand functions of real code: every alarm would be a false one."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = {path.name: path.read_text("utf-8", "replace") for path in sorted(folder.glob("*.py"))}
    alarms = {name: found for name, text in texts.items() if (found := is_toxic("python", text, TOXIC_CATEGORIES))}
    assert alarms == {}


WORDS = ["you are", "an", "idiot", "go kill", "yourself", "#", "\n", "stupid", "* ", SLUR, "whites", "are", "inferior"]
WORDS += ["i hate", "arabs", "FUCK", "off", "kys", "go to hell", "douchebags", "dumb", "asses", "ass", "hole", "bitch"]


@given(st.lists(st.sampled_from(WORDS)))
def test_no_gate_is_shut_where_a_pattern_matches(words: list[str]) -> None:
    text = "# " + " ".join(words)
    plain = toxicity._SPACE.sub(" ", text)
    matching = {number for number, (_, pattern) in enumerate(toxicity._COMPILED) if pattern.search(plain)}
    assert matching <= set(toxicity._GATES.open(text))


def test_a_build_drops_them_from_reference_material(make_repository: MakeRepository, tmp_path: Path) -> None:
    folder = make_repository("other", {"a.py": module(1), "b.py": module(2) + "# you are a moron\n"})
    config = DataConfig(sources=(str(folder),), reference=(str(folder),))
    build_dataset(config, tmp_path / "out", workers=0)
    assert fates(tmp_path / "out")["other:b.py"] == ("toxic", "insult: you are a m***n")
    assert build_dataset(DataConfig(sources=(str(folder),)), tmp_path / "own", workers=0)["documents"] == 2
    with pytest.raises(ConfigError, match="toxic names"):
        CleaningConfig(toxic=("rudeness",))
