def sub(p,*pairs):
    s=open(p,encoding='utf-8').read()
    for a,b in pairs:
        if a not in s: print(p,'MISSING:',a[:70]); continue
        s=s.replace(a,b,1)
    open(p,'w',encoding='utf-8').write(s)
sub('README.md',
('''Detailed captions of videos with sound: what is seen, what is heard, and when. In two commands, on a CPU:''',
'''Detailed captions of videos and their audio: what is seen, what is heard, and when. Two commands try it on a CPU:'''),
('''make demo    # installs into .venv, then captions the videos in examples/ with a small model that is shipped
make test    # installs what the tests need too, and runs them''',
'''make demo    # installs into .venv, then captions the videos in examples/ with the tiny model
make test    # also installs what the tests need, and runs them'''),
('''`make demo` runs nothing hidden. Typed by hand it is:''','''`make demo` hides nothing. Typed by hand, it is:'''),
('''**What it is.** An open implementation of [video-SALMONN 2](https://arxiv.org/abs/2410.06682), a language model that sees
the frames of a video and hears its sound. There is one model class for two uses: the released checkpoints, and a tiny
model that is trained here from nothing, on a synthetic world in which everything that is true is known.

**Who it is for.** People who want to caption videos with the released checkpoints, or to study how such a captioner is
trained and judged, with every step small enough to run and to read.''',
'''**What it is.** avcap is an open implementation of [video-SALMONN 2](https://arxiv.org/abs/2410.06682), a language model
that takes the frames and the audio of a video as input. The same model class serves the released checkpoints and a tiny
model. The tiny model is trained here from scratch, on a synthetic world whose ground truth is fully known.

**Who it is for.** It is for people who want to caption videos with the released checkpoints, and for people who want to
study how such a captioner is trained and judged. Every step is small enough to run and to read.'''),
('''avcap models                                                   # what is shipped
avcap caption examples/two_bells.mp4 --start 3 --end 7         # a part of a video
avcap caption examples/rain.mp4 --no-audio                     # only look; --no-video only listens''',
'''avcap models                                                   # the tiny models
avcap caption examples/two_bells.mp4 --start 3 --end 7         # a part of a video
avcap caption examples/rain.mp4 --no-audio                     # the frames alone; --no-video: the audio alone'''),
('''examples --out out/captions.jsonl                # a folder; run again, it goes on where it stopped''',
'''examples --out out/captions.jsonl                # a folder; the same command resumes where it stopped'''),
('''Files, folders, patterns and a `.txt` list of paths can be mixed. A file that cannot be read becomes one error row, the
others are captioned, and the exit code is 1. Each record says what the model really saw: frames, seconds of sound, visual
and sound tokens. [docs/data.md](docs/data.md) shows one.''',
'''You can mix files, folders, patterns and `.txt` lists of paths. A file that cannot be read becomes one error row; all other
files are captioned, and the exit code is 1. Each record states what the model was actually given: the number of frames,
the seconds of audio, and the visual and audio tokens. [docs/data.md](docs/data.md) shows a record.'''),
('''A list gives a list, any other iterable an iterator. In both, a bad video is a `CaptionError` in its place.''',
'''A list returns a list, and any other iterable returns an iterator. In both cases a bad video yields a `CaptionError` in its
place.'''),
('''Captions of any captioner against what is true of the videos, with intervals, by modality and by time; offline with the exact
judge of the world, or with any OpenAI-compatible server:''',
'''avcap compares the captions of any captioner with the ground truth of the videos. It reports error rates with confidence
intervals, by modality and by time. The judge is the exact one of the synthetic world, which works offline, or a language
model behind any OpenAI-compatible server:'''),
('''# and out/report/report.html to look into''','''# also writes out/report/report.html'''),
('''# captions the videos first
avcap compare''','''# captions the videos first
avcap compare'''),
('''# was the sound used?''','''# does the model use the audio?'''),
('''A judge that answers nonsense, or not at all, makes a caption *unscored*: kept out of the mean, counted, and named.
[docs/evaluation.md](docs/evaluation.md) has the forms that are read, the judges, their cost and their noise, and the protocols.''',
'''If the judge's reply is malformed or missing, the caption is *unscored*: it is excluded from the mean, counted, and listed.
[docs/evaluation.md](docs/evaluation.md) describes the input formats, the judges with their cost and noise, and the protocols.'''),
('''# renders clips of the world to learn and to measure on, then up to four rounds''','''# renders clips to train and to measure on, then runs up to four rounds'''),
('''Each round samples captions, judges them by atomic events, pairs them, trains a fresh LoRA by guided DPO against the model as
it was, merges it and measures the result on other videos. Stopped at any moment, the same command goes on and ends with the
same weights. `--data` and `--held-out` take videos of your own, `--judge openai:MODEL@URL` a language model. `avcap rebirth` then
teaches the model from before the rounds what the final one says, so that question answering is kept; `avcap dpo` learns pairs
from a file. `bash runs/tiny_cpu.sh` shows all of it in about ten minutes on two cores. [docs/rounds.md](docs/rounds.md) has the
options, [docs/results.md](docs/results.md) what was measured.''',
'''Each round samples captions, judges them by atomic events and selects pairs. It then trains a new LoRA by guided DPO, with the
model from before the round as the reference policy, merges the LoRA and measures the result on other videos. You can stop a run
at any moment: the same command resumes it, and the final weights are the same. `--data` and `--held-out` take your own videos,
and `--judge openai:MODEL@URL` takes a language model as the judge. After the rounds, `avcap rebirth` fine-tunes the model from
before the rounds on captions of the final model, which preserves question answering. `avcap dpo` trains on pairs from a file.
`bash runs/tiny_cpu.sh` runs all of this in about ten minutes on two cores. [docs/rounds.md](docs/rounds.md) lists the options,
and [docs/results.md](docs/results.md) the measurements.'''),
('''`truth.jsonl` holds the events of every clip with their times, a reference caption, interval captions and questions with
answers. A rule-based judge reads a caption and says exactly what is missed, wrong, invented or repeated:''',
'''For every clip, `truth.jsonl` holds the events with their times, a reference caption, interval captions, and questions with
answers. A rule-based judge reads a caption and reports exactly what is missing, incorrect, invented or repeated:'''),
('''[docs/world.md](docs/world.md) says what happens in this world, and how its labels are made imperfect on purpose.''',
'''[docs/world.md](docs/world.md) describes what happens in this world, and how its labels are deliberately made imperfect.'''),
('''A recipe is a function in `src/avcap/recipes.py` that returns a whole configuration. `--set` and `--config` change fields of
it; an unknown field is an error. A run that is stopped goes on, and ends with the same weights.''',
'''A recipe is a function in `src/avcap/recipes.py` that returns a complete configuration. `--set` and `--config` override fields
of it; an unknown field is an error. A run that was stopped resumes, and ends with the same weights.'''),
('''# the shipped models from nothing: the commands of runs/train_tiny.sh''','''# trains the tiny models from scratch: the commands of runs/train_tiny.sh'''),
('''| `tiny_base` | nothing | to see, to hear, and the words for it, from clean single seconds and single modalities |
| `tiny_align` | what `tiny_base` made | the sound branch, from sound alone; the result is shipped as `tiny-base` |
| `tiny_sft` | `tiny-base` | audio-visual captions from imperfect labels: `tiny-sft` |
| `tiny_rounds` | `tiny-sft` | by preference (`avcap rounds`) what careful listeners would tell |
| `tiny_rebirth` | `tiny-sft` | captions of the best round, and questions (`avcap rebirth`): the default model, `tiny` |''',
'''| `tiny_base` | scratch | vision, audio and the vocabulary, from clean single seconds and single modalities |
| `tiny_align` | the result of `tiny_base` | the audio branch, from audio alone; the result is `tiny-base` |
| `tiny_sft` | `tiny-base` | audio-visual captions, from imperfect labels; the result is `tiny-sft` |
| `tiny_rounds` | `tiny-sft` | to include the sounds that the SFT labels omit, by preference optimisation (`avcap rounds`) |
| `tiny_rebirth` | `tiny-sft` | captions of the best round, and questions (`avcap rebirth`); the result is the default model, `tiny` |'''),
('''The last two have the released values and have not been run at full size here.''',
'''The last two recipes use the released hyperparameters. They have not been run at full size here.'''),
('''`--model` takes a folder in the layout of `tsinghua-ee/video-SALMONN-2` ("v1"), with its Whisper, SigLIP and Q-Former
configurations beside it, one of video-SALMONN 2+ (Qwen2.5-VL with a sound branch), or one that `avcap train` wrote:''',
'''`--model` takes three kinds of folders: the layout of `tsinghua-ee/video-SALMONN-2` ("v1") with its Whisper, SigLIP and Q-Former
configurations, the layout of video-SALMONN 2+ (Qwen2.5-VL with an audio branch), and folders written by `avcap train`:'''),
('''The second command compares every stage of the model with tensors that the released code computed from the same (random)
weights. Where the released code stretches padded silence over the frames, avcap does not: sound tokens stand after the
frame of their own second. `--official` gives the released behaviour exactly, `avcap audit-official` shows both side by
side, and [docs/official.md](docs/official.md) measures what differs. `avcap doctor FOLDER` says what a folder is and what it
lacks; adapters and training checkpoints become a folder by `avcap convert` ([docs/checkpoints.md](docs/checkpoints.md)).''',
'''The second command compares every stage of the model with tensors that the official code computed from the same (random)
weights. The official code spreads padded silence over the frames. avcap does not: an audio token follows the frame of its
own second. `--official` reproduces the official behaviour exactly, `avcap audit-official` shows both side by side, and
[docs/official.md](docs/official.md) measures the differences. `avcap doctor FOLDER` reports what a folder contains and what is
missing. `avcap convert` turns adapters and training checkpoints into a folder ([docs/checkpoints.md](docs/checkpoints.md)).'''),
('''On clips, voices and seeds that training never saw, decoded from mp4 files; how they are measured stands on top of
`bench/tiny.py`, and all of them with their history in [docs/log.md](docs/log.md).

Percent, seed 0, 200 clips (60 for unseen voices), standard difficulty; errors are the oracle's, per true event.''',
'''All figures are for clips, voices and seeds that were not used in training, decoded from mp4 files. The docstring of
`bench/tiny.py` explains how they are measured; [docs/log.md](docs/log.md) has every figure and its history.

The unit is percent. Seed 0, 200 clips (60 for unseen voices), standard difficulty; errors are counted by the oracle, per true
event.'''),
('''| total error: pictures only / sounds only | 2.3 / 4.6 | |
| total error: whole clips | never taught | 58.2''','''| total error: video only / audio only | 2.3 / 4.6 | |
| total error: whole clips | not trained | 58.2'''),
('''| missing: seen / heard | | 14.0 / 74.9 |
| questions, with / without sound | 87.6 / 48.8 | 86.2 |
| words of a swapped picture (blind: 22.0) / sound (blind: 8.9) | 26.2 / 10.8 | |''',
'''| missing: visual / audio | | 14.0 / 74.9 |
| questions, with / without audio | 87.6 / 48.8 | 86.2 |
| words of a swapped video (without it: 22.0) / audio (without it: 8.9) | 26.2 / 10.8 | |'''),
('''After preference rounds and rebirth (three seeds, 200 other clips that nothing was trained or chosen on; the third row is shipped as
`tiny`; more in [docs/results.md](docs/results.md)):''',
'''The following table shows the result of preference rounds and rebirth, on 200 other clips that were used neither for training nor
for selection. The third row is the model `tiny`. [docs/results.md](docs/results.md) has all three seeds:'''),
('''- The tiny model knows only its own world: coloured shapes in four corners, 15 sounds, voices that say two of 32 words. On
  any other video it says so on stderr, and `in_world` is false in the record. Do not believe its captions there.
- `tiny-sft` misses sounds and repeats itself, as models do that are trained on careless labels. That is wanted: preference
  training starts from it.
- Nothing here has been measured on a GPU, and no released weights of full size have been run. Parity is shown with small
  random weights in the released layout.
- LLM judges have been shown against a scripted server and a tiny random model: no real one could be asked here.
- Preference rounds gain so much because the judge is exact, the base model is good and its labels are careless on purpose. How
  much they give a large model on real videos is not measured here.''',
'''- The tiny model only knows its own world: coloured shapes in four corners, 15 sounds, and voices that say two of 32 words. For
  any other video it prints a warning on stderr and sets `in_world` to false in the record. Do not trust its captions there.
- `tiny-sft` misses sounds and repeats itself, like any model trained on noisy labels. This is intentional: it is the starting
  point for preference training.
- Nothing here has been measured on a GPU, and no released weights of full size have been run. Parity has been shown with small
  random weights in the released layout.
- LLM judges have only been tested against a mock server and a tiny random model. No real LLM has been used yet.
- Preference rounds gain this much because the judge is exact, the base model is good, and its labels are deliberately noisy. The
  gain for a large model on real videos has not been measured.'''),
('''- Not yet: a server.''','''- There is no server yet.'''),
('''runs/                    the commands that made the shipped models''','''runs/                    the commands that made the tiny models'''),
('''errors that are the user's to mend''','''errors that the user can fix'''),
('''  media/                 a file becomes frames and sound''','''  media/                 a file becomes frames and a waveform'''),
('''  models/                the shipped models with their cards''','''  models/                the tiny models with their model cards'''),
('''one training loop, its lessons, losses and checkpoints''','''one training loop, its examples, losses and checkpoints'''),
('''  web/                   reports as pages and plots''','''  v0_1.py                names of avcap 0.1, translated where they are read
  web/                   reports as pages and plots'''),
('''To read the code, begin with five files:''','''To read the code, start with these five files:'''),
('''[docs/design.md](docs/design.md) explains the whole, [CONTRIBUTING.md](CONTRIBUTING.md) how to change it.''',
'''[docs/design.md](docs/design.md) explains the design, and [CONTRIBUTING.md](CONTRIBUTING.md) how to change the code.'''),
)
