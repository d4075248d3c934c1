import sys; sys.path.insert(0,'/tmp/h/codemod')
def sub(p,*pairs):
    s=open(p,encoding='utf-8').read()
    for a,b in pairs:
        if a not in s: print(p,'MISSING:',a[:70]); continue
        s=s.replace(a,b,1)
    open(p,'w',encoding='utf-8').write(s)
sub('docs/evaluation.md',
('## Captions against what is true','## Captions against the ground truth'),
('''# captions the videos of the truth first''','''# captions the videos of the truth first'''),
('''**Captions**: what `avcap caption` wrote, or JSONL, JSON or CSV with a video (path, name or id) and a text, in the fields that
other captioners use, the official output files among them; `--caption-field` names another. **Truth**: a world's folder,
`Sample` records, JSON with events (strings or objects), or reference captions alone, from which the judge takes the events.
A caption meets its sample by the sample's id, else by the video's name and the interval. What finds no partner, twice the
same id, an empty caption, a sample without events: counted on the terminal, named in `evaluation.json`.''',
'''**Captions** are files that `avcap caption` wrote, or JSONL, JSON or CSV files with a video (path, name or id) and a text. The
field names of other captioners are known, including those of the official output files; `--caption-field` names any other
field. The **truth** is a world's folder, `Sample` records, JSON with events (strings or objects), or reference captions alone,
from which the judge extracts the events. Captions are matched to samples by sample id, or else by video name and interval.
Unmatched or duplicate captions, empty captions and samples without events are counted on the terminal and listed in
`evaluation.json`.'''),
('''| `report.html` | each caption with its events in colours, sortable by error; one file, opens without a network |
| `verdicts.jsonl`, `unscored.jsonl` | what the judge says of each caption, or why it says nothing |
| `cases.jsonl`, `evaluation.json`, `setting.json` | what was judged, how, and what could not be used |

Stopped and run again it goes on. `--table markdown` and `latex` print the table for a paper. `--modality audio` counts the
events that are heard alone.

**Events.** Where the truth is reference captions alone, the judge takes them apart on the way. Done beforehand, a person can look
at them and mend them; what was mended is kept and applied again, and found stale if the event it was about has changed:''',
'''| `report.html` | each caption with its events in colours, sortable by error; a single file that needs no network |
| `verdicts.jsonl`, `unscored.jsonl` | the verdict on each caption, or the reason why there is none |
| `cases.jsonl`, `evaluation.json`, `setting.json` | what was judged, how, and what could not be used |

A run that was stopped resumes when it is started again. `--table markdown` and `--table latex` print the table for a paper.
`--modality audio` counts audio events only.

**Events.** If the truth consists of reference captions alone, the judge extracts their events first. If you extract them in a
separate step, a person can check and correct them. Corrections are kept and applied again, and they are reported as stale when
the event that they refer to has changed:'''),
('''**Rates.** Sums over captions before dividing, by the number of true events: `missing`, `hallucination` (told wrongly +
invented), `total`. `repetition`: words inside the second and later occurrences of any run of five words / words. Intervals are
95 % percentiles of 10,000 draws of videos, with all captions of a video together.''',
'''**Rates.** Counts are summed over all captions and then divided by the number of true events (micro-average): `missing`,
`hallucination` (incorrect + invented) and `total`. `repetition` is the share of words inside the second and later occurrences of
any 5-gram. Intervals are 95 % percentiles of 10,000 bootstrap samples of videos; all captions of a video are drawn together.'''),
('''| `oracle` | reads captions of the rendered world by its grammar: exact, offline |
| `openai:MODEL@URL` | any server with the OpenAI chat interface: hosted, vLLM, llama.cpp; the key from `OPENAI_API_KEY` |
| `local:FOLDER` | a language model in this process, from a folder with safetensors |

A language model gets the numbered events and the caption, and must label every event once, quote the caption for what it
labels, list what is invented, and give counts that add up. Where the server can hold it to a JSON schema, it is held to it. A
reply that is torn, contradicts itself or quotes what is not there is asked for again, three times in all; then the caption is
**Unscored**: in no mean, counted, named, and above `--max-unscored` the exit code is 1.

**A caption cannot talk to the judge.** Its text stands in a block whose tag holds a hash of it, each line behind a bar, with
look-alikes of tags and roles, control and zero-width characters made harmless. More than eighty hostile captions (orders,
forged replies, closing tags, unicode, 100 kB of one word) are tested against a server that obeys any order outside the block,
and against a control that shows it does obey.

[judge_transcript.txt](judge_transcript.txt) shows such an evaluation from end to end, with a server that answers plainly, with
chatter, wrongly at first, and not at all (`python bench/judge_transcript.py`).

**Cost.** `--dry-run` says calls, tokens and money before anything is asked (`--prices FILE.yaml` for models that are not built
in). `--budget 5` stops before five dollars are exceeded. Replies are kept in an SQLite file (`--cache`), by model, messages and
parameters; killed at any moment, nothing that was paid for is asked again.''',
'''| `oracle` | the exact judge of the rendered world, which parses captions by the world's grammar; works offline |
| `openai:MODEL@URL` | any server with the OpenAI chat interface: hosted, vLLM, llama.cpp; the key comes from `OPENAI_API_KEY` |
| `local:FOLDER` | a language model in this process, from a folder with safetensors |

A language model receives the numbered events and the caption. It must label every event exactly once, quote the caption for each
label, list the invented claims, and report counts that add up. If the server supports JSON schemas, the reply is constrained to
one. A reply that is incomplete, contradicts itself or quotes text that is not in the caption is requested again, up to three
times in all. After that the caption is **Unscored**: it is excluded from every mean, counted and listed. If the share of unscored
captions exceeds `--max-unscored`, the exit code is 1.

**A caption cannot give orders to the judge.** Its text is placed in a block whose tag contains a hash of the text, and each line
starts with a bar. Look-alikes of tags and roles, control characters and zero-width characters are neutralised. More than eighty
hostile captions (orders, forged replies, closing tags, unicode, 100 kB of one word) are tested against a server that obeys any
order outside the block; a control shows that this server does obey.

[judge_transcript.txt](judge_transcript.txt) shows a complete evaluation with a server that answers plainly, with extra text,
incorrectly at first, and not at all (`python bench/judge_transcript.py`).

**Cost.** `--dry-run` prints the number of calls, the tokens and the cost before any request is sent (`--prices FILE.yaml` adds
models that are not built in). `--budget 5` stops before five dollars are exceeded. Replies are cached in an SQLite file
(`--cache`), keyed by model, messages and parameters. A run can be killed at any moment without paying twice for a reply.'''),
('''Captions of scenes get planted errors of six kinds, and the judge is asked about each twice. The file says what it finds,
misses and invents, by kind of error, length and modality; how often it says the same again; and the smallest difference of
total error between two captions of a video that is above its noise. With `--calibration`, `avcap evaluate` also prints the
rates without the judge's known mistakes (confusion matrix inverted, after Rogan and Gladen), where that is valid.
`--judge noisy:0.1` is an oracle of which one answer in ten is wrong, to see what noise does.''',
'''Errors of six kinds are planted in captions of rendered scenes, and the judge is asked about each caption twice. The resulting
file records what the judge finds, misses and invents, by kind of error, length and modality. It also records how often the judge
repeats its own label, and the smallest difference in total error between two captions of a video that exceeds its noise. With
`--calibration`, `avcap evaluate` also prints the rates corrected for the judge's known mistakes where this is valid (inverse of
the confusion matrix, after Rogan and Gladen). `--judge noisy:0.1` is an oracle with one wrong answer in ten; it shows the effect
of noise.'''),
('''`--data` takes a world, or a local copy of Video-MME, NExT-QA, MVBench, WorldSense or Daily-Omni in its published form.
`--method logprobs` compares how likely the model finds the options, `generate` reads what it writes. Accuracy by kind stands
beside chance, with intervals over videos, and how often each letter is given beside how often it is right; `--rotate` asks with
the options in every order.''',
'''`--data` takes a world, or a local copy of Video-MME, NExT-QA, MVBench, WorldSense or Daily-Omni in its original format.
`--method logprobs` compares the likelihood of the options, and `--method generate` parses the text that the model writes. The
accuracy of each kind is shown next to chance, with intervals over videos. The report also shows how often each letter is
answered and how often it is right. `--rotate` asks each question with the options in every cyclic order.'''),
('''The same clips with sound, mute, with another clip's sound, and without the picture: how captions, errors by modality and
answers change. It ends with one sentence and, if the model does not use the sound, with exit code 1.''',
'''The model captions the same clips in four conditions: with their audio, with silence, with the audio of another clip, and without
frames. The audit measures how captions, errors by modality and answers change. It ends with one sentence; if the model does not use
the audio, the exit code is 1.'''),
('''`avcap.judge.protocols.run_protocol` runs a protocol object on cases. Numbers of two protocols, prompts or judges are never
comparable, and `avcap compare` refuses to mix them.''',
'''`avcap.judge.protocols.run_protocol` runs a protocol object on cases. Results of different protocols, prompts or judges are not
comparable, and `avcap compare` refuses to mix them.'''),
('''the test set of video-SALMONN 2: the run with the median total of seven''','''the test set of video-SALMONN 2: the run with the median total among seven'''),
('''VDCscore: the official mean, which leaves out videos with 0, and the strict one''','''VDCscore: the official mean, which leaves out videos with score 0, and the strict mean'''),
('''The wordings are ours, the rules theirs. `lmms-eval` finds''','''The prompts are worded by us; the rules are those of the original authors. `lmms-eval` finds'''),
)
sub('docs/rounds.md',
('# Preference rounds, and what comes after them','# Preference rounds and rebirth'),
('samples -> verdicts -> pairs -> guided DPO -> merge -> gate, again and again','samples -> verdicts -> pairs -> guided DPO -> merge -> measure and select, repeated'),
('''each to be read top to bottom; what
was measured is in [results.md](results.md).''','''each readable from top to bottom.
[results.md](results.md) has the measurements.'''),
('''# clips of the world are rendered, to learn and to measure on''','''# renders clips of the world to train and to measure on'''),
('''# rounds 3, 4, ... made anew''','''# repeats rounds 3, 4, ...'''),
('''With videos of your own: `--data FILE` and `--held-out FILE` ([data.md](data.md): samples with events, see `avcap events`),
`--questions` and `--held-out-questions` (any form that `avcap evaluate-qa` reads), `--judge openai:MODEL@URL`, and
`--calibration FILE` of that judge, so that no pair is within its noise.

One round:

1. `sampling.num_prompts` prompts, other ones in each round, `sampling.local_share` of them about intervals; the model writes
   `sampling.captions_per_prompt` captions of each from one reading of the video.
2. The judge finds what each caption misses, gets wrong, invents and repeats.
3. At most one pair a prompt (below); `selection.txt` says how many were dropped, and why.
4. Guided DPO on a fresh LoRA: packed rows [prompt | chosen | rejected | reference caption], each video read once. The loss of the
   first step must be ln 2 + guidance, or the round does not begin. The rate decays to 0 within the round.
5. The LoRA is merged in float32. That model is the next round's start and its reference.
6. The gate: greedy captions of held-out videos, held-out questions, signs of unnatural text.

The stop rule (`stop.*`) ends the rounds after `patience` rounds without a new best, and picks the best round among those that
did not get strange: more hallucination, repetition or captions without an end, captions much longer or shorter, fewer distinct
4-grams, a perplexity under the first model that says it would never write so, or questions lost. One round that is worse ends
nothing: rounds may swing.''',
'''To use your own videos, pass `--data FILE` and `--held-out FILE` (samples with events: see [data.md](data.md) and `avcap events`),
`--questions` and `--held-out-questions` (any format that `avcap evaluate-qa` reads), and `--judge openai:MODEL@URL`. Pass
`--calibration FILE` of that judge as well, so that no pair lies within its noise.

Each round has six steps:

1. It draws `sampling.num_prompts` new prompts; `sampling.local_share` of them ask about intervals. The model samples
   `sampling.captions_per_prompt` captions for each prompt from a single prefill of the video.
2. The judge determines what each caption misses, gets wrong, invents and repeats.
3. At most one pair is selected for each prompt (see below). `selection.txt` reports how many were dropped, and why.
4. A new LoRA is trained by guided DPO on packed rows [prompt | chosen | rejected | reference caption]; each video is encoded once.
   The loss of the first step must be ln 2 + guidance, otherwise the round is refused. The learning rate decays to 0 in the round.
5. The LoRA is merged in float32. The merged model is the starting point and the reference policy of the next round.
6. The round is measured for selection: greedy captions of held-out videos, held-out questions, and signs of unnatural text.

The stop rule (`stop.*`) ends the rounds after `patience` rounds without a new best. It selects the best round among those that
pass all limits. A round is rejected if hallucination, repetition or the share of truncated captions grows, if captions become much
longer or shorter, if the share of distinct 4-grams falls, if the perplexity under the first model is too high, or if fewer
questions are answered correctly. A single worse round does not end the run, because rounds may oscillate.'''),
('''| `guidance=[0,0.1]` | weight of the cross-entropy on reference captions, round by round |''','''| `guidance=[0,0.1]` | weight of the cross-entropy on reference captions, for each round |'''),
('''IPO instead of DPO; `sft` is that cross-entropy alone; `length''','''IPO instead of DPO; `sft` uses the cross-entropy alone; see also `length'''),
('''questions are learned beside the pairs |''','''trains on questions in addition to the pairs |'''),
('''questions learned by preference, a right answer against a wrong one, here from round 3 on |''','''adds pairs from questions (a right answer against a wrong one), here from round 3 on |'''),
('''one LoRA goes on through all rounds, against the first model |''','''keeps one LoRA through all rounds, with the first model as the reference policy |'''),
('''all layers learn, without a LoRA;''','''trains all layers without a LoRA;'''),('''or `ewc` holds them |''','''or `ewc` regularizes them |'''),
('''the aligners learn, too |''','''also trains the aligners |'''),
('''a round's model is measured as its mean with the one before |''','''measures the average of a round's model and the one before it |'''),
('''`avcap average A B --out C` writes the mean of checkpoints, with `--weights 1,3` if wanted.''','''`avcap average A B --out C` writes the mean of checkpoints; `--weights 1,3` sets their weights.'''),
('''`avcap pairs build` makes pairs of judged captions, `show` prints what differs, `export` and `import` write and read the files of
TRL, ms-swift, LLaMA-Factory and the released code. `--set NAME=VALUE` (in rounds: `--set pairs.NAME=VALUE`):''',
'''`avcap pairs build` selects pairs from judged captions, and `avcap pairs show` prints how they differ. `export` and `import` write
and read the formats of TRL, ms-swift, LLaMA-Factory and the official code. `--set NAME=VALUE` sets a limit (in rounds:
`--set pairs.NAME=VALUE`):'''),
('''and most of what differs are fixes. `best_vs_worst`: the largest margin''','''and most of the differences are fixes. `best_vs_worst`: the pair with the largest margin'''),
('''| `min_gap` | smallest difference of total error''','''| `min_gap` | smallest difference in total error'''),
('''of minimal pairs: errors fixed less errors made, by clauses that differ''','''for minimal pairs: (errors fixed - errors introduced) / clauses that differ'''),
('''limits on the total error of either''','''limits on the total error of each caption'''),
('''| words of the chosen by words of the rejected |''','''| words of the chosen / words of the rejected caption |'''),
('''| how many at most |''','''| maximum number of pairs |'''),
('''learns the pairs of a file in one round; pairs that another model wrote are refused,
unless `--off-policy` says that they are wanted.''','''trains on the pairs of a file in one round. Pairs written by another model are
refused unless `--off-policy` is given.'''),
('''The model from *before* the rounds (`--model`) is fine-tuned on the final model's captions of a larger pool of videos, which need no
label: those that repeat clauses, never end, or are far from the usual length are dropped and counted. With them it learns questions
and their answers, and goes on saying what it said of the picture alone and of the sound alone. `--held-out` measures all three models.
`--data` takes a world, a list of samples or a folder of videos.''',
'''The model from *before* the rounds (`--model`) is fine-tuned on the final model's captions of a larger pool of videos. The videos
need no labels. Captions that repeat clauses, are truncated, or are far from the usual length are dropped and counted. The training
data also includes questions with their answers, and the model's own earlier captions of the video alone and of the audio alone.
`--held-out` measures all three models. `--data` takes a world, a list of samples or a folder of videos.'''),
('''| no reference captions | said; learned from pairs alone |
| no pair is left, or all captions are equal | the round stops and says what was dropped and why |
| the judge is down | the round stops if more than `max_unscored` of the captions have no verdict; what was paid for is kept |
| killed, at any moment | the same command goes on, to the same weights bit for bit on a CPU (`bench/kill_rounds.py`) |
| the disk is full | one line; the same command goes on once there is room |
| a loss that is no number | one line; a lower rate with `--from-round` |
| another configuration or model | refused; another `--out`, or `--from-round`, which sets later rounds aside and deletes nothing |
| reference log-probs of other weights | refused |''',
'''| there are no reference captions | a message is printed; training uses the pairs alone |
| no pair is left, or all captions are equal | the round stops and reports what was dropped and why |
| the judge is down | the round stops if more than `max_unscored` of the captions have no verdict; paid replies are kept |
| the run is killed, at any moment | the same command resumes it, and on a CPU the weights are identical (`bench/kill_rounds.py`) |
| the disk is full | an error in one line; the same command resumes when there is space |
| the loss is not finite | an error in one line; set a lower learning rate and use `--from-round` |
| the configuration or the model differs | refused; use another `--out`, or `--from-round`, which sets later rounds aside and deletes nothing |
| the stored log-probs belong to another reference policy | refused |'''),
)
sub('docs/data.md',
('# What is on disk','# Data formats'),
('''A record is one line of a JSONL file: a frozen dataclass of `records.py`. Unknown fields, missing fields and wrong types are
errors with file and line. Files are written aside and renamed, or appended line by line; a torn last line is passed over.''',
'''A record is one line of a JSONL file and corresponds to a frozen dataclass in `records.py`. Unknown fields, missing fields and
wrong types are errors that name the file and the line. Files are either written to a temporary name and renamed, or appended line by
line; an incomplete last line is ignored. Files of avcap 0.1 are read under their old names (`v0_1.py`).'''),
('''One line per video, a `Caption` or a `CaptionError`. Here broken into lines:''','''Each video gives one line, a `Caption` or a `CaptionError`. The lines are wrapped here:'''),
('''- `sample_id`: the path, and what was asked of it:''','''- `sample_id`: the path, and the part that was used:'''),
('''- `checkpoint`: name and a fingerprint of the weights. A file holds captions of one model, prompt and decoding only.
- `seen`: counted where the tokens enter the language model. `finished` false: the text ran into the token limit.
- `in_world`, `world_score`: only from models that know one world; the border is 1. Otherwise null.''',
'''- `checkpoint`: the name and a fingerprint of the weights. A file holds captions of one model, one prompt and one decoding only.
- `seen`: what the model was given, counted where the tokens enter the language model.
- `finished`: false if the text reached the token limit.
- `in_world`, `world_score`: set by models that know a single world, with 1 as the border; null otherwise.'''),
('''| `Sample` | corpora; `intervals`''','''| `Sample` | corpora, `intervals`'''),
('''`modality` and `needs` are `visual`, `audio` or `both`; a label is''','''`modality` and `needs` are `visual`, `audio` or `both`. A label is'''),
('''one WorldTruth per clip; there once all clips are; video paths are relative to DIR''','''one WorldTruth per clip, written when all clips exist; video paths are relative to DIR'''),
('''the model, as transformers saves it''','''the model, as saved by transformers'''),
('''avcap.json                            how it is to be asked''','''avcap.json                            its prompts and limits'''),
('''only if it knows one world: what that looks and sounds like''','''only for models of a single world: statistics of its video and audio'''),
('''its card; the first line is what `avcap models` prints''','''its model card; `avcap models` prints the first line'''),
('''A folder in the released "v1" layout has no `avcap.json`; it then has the defaults. Those of a tiny model:''','''A folder in the released "v1" layout has no `avcap.json`, and the defaults apply. This is the file of a tiny model:'''),
('''Defaults: the prompts of the released model, 1024 new tokens, 1 frame a second, at most 110 frames.''','''The defaults are the prompts of the released model, 1024 new tokens, 1 frame per second and at most 110 frames.'''),
('''    OUT/config.yaml                    the whole configuration
    OUT/teach/metrics''','''    OUT/config.yaml                    the complete configuration
    OUT/finetune/metrics'''),
('''    OUT/teach/checkpoints/step-000700/ model''','''    OUT/finetune/checkpoints/step-000700/ model'''),
('''    OUT/eyes, OUT/ears, OUT/encoders   tiny_base only: the encoders' own training, and the result''','''    OUT/vision, OUT/audio              tiny_base only: the training of the encoders; the result is in OUT/encoders
    OUT/second_phase/                  tiny_base only: the second phase of fine-tuning'''),
('''`.jsonl`: one `Sample` per line, each with a `reference_caption`. `.json`: a list in the format of the released training code:''','''A `.jsonl` file has one `Sample` per line, each with a `reference_caption`. A `.json` file is a list in the format of the official
training code:'''),
('''`timestamps` may be left out.''','''`timestamps` is optional.'''),
)
