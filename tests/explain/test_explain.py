"""Explaining recordings from a checkpoint alone: what is written, what is read, what is refused."""

import json
import math
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from command_line import exit_code, only_checkpoint, only_folder, tiny_run
from explainable import SpectrogramNetwork, WaveformNetwork, checkpoint, tone
from fake_corpus import ToneCorpus

import audio_lrp
from audio_lrp.attribution.composites import PRESETS
from audio_lrp.checkpoints import load_network
from audio_lrp.commands.explain import main
from audio_lrp.data.corpora.listing import CLOSED, HIDDEN
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.representation import Spectrogram, Waveform
from audio_lrp.errors import UsageError, UserError
from audio_lrp.explain.inputs import find_audio_files, windows
from audio_lrp.explain.recordings import explain
from audio_lrp.models import AudioNet, Classifier
from audio_lrp.timefrequency.audible import write_wav

PRESETS_OF_ALL_KINDS = [
    *PRESETS,
    *("zennit_epsilon_gamma_box", "zennit_epsilon_plus_flat"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("zennit_epsilon_plus", "zennit_epsilon_alpha2_beta1", "zennit_epsilon_alpha2_beta1_flat")
    ),
]


@pytest.fixture(autouse=True)
def networks_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the networks of this file count as an installed plugin's."""
    monkeypatch.setattr("audio_lrp.checkpoints.plugin_packages", lambda: {"explainable"})


@pytest.fixture
def waveform_checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return checkpoint(tmp_path / "waveform.ckpt", WaveformNetwork(2), "waveform", 2, class_names=["low", "high"])


@pytest.fixture
def spectrogram_checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = SpectrogramNetwork(3)
    return checkpoint(tmp_path / "spectrogram.ckpt", network, "spectrogram", 3, spectrogram_scale="decibel")


class Links(HTMLParser):
    """Everything a page links to, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data) -> None:
        self.text += data


def test_a_waveform_networks_explanation_is_complete(tmp_path, waveform_checkpoint) -> None:
    recording = tone(tmp_path / "in" / "tone.wav", 0.5)
    report = explain(waveform_checkpoint, [recording], tmp_path / "out", band=(300, 600))
    assert report.page == tmp_path / "out" / "index.html"
    folder = tmp_path / "out" / "tone"
    sounds = ["original", "positive", "negative", "positive-300-to-600-Hz", "negative-300-to-600-Hz"]
    assert {path.name for path in folder.iterdir()} == {
        *("explanation.json", "relevance.npz", "waveform.png", "time-frequency.png"),
        *(f"{name}.wav" for name in sounds),
    }
    found = json.loads((folder / "explanation.json").read_text())
    assert found["file"] == str(recording)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert found["prediction"] == max(found["probabilities"], key=found["probabilities"].get)
    (window,) = found["windows"]
    assert (window["begin_seconds"], window["end_seconds"]) == (0.0, 0.5)
    assert window["explained_class"] == found["prediction"]

    arrays = np.load(folder / "relevance.npz")
    assert arrays["input"].shape == arrays["relevance"].shape == (1, 1, 8000)
    assert arrays["time_frequency"].shape == (1, len(arrays["frequencies"]), len(arrays["times"])) == (1, 227, 227)
    total = arrays["relevance"].sum()
    assert arrays["time_frequency"].sum() == pytest.approx(total, abs=1e-5 * float(np.abs(arrays["relevance"]).sum()))
    assert window["relevance"] == pytest.approx(total, rel=1e-5)
    assert arrays["first_sample"].tolist() == [-2000]
    assert (arrays["input"][0, 0, :2000] == 0).all()
    network = load_network(waveform_checkpoint).network
    torch.testing.assert_close(network(torch.from_numpy(arrays["input"])), torch.from_numpy(arrays["logits"]))


def test_sounds_are_as_loud_as_the_original_and_as_long(tmp_path, waveform_checkpoint) -> None:
    explain(waveform_checkpoint, [tone(tmp_path / "tone.wav", 0.8)], tmp_path / "out")
    measured = []
    for name in ("original", "positive", "negative"):
        path = tmp_path / "out" / "tone" / f"{name}.wav"
        details = soundfile.info(path)
        assert (details.samplerate, details.channels, details.subtype, details.frames) == (8000, 1, "PCM_16", 6400)
        sound = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        assert sound.abs().max() < 1
        measured.append(torchaudio.functional.loudness(sound[None], 8000).item())
    assert measured == pytest.approx([measured[0]] * 3, abs=0.1)
    assert measured[0] > -30  # the recording peaks at a hundredth of full scale


def test_a_spectrogram_networks_explanation_needs_nothing_but_the_checkpoint(tmp_path, spectrogram_checkpoint) -> None:
    report = explain(spectrogram_checkpoint, [tone(tmp_path / "tone.flac", 1.0)], tmp_path / "out", target="2")
    arrays = np.load(tmp_path / "out" / "tone" / "relevance.npz")
    assert arrays["input"].shape == arrays["relevance"].shape == (1, 1, 227, 227)
    assert arrays["input"].min() >= -80
    assert arrays["input"].max() == 0  # decibels, as the checkpoint says
    assert arrays["target"].tolist() == [2]
    assert "time_frequency" not in arrays
    assert list(report.recordings[0].probabilities) == ["0", "1", "2"]
    assert (tmp_path / "out" / "tone" / "positive.wav").is_file()


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (11025, 1), (8000, 2)])
def test_any_rate_and_number_of_channels(tmp_path, waveform_checkpoint, rate, channels) -> None:
    explain(waveform_checkpoint, [tone(tmp_path / "tone.wav", 0.5, rate, channels)], tmp_path / "out")
    original, _ = soundfile.read(tmp_path / "out" / "tone" / "original.wav")
    assert len(original) == pytest.approx(4000, abs=1)
    spectrum = np.abs(np.fft.rfft(original))
    assert spectrum.argmax() * 8000 / len(original) == pytest.approx(440, abs=2)


def test_long_recordings_are_explained_in_overlapping_windows(tmp_path, waveform_checkpoint) -> None:
    explain(waveform_checkpoint, [tone(tmp_path / "tone.wav", 2.2)], tmp_path / "out")
    folder = tmp_path / "out" / "tone"
    found = json.loads((folder / "explanation.json").read_text())
    seconds = [(window["begin_seconds"], window["end_seconds"]) for window in found["windows"]]
    assert seconds == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.2, 2.2)]
    mean = np.mean([list(window["probabilities"].values()) for window in found["windows"]], axis=0)
    assert list(found["probabilities"].values()) == pytest.approx(list(mean), abs=1e-5)
    assert np.load(folder / "relevance.npz")["relevance"].shape == (4, 1, 8000)
    assert soundfile.info(folder / "003-positive.wav").frames == 8000
    assert len(list(folder.glob("*.png"))) == 8


@pytest.mark.parametrize("placement", ["random", "centered"])
@pytest.mark.parametrize("length", [1, 7999, 8000, 8001, 12000, 20001])
def test_windows_cover_every_sample(length, placement) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    covered = np.zeros(length)
    for window in windows(samples, placement):
        part = window.signal[window.offset : window.offset + window.length]
        np.testing.assert_array_equal(part, samples[window.begin : window.begin + window.length])
        assert window.signal.shape == (8000,)
        assert np.count_nonzero(window.signal) == window.length
        covered[window.begin : window.begin + window.length] += 1
    if placement == "random":  # else the quiet beginning of the ramp may be left out
        assert covered.min() >= 1
        assert covered.max() <= 3


@pytest.mark.parametrize("length", [3000, 8000, 8001, 30_000])
def test_a_word_lies_in_the_middle_of_its_windows(length) -> None:
    samples = np.zeros(length, dtype=np.float32)
    samples[500:1500] = np.sin(np.arange(1000))
    sounding = [window for window in windows(samples, "centered") if window.signal.any()]
    assert len(sounding) == 1
    weights = np.abs(sounding[0].signal)
    assert abs((weights * np.arange(8000)).sum() / weights.sum() - 4000) <= 1


def test_windows_moved_to_the_same_sound_are_explained_once() -> None:
    word = np.sin(np.arange(3000)).astype(np.float32)
    samples = np.full(13_000, 1e-3, dtype=np.float32)  # the noise of the room moves the centroids a little apart
    samples[4500:7500] = word
    (window,) = windows(samples, "centered")
    assert abs(window.begin - window.offset - 2000) < 100
    samples[9000:12_000] = word
    begins = [window.begin - window.offset for window in windows(samples, "centered")]
    assert len(begins) > 1
    assert min(np.diff(begins)) >= 800


def test_the_page_links_to_files_that_exist_and_to_nothing_else(tmp_path, waveform_checkpoint) -> None:
    name = "<script>alert(1)</script> & $x_1$ 'ä' #1%.wav"
    tone(tmp_path / "in" / name, 0.3)
    tone(tmp_path / "in" / "deep" / "er" / "two.flac", 1.3)
    explain(waveform_checkpoint, [tmp_path / "in"], tmp_path / "out")
    page = Links(tmp_path / "out" / "index.html")
    assert "script" not in page.tags
    assert name in page.text
    files = [target for target in page.targets if not target.startswith("#")]
    assert len(files) == 2 + 2 + 3 + 2 + 2 * 5
    for target in files:
        assert (tmp_path / "out" / unquote(target)).is_file()


def test_folders_are_searched_and_names_stay_unique(tmp_path) -> None:
    for name in ("a/x.wav", "a/x.flac", "A-x.WAV", "b/.hidden/x.wav", "b/.x.wav", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    found, left_out = find_audio_files([tmp_path, tmp_path / "a" / "x.wav"])
    assert {file.name for file in found} == {"a/x.wav", "a/x.flac", "A-x.WAV"}
    assert left_out == {tmp_path / "b" / ".x.wav": HIDDEN, tmp_path / "b" / ".hidden" / "x.wav": HIDDEN}
    assert len({file.folder.lower() for file in found}) == 3
    assert [file.folder for file in find_audio_files([tmp_path / "a" / "x.wav"])[0]] == ["x"]


def test_recordings_of_one_name_in_several_folders_are_told_apart(tmp_path) -> None:
    for folder in "ab":
        tone(tmp_path / folder / "x.wav", 0.1)
    tone(tmp_path / "b" / "y.wav", 0.1)
    files, _ = find_audio_files([tmp_path / "a", tmp_path / "b"])
    assert [file.name for file in files] == [str(tmp_path / "a" / "x.wav"), str(tmp_path / "b" / "x.wav"), "y.wav"]
    assert [file.folder for file in files] == ["x", "x-2", "y"]


def test_recordings_in_all_formats_are_found_and_others_counted(tmp_path, waveform_checkpoint, capsys) -> None:
    for suffix in (".WAV", ".flac", ".mp3", ".opus", ".aif"):
        path = tmp_path / "in" / suffix[1:] / f"tone{suffix}"
        path.parent.mkdir(parents=True)
        kind = {".opus": "OGG", ".aif": "AIFF"}.get(suffix, suffix[1:].upper())
        soundfile.write(
            path, np.sin(np.arange(900)) / 9, 8000, format=kind, subtype="OPUS" if suffix == ".opus" else None
        )
    for name in ("a.m4a", "b.wma", "._c.wav", "notes.txt"):
        (tmp_path / "in" / name).touch()
    main(["--checkpoint", str(waveform_checkpoint), str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert len(list((tmp_path / "out").glob("*/explanation.json"))) == 5
    assert "2 files in a format that cannot be read (convert to WAV or FLAC)" in printed.err
    assert "1 file with a hidden name or in a hidden folder, such as in/._c.wav" in printed.err
    assert "2 files in a format" in Links(tmp_path / "out" / "index.html").text


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch) -> None:
    tone(tmp_path / "a" / "x.wav", 0.1)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refused(folder: Path) -> object:  # permissions do not hold root back
        if folder == tmp_path / "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refused)
    found, left_out = find_audio_files([tmp_path])
    assert [file.name for file in found] == ["a/x.wav"]
    assert left_out == {tmp_path / "closed": CLOSED}


def test_pipes_are_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UserError, match=r"pipe\.wav is neither a file nor a folder: name recordings"):
        find_audio_files([tmp_path / "pipe.wav"])


def test_unreadable_recordings_are_left_out_and_named(tmp_path, waveform_checkpoint, capsys) -> None:
    tone(tmp_path / "in" / "good.wav", 0.5)
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF....nothing")
    with pytest.raises(UserError, match=r"^1 of 2 recordings could not be explained"):
        main(["--checkpoint", str(waveform_checkpoint), str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert "bad.wav is not explained" in printed.err
    assert "good.wav: " in printed.out
    assert str(tmp_path / "out" / "index.html") in printed.out
    assert "bad.wav" in Links(tmp_path / "out" / "index.html").text


def test_names_in_an_old_encoding_keep_no_other_recording_from_being_explained(
    tmp_path, waveform_checkpoint, capsys
) -> None:
    tone(tmp_path / "in" / "good.wav", 0.5)
    tone(tmp_path / "in" / "jose.wav", 0.5)
    (tmp_path / "in" / "jose.wav").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/jos\xe9.wav"))
    with pytest.raises(UserError, match=r"^1 of 2 recordings could not be explained"):
        main(["--checkpoint", str(waveform_checkpoint), str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["good"]
    reason = "its name is not in UTF-8: rename the file or folder"
    assert rf"audio-lrp: warning: jos\xe9.wav is not explained: {reason}" in capsys.readouterr().err
    assert rf"jos\xe9.wav: {reason}" in (tmp_path / "out" / "index.html").read_text()


def test_silence_is_explained_by_silence(tmp_path, waveform_checkpoint) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(4000), 8000)
    explain(waveform_checkpoint, [tmp_path / "silence.wav"], tmp_path / "out")
    for name in ("original", "positive", "negative"):
        assert not soundfile.read(tmp_path / "out" / "silence" / f"{name}.wav", dtype="int16")[0].any()


@pytest.mark.parametrize("composite", PRESETS_OF_ALL_KINDS)
def test_every_preset_gives_the_maps_that_exist(tmp_path, waveform_checkpoint, composite, capsys) -> None:
    tone(tmp_path / "tone.wav", 1.0 if composite == "epsilon_gamma_box" else 0.5)  # no silence changes nothing
    options = ["--composite", composite, "--band", "300", "600", "--output", str(tmp_path / "out")]
    main(["--checkpoint", str(waveform_checkpoint), str(tmp_path / "tone.wav"), *options])
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    arrays = np.load(tmp_path / "out" / "tone" / "relevance.npz")
    pictures, sounds = (sorted((tmp_path / "out" / "tone").glob(f"*{end}")) for end in (".png", ".wav"))
    count = len(arrays["relevance"])
    assert arrays["relevance"].any()
    if composite.endswith(("box", "flat")):
        (warning,) = warnings
        assert f"{composite} gives relevance to silence as well" in warning
        assert warning.partition("warning: ")[2] in Links(tmp_path / "out" / "index.html").text
        assert "time_frequency" not in arrays
        assert (len(pictures), len(sounds)) == (count, count)
    else:
        assert not warnings
        np.testing.assert_allclose(arrays["time_frequency"].sum(), arrays["relevance"].sum(), rtol=1e-3)
        assert (len(pictures), len(sounds)) == (2 * count, 5 * count)


@pytest.mark.parametrize("composite", ["epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "zennit_epsilon_plus_flat"])
def test_spectrograms_have_all_maps_by_every_first_rule(tmp_path, spectrogram_checkpoint, composite) -> None:
    report = explain(spectrogram_checkpoint, [tone(tmp_path / "a.wav", 0.5)], tmp_path / "out", composite=composite)
    assert not report.notes
    assert len(list((tmp_path / "out" / "a").iterdir())) == 2 + 2 + 3


def test_a_recording_that_fails_does_not_end_the_others(tmp_path, waveform_checkpoint, monkeypatch, capsys) -> None:
    def write(path: Path, sound: torch.Tensor, rate: int) -> None:
        if path.parent.name == "b":
            raise UserError("too loud")
        write_wav(path, sound, rate)

    monkeypatch.setattr("audio_lrp.explain.recordings.write_wav", write)
    for name in "abc":
        tone(tmp_path / "in" / f"{name}.wav", 0.5)
    with pytest.raises(UserError, match=r"^1 of 3 recordings could not be explained"):
        main(["--checkpoint", str(waveform_checkpoint), str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "c", "index.html"}
    assert "b.wav is not explained: too loud" in capsys.readouterr().err


def test_nothing_is_left_after_a_mistake(tmp_path, waveform_checkpoint) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match="none of 1 recordings can be explained"):
        explain(waveform_checkpoint, [tmp_path / "text.wav"], tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_mistakes_are_told(tmp_path, waveform_checkpoint) -> None:
    recording = tone(tmp_path / "tone.wav", 0.5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.wav").write_text("no sound")
    mistakes = [
        ({"paths": [tmp_path / "missing.wav"]}, "no file or folder"),
        ({"paths": [tmp_path / "empty"]}, "empty holds no recordings: name"),
        ({"paths": [tmp_path / "text.wav"]}, "none of 1 recordings can be explained"),
        ({"checkpoint": tmp_path / "missing.ckpt"}, "there is no checkpoint"),
        ({"checkpoint": recording}, "tone.wav is no checkpoint: give"),
        ({"checkpoint": tmp_path}, f"is a folder: name a checkpoint in it, such as {waveform_checkpoint}"),
        ({"checkpoint": tmp_path / "empty"}, "is a folder: give the path of a .ckpt file"),
        ({"target": "middle"}, "no class 'middle'.*low, high"),
        ({"composite": "epsilom"}, "did you mean"),
        ({"band": (5000.0, 6000.0)}, "no band from 5000 to 6000 Hz"),
        ({"band": (500.0, 300.0)}, "no band from 500 to 300 Hz"),
        ({"output": tmp_path}, "not an empty folder"),
        ({"output": recording / "out"}, "cannot be written"),
    ]
    for changed, message in mistakes:
        arguments = {"checkpoint": waveform_checkpoint, "paths": [recording], "output": tmp_path / "out"} | changed
        with pytest.raises(UserError, match=message):
            explain(**arguments)
    with pytest.raises(UsageError, match="--checkpoint"):
        main([str(recording)])


def test_the_command_explains_what_fit_has_trained(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("fit", *tiny_run(tmp_path / "corpus"), "--model.network.width=6", "--data.task=gender") == 0
    checkpoint = only_checkpoint(only_folder(tmp_path / "runs"))
    saved = load_network(checkpoint, ["command_line"])
    assert saved.class_names == ("male", "female")
    assert saved.network[0].out_channels == 6
    capsys.readouterr()
    tone(tmp_path / "tone.wav", 0.5)
    assert exit_code("explain", "--checkpoint", str(checkpoint), "tone.wav", "--plugin", "command_line") == 0
    assert "tone.wav: " in capsys.readouterr().out
    assert (tmp_path / "explanations" / "index.html").is_file()


def test_a_network_made_by_a_function_leaves_a_readable_checkpoint(tmp_path) -> None:
    classifier = Classifier(lambda classes: AudioNet(classes), num_classes=10, representation="waveform")
    assert "network" not in classifier.hparams
    named = Classifier(AudioNet, num_classes=10, representation="waveform")
    assert named.hparams["network"] == {"class_path": "audio_lrp.models.audionet.AudioNet", "init_args": {}}


def test_a_checkpoint_written_by_lightning_is_enough(tmp_path) -> None:
    classifier = Classifier(AudioNet, num_classes=10, representation="waveform")
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "audionet.ckpt")
    saved = load_network(tmp_path / "audionet.ckpt")
    assert isinstance(saved.network, AudioNet)
    assert isinstance(saved.representation, Waveform)
    assert saved.class_names == tuple("0123456789")  # the task's, as no data module named any
    signal = torch.randn(1, 1, 8000)
    with torch.no_grad():
        torch.testing.assert_close(saved.network(signal), classifier.network.eval()(signal))


def test_a_network_with_arguments_is_made_with_them(tmp_path) -> None:
    path = checkpoint(tmp_path / "wide.ckpt", WaveformNetwork(2, channels=6), "waveform", 2)
    with pytest.raises(UserError, match="do not fit WaveformNetwork"):
        load_network(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["network"]["init_args"] = {"channels": 6}
    torch.save(content, path)
    assert load_network(path).class_names == ("male", "female")


def test_the_scale_of_spectrograms_is_the_checkpoints(tmp_path) -> None:
    for scale in ("unit", "decibel"):
        path = checkpoint(tmp_path / "s.ckpt", SpectrogramNetwork(5), "spectrogram", 5, spectrogram_scale=scale)
        saved = load_network(path)
        assert isinstance(saved.representation, Spectrogram)
        assert saved.representation.scale == scale
        assert saved.class_names == ("0", "1", "2", "3", "4")


def test_short_recordings_lie_where_the_network_learned_to_expect_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AUDIO_LRP_CACHE", str(tmp_path / "cache"))
    datamodule = CorpusDataModule(ToneCorpus(tmp_path / "tones"), num_folds=3, placement="centered")
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.examples("test", 2, seed=0)
    path = checkpoint(tmp_path / "centered.ckpt", WaveformNetwork(10), "waveform", 10, placement="centered")
    files = [datamodule.corpus.recordings[index].path for index in batch.index]
    explain(path, files, tmp_path / "out")
    for file, expected in zip(files, batch.input.numpy(), strict=True):
        found = np.load(tmp_path / "out" / file.stem / "relevance.npz")["input"]
        np.testing.assert_allclose(found[0], expected, atol=1e-3)  # the cache rounds to 16 bits


@pytest.mark.parametrize("description", [{}, {"placement": "left"}])
def test_placements_of_older_checkpoints_and_of_plugins_are_not_followed(tmp_path, description) -> None:
    path = checkpoint(tmp_path / "s.ckpt", WaveformNetwork(2), "waveform", 2, **description)
    assert load_network(path).placement == "random"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": {"class_path": "torch.hub.load"}}, "not a subclass of torch.nn.Module"),
        ({"network": {"class_path": "torch.Generator"}}, "not a subclass of torch.nn.Module"),
        ({"network": {"class_path": "torch.nn.NoSuchLayer"}}, "cannot be imported"),
        ({"network": {"class_path": "subprocess.Popen"}}, "say so with --plugin subprocess"),
        ({"network": {"class_path": "Network"}}, "say so with --plugin Network"),
        ({"network": {"class_path": "torch.nn.Bilinear"}}, "cannot be made"),
        ({"network": None}, "no shipped network's"),
        ({"representation": "cepstrum"}, "'cepstrum'"),
        (None, "does not say what network it holds"),
    ],
)
def test_doubtful_checkpoints_are_refused(tmp_path, waveform_checkpoint, settings, message) -> None:
    content = torch.load(waveform_checkpoint, weights_only=True)
    if settings is None:
        del content["hyper_parameters"]
    else:
        content["hyper_parameters"] |= settings
    torch.save(content, tmp_path / "doubtful.ckpt")
    with pytest.raises(UserError, match=message):
        load_network(tmp_path / "doubtful.ckpt")


def test_checkpoints_that_would_run_code_are_refused(tmp_path) -> None:
    torch.save({"hyper_parameters": math.sin, "state_dict": {}}, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError, match="weights alone"):
        load_network(tmp_path / "hostile.ckpt")


def test_load_names_the_way_out_for_networks_of_others(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("audio_lrp.checkpoints.plugin_packages", set)
    path = checkpoint(tmp_path / "other.ckpt", WaveformNetwork(2), "waveform", 2)
    with pytest.raises(UserError, match="if you trust it, say so with --plugin explainable"):
        audio_lrp.load(path)
    assert isinstance(audio_lrp.load(path, plugins=["explainable"]).network, WaveformNetwork)


def test_the_same_recordings_give_the_same_files_at_any_time(tmp_path, waveform_checkpoint, monkeypatch) -> None:
    path = tone(tmp_path / "tone.wav", 0.3)
    explain(waveform_checkpoint, [path], tmp_path / "now")
    monkeypatch.setattr("audio_lrp.html.rendering.datetime", None)  # what is not asked cannot differ
    explain(waveform_checkpoint, [path], tmp_path / "later")
    for file in (file for file in (tmp_path / "now").rglob("*") if file.is_file()):
        assert file.read_bytes() == (tmp_path / "later" / file.relative_to(tmp_path / "now")).read_bytes()
