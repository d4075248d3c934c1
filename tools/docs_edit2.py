def sub(p,*pairs):
    s=open(p,encoding='utf-8').read()
    for a,b in pairs:
        if a not in s: print(p,'MISSING:',a[:70]); continue
        s=s.replace(a,b,1)
    open(p,'w',encoding='utf-8').write(s)
sub('docs/checkpoints.md',
('''`--model` takes a folder that you have; nothing is downloaded, no code of a checkpoint is run, and a pickle is never loaded into
avcap itself. Begin with''','''`--model` takes a local folder. Nothing is downloaded, no code from a checkpoint is executed, and a pickle is never loaded into the
avcap process. Start with'''),
('''which reads small files and the headers of the weights, a fraction of a second of disk whatever the size, and says what the folder
is, what is missing or too much, and what it takes to run it. Exit code 0: it can be run. 1: something is wrong, one line each.
2: it is no checkpoint, or half a download; the line names the file and what to do.''',
'''This command only reads small files and the headers of the weights, so it takes a fraction of a second for any size. It reports
what the folder is, which tensors are missing or unexpected, and what is needed to run it. Exit code 0 means that the model can be
run. Exit code 1 means that something is wrong; each problem is one line. Exit code 2 means that the folder is not a checkpoint or
an incomplete download; the line names the file and the remedy.'''),
('| layout | how it is known | what to do |','| layout | how it is recognised | what to do |'),
('`model_type` begins with `avcap_`','`model_type` starts with `avcap_`'),
('| plain Qwen2.5-VL, Whisper | no sound branch |','| plain Qwen2.5-VL, Whisper | no audio branch |'),
('''DST is a folder of safetensors shards (`--shard-size GB`) with config, tokenizer and a model card, under the names of stock modules;
`transformers.AutoModelForCausalLM.from_pretrained(DST)` reads it too, after `import avcap.model`.

- Tensors that are copied are the same bytes. Never more than a tensor is in memory, of a copied one 8 MB: 147 GB in the shapes
  of the 72B model pass through less than 1 GB of process. Holes in files stay holes.
- Killed and run again, it keeps the shards that are finished and ends with the same bytes. It refuses a folder that it did not
  begin, or whose sources have changed.
- A LoRA is merged as W + (alpha / r) B A in float32 and rounded once. Modules that the adapter holds whole replace those of the
  base. What has no place in the base, or another shape, is an error: it is of another base.
- A `checkpoint-N.bin` is read with `torch.load(weights_only=True, mmap=True)` in a process apart, and refused if it holds more
  than tensors. Its LoRA's alpha is taken from the base's config; else give `--lora-alpha`.''',
'''DST is a folder of safetensors shards (`--shard-size GB`) with config, tokenizer and a model card. The tensors have the names of the
stock modules, so `transformers.AutoModelForCausalLM.from_pretrained(DST)` also reads the folder after `import avcap.model`.

- Copied tensors keep their bytes. At most one tensor is in memory at a time, and at most 8 MB of a copied one: 147 GB in the shapes
  of the 72B model pass through a process of less than 1 GB. Sparse files stay sparse.
- A conversion that was killed keeps its finished shards when it is run again, and ends with the same bytes. It refuses a folder
  that it did not start, and a folder whose sources have changed.
- A LoRA is merged as W + (alpha / r) B A in float32 and rounded once. Complete modules in the adapter replace those of the base.
  A tensor that does not exist in the base, or has another shape there, is an error: the adapter belongs to another base.
- A `checkpoint-N.bin` is read with `torch.load(weights_only=True, mmap=True)` in a separate process. It is refused if it contains
  anything but tensors. The alpha of its LoRA is taken from the config of the base, or from `--lora-alpha`.'''),
('''The sound branch of video-SALMONN 2+ begins with query tokens, `audio.q_tokens`. They are a bare parameter, which PEFT cannot store:
**no adapter holds them.** Whatever the base has is used, and nothing else looks wrong. A base made anew by a script has random ones;
the published advice leads there. Even the released `_audioAlign` base plus adapter differs from `_full` in this one tensor.

1. Take the `_full` release where there is one (3B, 7B). It is whole.
2. Else (72B) take the released `_audioAlign` folder as `--base`, never one made anew.
3. Where another checkpoint of the same size holds the right ones: `avcap convert ADAPTER DST --base FOLDER --q-tokens OTHER`.

`avcap convert` warns of it on the terminal and in the model card of DST.''',
'''The audio branch of video-SALMONN 2+ starts with query tokens, `audio.q_tokens`. They are a bare parameter, which PEFT cannot store:
**no adapter contains them.** The values of the base are used, and nothing else looks wrong. A base that is newly created by a script
has random query tokens, and the official instructions lead to this situation. Even the released `_audioAlign` base with its adapter
differs from `_full` in this one tensor.

1. Use the `_full` release where it exists (3B, 7B). It is complete.
2. Otherwise (72B) use the released `_audioAlign` folder as `--base`, never a newly created one.
3. If another checkpoint of the same size has the right tokens: `avcap convert ADAPTER DST --base FOLDER --q-tokens OTHER`.

`avcap convert` prints a warning on the terminal and adds it to the model card of DST.'''),
('''Both are copied (the Whisper in the backbone's type of number), the Q-Former, `audio_proj` and the q_tokens are drawn from
N(0, 0.02^2), each by its name and the seed, and `<|audio_pad|>` becomes a token in a row that the embedding has already. The
result hears nothing until it is trained; its q_tokens are in its files, and must stay with whatever adapter is trained on it.''',
'''Both models are copied; Whisper is converted to the dtype of the backbone. The Q-Former, `audio_proj` and the q_tokens are drawn
from N(0, 0.02^2), each seeded by its name and the seed. `<|audio_pad|>` becomes a token in an existing row of the embedding. The
model cannot use audio until it is trained. Its q_tokens are in its files and must stay with every adapter that is trained on it.'''),
('''`plan` tells tokens, memory, time and judge calls before anything is loaded. Tokens are counted by the model's own layout, weights and
the cache of keys and values follow exactly; activations are within 10 % of what was counted on tiny models (`bench/plan.py`), time is
an estimate from how fast this machine multiplies and reads. Loading goes through transformers, under our
names: each tensor straight to its type and device, in several threads, a mapped file without a second copy. Large models say first
how much they need and how much is free, and stop there if it is too little. `--device-map auto` spreads layers over the GPUs of the
host; `--quantize` needs bitsandbytes, and leaves encoders and aligners whole. 8 and 4 bits were tried on a CPU (bitsandbytes 0.50,
released layouts of both families); several GPUs have not been tried.''',
'''`plan` prints tokens, memory, time and judge calls before anything is loaded. It counts tokens by the model's own layout; the sizes of
the weights and of the key-value cache are exact. Activations are within 10 % of measurements on tiny models (`bench/plan.py`). The
time is an estimate from the speed of this machine. Loading uses transformers: each tensor goes directly to its dtype and device, in
several threads, without a second copy of a mapped file. For a large model, avcap first prints how much memory it needs and how much
is free, and stops if there is not enough. `--device-map auto` distributes the layers over the GPUs of the host. `--quantize` needs
bitsandbytes and does not quantize the encoders and aligners. 8 and 4 bits have been tested on a CPU (bitsandbytes 0.50, released
layouts of both families); several GPUs have not been tested.'''),
('| what you see | what it is |','| message | cause |'),
('| half a download |','| an incomplete download |'),('| a file that was cut off |','| a truncated file |'),
('a config that asks for its own code, which is never run; take the entry out if the layout is a known one','a config that refers to its own code, which is never executed; remove the entry if the layout is a known one'),
('`pickled weights, wanted safetensors` | convert it: see above','`pickled weights, expected safetensors` | convert them: see above'),
)
sub('docs/official.md',
('''Released checkpoints run in two ways. The default corrects the published code where that is possible without training again;
`--official`, or `Captioner(folder, official=True)`, gives the model exactly what the published code gave it: the
same frames, sizes, patches, log-mel, chunks, order of tokens, prompt, positions and repetition penalty. Captions of the two
are never mixed in one file: the name of the checkpoint ends with `+official`.''',
'''Released checkpoints can be run in two ways. The default corrects the official code where this is possible without retraining.
`--official`, or `Captioner(folder, official=True)`, gives the model exactly the same input as the official code: the same frames,
sizes, patches, log-mel, chunks, token order, prompt, positions and repetition penalty. Captions of the two are never mixed in one
file, because the checkpoint name of official captions ends with `+official`.'''),
('''`audit-official` shows what both feed the model: frame times and sizes, token counts, where in the prompt each second of sound
stands and after which frame, and the positions of 2+; as a table and, with the extra `plot`, as a picture. It reads only
headers of the weights, so a 72B model needs no memory for it.''',
'''`audit-official` shows the model input of both: frame times and sizes, token counts, the place of each second of audio in the prompt
and the frame before it, and the positions of 2+. It prints a table and, with the extra `plot`, draws a figure. It only reads the
headers of the weights, so that a 72B model needs no memory.'''),
('![What a model of the released video-SALMONN 2 is fed by both]','![The input of the released video-SALMONN 2 in both modes]'),
('By `python bench/official.py` (8 CPU s) on recorded cases of the published code in','Measured by `python bench/official.py` (8 CPU s) on recorded cases of the official code in'),
('''prompt; rounding is below 1e-4. `a -> b` is the published code -> the default. Row by row the tests hold this table to the script.''',
'''prompt; rounding is below 1e-4. `a -> b` means official code -> default. The tests compare each row of this table with the script.'''),
('## What no recorded case shows','## Differences that no recorded case shows'),
('''Where the published code reads a WAV file that its user had made, `--official` decodes the sound of the video itself, at
16 kHz. Pixels and samples are those of FFmpeg here, and of the decoders that were installed there.''',
'''The official code reads a WAV file that the user extracted beforehand; `--official` decodes the audio of the video itself, at
16 kHz. Pixels and samples come from FFmpeg here, and from the decoders that were installed there.'''),
)
sub('docs/world.md',
('''Videos whose truth is known exactly: to train a small model on, and to test captioners and judges with.''','''The world renders videos whose ground truth is known exactly. They serve to train a small model, and to test captioners and judges.'''),
('''writes mp4 files (256 x 256, 15 frames a second) and `truth.jsonl`. A person who watches and listens can check all of it.''',
'''writes mp4 files (256 x 256, 15 frames per second) and `truth.jsonl`. A person who watches and listens can verify all of it.'''),
('''The stage is a 2 x 2 grid: top-left, top-right, bottom-left, bottom-right, at most one object in each. Objects have one of 8
colours, 6 shapes and 3 sizes; no two on the stage share colour and shape, so "the red circle" is one thing.''',
'''The stage is a 2 x 2 grid (top-left, top-right, bottom-left, bottom-right) with at most one object in each cell. Objects have one
of 8 colours, 6 shapes and 3 sizes. No two objects on the stage share both colour and shape, so "the red circle" is unambiguous.'''),
('''A caption has one sentence per busy second, in time order, the picture first: `At 3s the red circle grows while a bell rings
twice.` "while" joins picture and sound, "and" two sounds. A clip in which nothing happens is `Nothing happens.`''',
'''A caption has one sentence for each second in which something happens, in time order, with the visual clause first: `At 3s the red
circle grows while a bell rings twice.` "while" joins a visual clause and a sound, "and" joins two sounds. The caption of a clip
without events is `Nothing happens.`'''),
('''Time runs in whole seconds; nothing happens in second 0.''','''Time is divided into whole seconds; nothing happens in second 0.'''),
('''so the frame of 3.0 s
shows it done. A sound "at 3s" begins between 3.02 and 3.10 s and is over by 3.95 s, but for its reverberation. Frame k shows
the state after second k, and the sound of [k, k + 1) belongs to it.''','''so the frame at
3.0 s shows the result. A sound "at 3s" starts between 3.02 and 3.10 s and ends by 3.95 s, except for its reverberation. Frame k
shows the state after second k, and the audio of [k, k + 1) belongs to it.'''),
('''Seeds also draw what has no words: background, jitter of place, size and angle, voice, pitch, speed, loudness, onset, noise and
room. Voices are eSpeak NG's (6 accents x 55 variants to train on), other sounds are recordings of a SoundFont, at 13 pitches.''',
'''The seed also determines properties that captions do not mention: background, jitter of position, size and angle, voice, pitch,
speed, loudness, onset, noise and reverberation. Voices are those of eSpeak NG (6 accents x 55 variants for training); other sounds
are recordings from a SoundFont, at 13 pitches.'''),
('''| `unseen` | the same picture; 12 voice variants and 12 pitches (halfway between) that training never draws |''','''| `unseen` | the same visuals; 12 voice variants and 12 pitches (halfway between) that are not used in training |'''),
('''So worlds of different
seeds share no clip, and no clip of a made world was ever trained on. Worlds of one seed in different domains show the same
scenes. The examples come from world seed 7. A folder is continued only with the settings it was begun with; `WORLD_VERSION`
changes when the same seed begins to give another clip.''','''Worlds with
different seeds therefore share no clip, and no clip of a rendered world was ever used in training. Worlds with the same seed in
different domains show the same scenes. The examples come from world seed 7. A folder is only continued with its original settings.
`WORLD_VERSION` changes when the same seed starts to produce another clip.'''),
('''`world/describe.py` writes labels as a hurried annotator does.''','''`world/describe.py` writes labels like those of a hurried annotator.'''),
('| dial | default | what it does |','| field | default | what it does |'),
('''chance that such a clause is left out''','''probability that such a clause is omitted'''),
('''sounds are left out more than sights''','''sounds are omitted more often than visual events'''),
('''| `invention` | .05 | per second: a clause about nothing |
| `split` | .3 | picture and sound of a second get a sentence each; "while" is lost |''','''| `invention` | .05 | per second: an invented clause |
| `split` | .3 | the visual clause and the sound of a second get separate sentences; "while" is lost |'''),
('''| `early_stop` | .2 | the caption ends somewhere in its second half |
| `recap` | .6 | it ends with "Overall, ..." and says one or two clauses again |''','''| `early_stop` | .2 | the caption stops somewhere in its second half |
| `recap` | .6 | the caption ends with "Overall, ..." and repeats one or two clauses |'''),
('''`truth.jsonl` has one event per sight (`v3`), per sound (`s3`; a second one `s3-2`) and per pair of both in one second (`b3`).
`world/oracle.py` reads a caption leniently (paraphrases, other orders, clauses without a time) and labels exactly:''',
'''`truth.jsonl` has one event for each visual event (`v3`), for each sound (`s3`; a second one `s3-2`) and for each pair of both in one
second (`b3`). `world/oracle.py` parses a caption leniently (paraphrases, other orders, clauses without a time) and labels exactly:'''),
('''- An event is *correct* if a claim says all of it at the right time; *incorrect* if the nearest claim about it is wrong or
  partial; *missing* if no claim is about it.
- Every claim is spent once: on one event, or *repeated* if it was made before, or else *invented*. So is what cannot be read.
- A pair is correct if "while" joins the right halves, else missing; never incorrect, for the wrong half is counted already.
- Sizes are not judged. "Nothing happens" claims nothing.
- Captions of an interval or of one modality are judged against the whole clip: what is true but was not asked for counts
  neither way, what is false is invented.''',
'''- An event is *correct* if a claim states all of it at the right time, *incorrect* if the nearest claim about it is wrong or
  partial, and *missing* if no claim is about it.
- Each claim is used once: for one event. Otherwise it is *repeated* if it was made before, and *invented* if not. Text that cannot
  be parsed is also invented.
- A pair is correct if "while" joins the right halves, and missing otherwise. It is never incorrect, because the wrong half is
  already counted.
- Sizes are not judged. "Nothing happens" makes no claim.
- Captions of an interval or of one modality are judged against the whole clip: true claims that were not asked for are ignored,
  and false claims are invented.'''),
('''Clean captions score exactly zero errors. `corrupt` plants k errors of known kinds (drop, change, shift, invent, repeat, split)
that the judge must find, no more and no fewer.''','''Clean captions have exactly zero errors. `corrupt` plants k errors of known kinds (drop, change, shift, invent, repeat, split), and
the judge must find exactly these k errors.'''),
('''One of each kind for which a scene has something to ask. Chance is what the best constant answer gets on standard scenes.''','''A scene gets one question of each kind that applies to it. Chance is the accuracy of the best constant answer on standard scenes.'''),
('''For the last two, one modality alone is worth more than a guess: about .37 and .48.''','''For the last two kinds, one modality alone gives more than chance: about .37 and .48.'''),
)
s=open('docs/world.md').read()
i=s.index('| kind | example | needs'); t=s[i:].replace('? | sound |','? | audio |').replace('? | picture |','? | visual |').replace('6s? | sound |','6s? | audio |')
open('docs/world.md','w').write(s[:i]+t)
sub('CONTRIBUTING.md',
('''    make test     # .venv with all that is needed, then the tests''','''    make test     # creates .venv, then runs the tests'''),
('''To have the checks run before each commit: `.venv/bin/pre-commit install`. Both hooks are local, nothing is fetched.''','''`.venv/bin/pre-commit install` runs the checks before each commit. Both hooks are local; nothing is downloaded.'''),
('''The models are so small that a second thread costs more than it
gives: the tests set `OMP_NUM_THREADS=1`.''','''The models are so small that a second thread costs more than it gains,
so the tests set `OMP_NUM_THREADS=1`.'''),
('''- Something new about files, frames or sound: `media`. About tensors and weights: `model`. About text and token ids: `data`.
- Something new that can happen in the world: `world/scene.py` first (what is true), then how it is drawn (`world/render.py`)
  or sounds (`world/sounds.py`), its words (`world/grammar.py`), and the judge (`world/oracle.py`). If the same seed then
  gives another clip, raise `WORLD_VERSION`.
- A dial: a field with a docstring in the dataclass of the room it turns. A set of values worth a name: `recipes.py`.
- Something written to disk: a frozen dataclass in `records.py`, and a line in [docs/data.md](docs/data.md).
- A test: the folder of `tests/` with the room's name. A question about speed or quality: one file in `bench/`, run by hand.
- An experiment, above all one that failed: [docs/log.md](docs/log.md).

Imports point downwards. `tests/test_layers.py` has the rows, and which file may load which dependency.''',
'''- Code about files, frames or audio belongs to `media`; code about tensors and weights to `model`; code about text and token ids to
  `data`.
- A new kind of event in the world starts in `world/scene.py` (what is true). Then add how it is drawn (`world/render.py`) or sounds
  (`world/sounds.py`), its words (`world/grammar.py`), and the judge (`world/oracle.py`). If the same seed then produces another
  clip, increase `WORLD_VERSION`.
- A configuration field is a field with a docstring in the dataclass of its room. A set of values with a name is a recipe in
  `recipes.py`.
- Everything that is written to disk is a frozen dataclass in `records.py`, with an entry in [docs/data.md](docs/data.md).
- A test goes to the folder of `tests/` with the name of the room. A measurement of speed or quality is one file in `bench/`, run by
  hand.
- Experiments, especially failed ones, are recorded in [docs/log.md](docs/log.md).

Imports point downwards. `tests/test_layers.py` defines the rows, and which file may import which dependency. A word has one meaning:
`tests/test_vocabulary.py` fails for an old word in a name.'''),
('''The fifteen rules stand in [docs/design.md](docs/design.md). In short: a function fits on a screen; its first docstring line
says what goes in and what comes out; tensor names carry their shape; units stand in names; comments say why; an error says
what was got, what was wanted and what to do; nothing fails silently; a test shows its arithmetic.

English is plain: short sentences, no adjectives that praise.

Figures in documents are measured, with the command that measures them, the seeds and how sure they are.''',
'''[docs/design.md](docs/design.md) has the fifteen rules. In short: a function fits on a screen; the first line of its docstring
states input and output; tensor names carry their shape; names carry units; comments say why; an error states what it got, what it
expected and what to do; nothing fails silently; a test shows its arithmetic. Public functions have Google-style docstrings.

Write plain English: short sentences in natural word order, without adjectives of praise.

Figures in documents are measured. State the command that measures them, the seeds and the uncertainty.'''),
('''One change at a time, with its test, and one sentence in `CHANGELOG.md` if a user sees it. `make test` and `make check` pass.
The README's commands and its tree are tested: change them with the code.''','''Make one change at a time, with its test, and add one sentence to `CHANGELOG.md` if users notice it. `make test` and `make check`
must pass. The commands and the file tree of the README are tested: update them with the code.'''),
)
