"""The command line as a user meets it: in this process for speed, in another one where streams and start-up matter."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from sonorant.audio.io import write_audio
from sonorant.benchmark.claims import Claim
from sonorant.benchmark.workspace import Workspace
from sonorant.cli.main import VERBS, main
from sonorant.cli.options import overrides
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Score
from sonorant.encoders.conformer import conformer_tiny
from sonorant.recipes.catalogue import load_recipe, preset
from sonorant.tasks.asr.model import CtcRecogniser, FeatureConfig, ctc_config, save_recogniser
from sonorant.text.alphabet import Alphabet


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ctc_config(FeatureConfig(dim=20, normalise="utterance"), conformer_tiny())
    return save_recogniser(CtcRecogniser(config, Alphabet("abcdefgh|")), tmp_path / "model")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    write_audio(path, 0.1 * torch.randn(24000, generator=torch.Generator().manual_seed(0)), 16000)
    return path


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: sonorant {verb}" in text
    assert len(text.splitlines()) > 5


def test_help_lists_every_verb_and_bad_usage_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert main(["transcirbe"]) == 2
    assert "unknown verb 'transcirbe'; did you mean 'transcribe'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["list", "--famly", "asr"])
    assert stopped.value.code == 2
    assert "did you mean '--family'" in capsys.readouterr().err


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "conformer_ctc" in capsys.readouterr().out
    assert main(["show", "deepspeech"]) == 0
    text = capsys.readouterr().out
    assert "--encoder.context" in text
    assert "Hannun" in text


def test_run_refuses_an_unknown_option_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "deepspeech", "--preset", "tiny", "--out", str(tmp_path / "r"), "--encoder.dims", "3"]) == 1
    assert "unknown option 'encoder.dims'; did you mean 'encoder.dim'?" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_overrides_are_read_or_refused() -> None:
    assert overrides(["--a.b-c", "1", "--d=x=y"]) == {"a.b_c": "1", "d": "x=y"}
    assert overrides(["--a", "1", "--a", "2", "--a", "3"]) == {"a": ["1", "2", "3"]}
    with pytest.raises(ConfigError, match="needs a value: --a VALUE"):
        overrides(["--a"])
    with pytest.raises(ConfigError, match="unexpected 'b'"):
        overrides(["b"])


def test_transcribe_writes_every_format(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, suffix in (("text", "txt"), ("json", "json"), ("srt", "srt"), ("vtt", "vtt"), ("ctm", "ctm")):
        assert main(["transcribe", str(clip), "--model", str(model), "--format", kind, "--out", str(tmp_path)]) == 0
        assert (tmp_path / f"clip.{suffix}").is_file()
    row = json.loads((tmp_path / "clip.json").read_text())[0]
    assert row["duration"] == 1.5
    assert " ".join(word["word"] for word in row["words"]) == row["text"]
    assert main(["transcribe", str(clip), "--model", str(model)]) == 0
    assert capsys.readouterr().out == row["text"] + "\n"


def test_one_bad_file_does_not_cost_the_others(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio at all")
    assert main(["transcribe", str(bad), str(clip), str(tmp_path / "none.wav"), "--model", str(model)]) == 1
    good = capsys.readouterr().out
    assert main(["transcribe", str(clip), "--model", str(model)]) == 0
    assert good == capsys.readouterr().out
    assert "bad.wav" in caplog.text
    assert "none.wav" in caplog.text


def test_transcribe_without_a_model_says_what_it_takes(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", str(clip), "--model", str(tmp_path / "nowhere")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_hot_words_need_numbers(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(clip), "--model", str(model), "--hot-word", "ab=much"]) == 1
    assert "expected WORD=BONUS with a number" in capsys.readouterr().err
    assert main(["transcribe", str(clip), "--model", str(model), "--hot-word", "ab=50"]) == 0
    assert "ab" in capsys.readouterr().out.split()


def test_align_gives_the_words(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", str(clip), "Ab, cd!", "--model", str(model)]) == 0
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()] == ["ab", "cd"]
    assert main(["align", str(clip), "xyz", "--model", str(model)]) == 1


def test_score_counts_compares_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref").write_text("u1\tone two three\nu2\tfour five\n")
    (tmp_path / "hyp").write_text("u2\tfour five\nu1\tone too three\n")
    (tmp_path / "worse").write_text("u1\tone\nu2\tnine\n")
    files = [str(tmp_path / name) for name in ("ref", "hyp")]
    assert main(["score", *files, "--against", str(tmp_path / "worse"), "--alignments", "1"]) == 0
    text = capsys.readouterr().out
    assert "0.2" in text
    assert "difference -0.6" in text
    assert "too" in text
    (tmp_path / "short").write_text("u1\tone\n")
    assert main(["score", files[0], str(tmp_path / "short")]) == 1
    assert "missing there: u2" in capsys.readouterr().err
    (tmp_path / "twice").write_text("u1\tone\nu1\ttwo\n")
    assert main(["score", files[0], str(tmp_path / "twice")]) == 1
    assert "'u1' is given twice" in capsys.readouterr().err


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    from sonorant.cli.score_verb import read_lines

    (tmp_path / "a").write_bytes("u1\tone\u2028two\r\nu2\t\n".encode())
    assert read_lines(tmp_path / "a") == {"u1": "one\u2028two", "u2": ""}
    (tmp_path / "b").write_text("")
    assert read_lines(tmp_path / "b") == {}


def test_a_long_sentence_is_no_file(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "ab cd " * 100
    assert main(["align", str(clip), text, "--model", str(model)]) == 1
    assert "frames" in capsys.readouterr().err


def test_two_recordings_of_one_name_are_not_written_over_each_other(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "clip.wav").write_bytes(clip.read_bytes())
    files = [str(clip), str(tmp_path / "b" / "clip.wav")]
    assert main(["transcribe", *files, "--model", str(model), "--out", str(tmp_path / "out")]) == 1
    assert "would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_stopped_training_ends_with_its_signals_status(monkeypatch: pytest.MonkeyPatch) -> None:
    from sonorant.cli import list_verb
    from sonorant.train.doctor import Diagnosis
    from sonorant.train.signals import Interrupted

    for error, status in ((Interrupted("stopped", 15), 143), (Interrupted("stopped", 2), 130), (Diagnosis("flat"), 1)):

        def fail(*args: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(list_verb, "run", fail)
        assert main(["list"]) == status


def test_the_advice_for_other_weights_can_be_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another alphabet: the report names the option, and with it the run goes through."""
    torch.manual_seed(0)
    tiny = preset(load_recipe("deepspeech"), "tiny")
    other = CtcRecogniser(ctc_config(tiny.features, tiny.encoder), Alphabet("abc|"))
    other.fit_normalisation([Batch(0.1 * torch.randn(1, 16000), torch.tensor([16000]), 16000)])
    save_recogniser(other, tmp_path / "other")
    command = ["run", "deepspeech", "--preset", "tiny", "--out", str(tmp_path / "run"), "--quiet", "--lm.order", "0"]
    command += ["--init-from", str(tmp_path / "other")]
    assert main(command) == 1
    advice = next(line for line in capsys.readouterr().err.splitlines() if "--init-from DIR" in line)
    options = shlex.split(advice.split("--init-from DIR")[1])
    assert options == ["--skip", "head.*"]
    assert main([*command, *options, "--skip", "encoder.*"]) == 0
    assert "main/wer" in capsys.readouterr().out


def test_prove_shares_a_corpus_between_seeds_and_stores_the_command_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonorant.cli import prove_verb

    works: list[Workspace] = []

    class Recipe:
        CARD = load_recipe("digits").CARD
        Config = dict
        PRESETS = MappingProxyType({})
        CLAIMS = (Claim("wer", "main", below=0.5),)

        @staticmethod
        def run(config: object, work: Workspace) -> list[Score]:
            works.append(work)
            return [Score("main/wer", 0.1 + 0.01 * work.seed, "lower")]

    monkeypatch.setattr(prove_verb, "load_recipe", lambda name: Recipe)
    monkeypatch.setattr(prove_verb, "resolve", lambda *args: {"x": 1})
    command = ["prove", "digits", "--preset", "tiny", "--seeds", "2", "--seed", "5", "--corpus", "pack:a b", "--x", "1"]
    assert main([*command, "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]) == 0
    assert [work.seed for work in works] == [5, 6]
    assert len({work.folder for work in works}) == 2
    assert {work.corpora for work in works} == {tmp_path / "runs" / "corpora"}
    told = shlex.split(json.loads((tmp_path / "results" / "digits.json").read_text())["command"])
    assert told[0] == "sonorant"
    assert sorted(told[1:]) == sorted(command)


def test_export_makes_a_folder_that_transcribes(model: Path, clip: Path, tmp_path: Path) -> None:
    from sonorant.lm.ngram import train_ngram

    train_ngram(["ab cd", "ef gh"], order=2).save_arpa(tmp_path / "lm.arpa")
    arguments = [
        "export",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--lm",
        str(tmp_path / "lm.arpa"),
        "--lm-weight",
        "0.9",
    ]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out" / "decoder.json").read_text()) == {"lm_weight": 0.9}
    assert main(["transcribe", str(clip), "--model", str(tmp_path / "out")]) == 0


def test_prepare_lists_and_asks_for_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--list"]) == 0
    assert "librispeech" in capsys.readouterr().out
    assert main(["prepare", "librispeech"]) == 1
    assert "--source FOLDER" in capsys.readouterr().err
    assert main(["prepare", "librispeach", "--source", "x", "--out", "y"]) == 1
    assert "did you mean 'librispeech'" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m sonorant.cli.main prepare --list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["prove", "--help"]])
def test_help_is_fast_because_it_imports_no_torch(words: list[str]) -> None:
    call = f"import sys, contextlib; from sonorant.cli.main import main\nwith contextlib.suppress(SystemExit): main({words})"
    code = f"{call}\nprint('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_lm_trains_mixes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("the cat sat\nthe dog ran\n" * 3)
    (tmp_path / "b.txt").write_text("a dog sat\na cat ran\n" * 3)
    (tmp_path / "dev.txt").write_text("the dog sat\na cat sat\n")
    first = ["lm", str(tmp_path / "a.txt"), "--out", str(tmp_path / "a.arpa"), "--order", "2"]
    assert main([*first, "--held-out", str(tmp_path / "dev.txt")]) == 0
    assert "perplexity" in capsys.readouterr().out
    mixed = [
        "lm",
        str(tmp_path / "b.txt"),
        "--out",
        str(tmp_path / "b.arpa"),
        "--order",
        "2",
        "--mix",
        str(tmp_path / "a.arpa"),
    ]
    assert main(mixed) == 1
    assert "--mix needs --held-out" in capsys.readouterr().err
    assert main([*mixed, "--held-out", str(tmp_path / "dev.txt")]) == 0
    assert "weight of this text" in capsys.readouterr().out
    assert "\\2-grams:" in (tmp_path / "b.arpa").read_text()
    assert main(["lm", str(tmp_path / "none.txt"), "--out", str(tmp_path / "c.arpa")]) == 1
    assert "no file" in capsys.readouterr().err
    assert not (tmp_path / "c.arpa").exists()


def test_an_unknown_arm_is_answered_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--preset", "tiny", "--arm", "vioces", "--out", str(tmp_path / "r")]) == 1
    assert "did you mean 'voices'?" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
