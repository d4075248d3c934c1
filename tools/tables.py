"""The words. Left: until 0.1. Right: from now on."""

WORLD = r"^src/avcap/world/|^tests/world/"
UNTOUCHED = (
    r"tests/data/v0_1/", r"tests/data/.*\.(json|txt)$", r"tests/assets/.*\.(json|txt)$", r"src/avcap/models/.*/(tokenizer.*|lineage)\.json$", r"LICENSE",
    r".*\.(png|mp4|safetensors|sqlite|lock)$", r"docs/judge_transcript\.txt", r"src/avcap/v0_1\.py$",
    r"tests/test_vocabulary\.py$", r"tests/test_v0_1\.py$", r"examples/truth\.jsonl", r"docs/log\.md$", r"CHANGELOG\.md$",
)
CURRICULUM = r"^src/avcap/(train|curriculum|stages|recipes|bench)|^tests/(train|curriculum|stages)|^bench/|recipes\.py$|^tests/test_cli_train|^tests/(support|conftest)"

# path (regex) -> new path
FILE_MOVES = [
    (r"(src/avcap/judge)/foreign\.py", r"\1/external_rows.py"),
    (r"(src/avcap/judge)/sound_audit\.py", r"\1/audio_ablation.py"),
    (r"(src/avcap/judge)/untrusted\.py", r"\1/quoting.py"),
    (r"(tests/judge)/test_untrusted\.py", r"\1/test_quoting.py"),
    (r"(tests/judge)/test_sound_audit\.py", r"\1/test_audio_ablation.py"),
    (r"(src/avcap/(?:train|curriculum))/lessons\.py", r"\1/examples.py"),
    (r"(tests/(?:train|curriculum))/test_lessons\.py", r"\1/test_examples.py"),
    (r"(src/avcap/(?:train|curriculum))/tracks\.py", r"\1/feature_tracks.py"),
    (r"(tests/(?:train|curriculum))/test_tracks\.py", r"\1/test_feature_tracks.py"),
    (r"(src/avcap/train)/anchor\.py", r"\1/weight_regularizer.py"),
    (r"(src/avcap/train)/reference\.py", r"\1/ref_logprobs.py"),
    (r"(tests/train)/test_reference\.py", r"\1/test_ref_logprobs.py"),
    (r"(src/avcap/stages)/dpo\.py", r"\1/dpo_from_file.py") ,
    (r"(src/avcap/stages)/prefer\.py", r"\1/dpo.py"),
    (r"(src/avcap/stages(?:/parts)?)/gate\.py", r"\1/selection.py"),
    (r"(tests/stages)/test_gate\.py", r"\1/test_selection.py"),
    (r"(src/avcap/stages(?:/parts)?)/teach\.py", r"\1/finetune.py"),
    (r"(src/avcap/stages)/track\.py", r"\1/tracking.py"),
    (r"(tests/stages)/test_track\.py", r"\1/test_tracking.py"),
    (r"(src/avcap/cli)/material\.py", r"\1/round_data.py"),
    (r"(src/avcap/cli)/compat\.py", r"\1/official.py"),
    (r"(tests)/test_cli_compat\.py", r"\1/test_cli_official.py"),
    (r"(tests)/test_compat_table\.py", r"\1/test_official_table.py"),
    (r"(bench)/compat\.py", r"\1/official.py"),
    (r"(bench)/shipped\.py", r"\1/tiny.py"),
    (r"(docs)/compat\.md", r"\1/official.md"),
    (r"(docs)/compat\.png", r"\1/official.png"),
    (r"(docs)/compat_plus\.png", r"\1/official_plus.png"),
    (r"(src/avcap/infer)/compat\.py", r"\1/official_options.py"),
    (r"(src/avcap/infer)/published\.py", r"\1/official_rules.py"),
    (r"(src/avcap/infer)/compat_audit\.py", r"\1/official_audit.py"),
    (r"(tests/infer)/test_published_prompt\.py", r"\1/test_official_prompt.py"),
    (r"(src/avcap/infer)/shipped\.py", r"\1/find_checkpoint.py"),
    (r"(src/avcap/model(?:/checkpoint)?)/placing\.py", r"\1/placement.py"),
    (r"(src/avcap/media)/picture\.py", r"\1/video.py"),
    (r"(src/avcap/media)/sound\.py", r"\1/audio.py"),
    (r"(src/avcap/media)/published\.py", r"\1/official.py"),
    (r"(tests/media)/test_published\.py", r"\1/test_official.py"),
    (r"(docs)/make_picture\.py", r"\1/make_demo.py"),
]

# --- before anything else: where more than a name changes. (path, regex, replacement); each does nothing the second time
PRE = [
    # --compat official|default -> --official
    (r"^src/|^bench/|^tests/", r"Annotated\[Compat, typer\.Option\(help=\"official: exactly as published, mistakes included\.\"\)\] = \"default\"",
     r'Annotated[bool, typer.Option("--official", help="Exactly as the published code runs it, mistakes included.")] = False'),
    (r"^src/|^bench/|^tests/", r"\bcompat: Compat = \"default\"", r"official: bool = False"),
    (r"^src/|^bench/|^tests/", r"\b(self\.)?compat == \"official\"", r"\1official"),
    (r"^src/|^bench/|^tests/", r"\bcompat == \"default\"", r"not official"),
    (r"", r"\bcompat=\"official\"", r"official=True"),
    (r"src/avcap/infer/captioner", r"`compat`(\s+)\"official\": exactly as", r"`official`:\1exactly as"),
    (r"^src/|^bench/|^tests/", r"\bcompat=\"default\"", r"official=False"),
    (r"^src/|^bench/|^tests/", r"name_with_compat\(checkpoint: str, compat: str\)", r"name_with_official(checkpoint: str, official: bool)"),
    (r"^src/", r"\{checkpoint\}\+\{compat\}", r"{checkpoint}+official"),
    (r"^src/", r"return checkpoint if not official else (f\"[^\"]*\")", r"return \1 if official else checkpoint"),
    (r"^tests/|^bench/", r"\"--compat\", \"official\"", r'"--official"'),
    (r"", r"--compat official", r"--official"),
    (r"", r"--compat(?![\w-])", r"--official"),
    (r"", r"compat official", r"--official"),
    (r"", r"audit-compat", r"audit-official"),
    (r"^src/", r"Compat = Literal\[\"default\", \"official\"\]\nCOMPATS: tuple\[str, \.\.\.\] = get_args\(Compat\)\n", ""),
    (r"^src/avcap/infer/(compat|official)", r"def check_compat\(compat: str\) -> None:\n(?:    .*\n)+\n\n", ""),
    (r"^src/avcap/infer/captioner", r"        check_compat\(compat\)\n", ""),
    (r"^src/|^tests/", r"(?<=import )(Compat, )?check_compat, ", ""),
    (r"^src/|^tests/", r"\bCompat, ", ""),
    (r"^src/avcap/infer/(compat|official)", r'>>> name_with_compat\("salmonn@0badcafe", "official"\)', '>>> name_with_compat("salmonn@0badcafe", official=True)'),
    (r"^src/avcap/infer/(compat|official)", r"name_with_official\(checkpoint: str, official: bool\)", "name_with_official(checkpoint: str, *, official: bool)"),
    (r"^src/", r"name_with_compat\((.*), compat\)", r"name_with_compat(\1, official=compat)"),
    (r"^tests/", r'    with pytest\.raises\(UserError, match="got compat .exact., wanted one of default, official"\):\n        check_compat\("exact"\)\n', ""),
    (r"^src/avcap/infer/(compat|official)", r'"default" is what is right; "official" runs a released checkpoint exactly as published\. docs/compat\.md compares them\.',
     "Without it a released checkpoint is run as is right, with it exactly as published. docs/compat.md compares them."),
    # weights that 0.1 wrote have other names
    (r"^tests/(stages/test_(rounds|rebirth|audit_audio)|test_cli_dpo)", r"\bload_file\((find_checkpoint\(\"tiny-sft\"\)|parent|folder) / \"model\.safetensors\"\)", r'read_weights(\1 / "model.safetensors")'),
    (r"^tests/(stages/test_(rounds|rebirth|audit_audio)|test_cli_dpo)", r"\A((?:(?!import read_weights)[\s\S])*?)(?=^from avcap\.(?!model\.average import read_weights))(?=[\s\S]*read_weights\()(?![\s\S]*import read_weights)", r"\1from avcap.model.average import read_weights\n"),
    # what counts from 0 is an index
    (r"tests/test_layers", r"room: number for number, row in enumerate\(ROWS\)", "room: index for index, row in enumerate(ROWS)"),
    (r"judge/(protocols/)?event(s|_extraction)\.py", r"same = \[number for number, text in enumerate\(texts\) if text == correction\.was\]", "same = [at for at, text in enumerate(texts) if text == correction.was]"),
    (r"judge/(protocols/)?event(s|_extraction)\.py", r"by_id := \[number for number in same if ids\[number\]", "by_id := [at for at in same if ids[at]"),
    (r"stages/(dpo|dpo_from_file)\.py", r"\{str\(place\): replace\(pair, sample_id=str\(place\)\) for place, pair in enumerate", "{str(index): replace(pair, sample_id=str(index)) for index, pair in enumerate"),
    (r"stages/(dpo|dpo_from_file)\.py", r"lambda place: encoded\(captioner, _sample\(named\[place\]\)", "lambda index: encoded(captioner, _sample(named[index])"),
    # proxy
    (r"^src/|^tests/", r'proxy: Literal\["fresh", "kept"\] = "fresh"\n(\s+)"""fresh: a new LoRA a round, against the model merged so far\. kept: one LoRA goes on, against the first model\."""',
     r'reset_lora: bool = True\n\1"""A new LoRA each round, against the model merged so far; false: one LoRA goes on, against the first model."""'),
    (r"^src/", r'config\.proxy == "kept"', r"not config.reset_lora"),
    (r"^tests/|^bench/", r'proxy="kept"', r"reset_lora=False"),
    (r"^tests/|^bench/", r'proxy="fresh"', r"reset_lora=True"),
    (r"", r"\bproxy=kept\b", r"reset_lora=false"),
    (r"", r"\bproxy=fresh\b", r"reset_lora=true"),
    # fields of the mix of examples
    (r"(lessons|examples)\.py$", r"(?m)^    slots: float = 0\.0\n    seen: float = 0\.0\n    heard: float = 0\.0",
     r"    seconds: float = 0.0\n    visual: float = 0.0\n    audio: float = 0.0"),
    (r"(lessons|examples|questions)\.py$", r"(?m)^    heard: float = 3\.0", r"    heard__KEEP: float = 3.0"),
    (r"(lessons|examples)\.py$", r'"slots": self\._slots, "seen": self\._seen, "heard": self\._heard',
     r'"seconds": self._seconds, "visual": self._visual, "audio": self._audio'),
    (r"(lessons|examples)\.py$", r"\bdef _slots\(", r"def _seconds("),
    (r"(lessons|examples)\.py$", r"\bdef _seen\(", r"def _visual("),
    (r"(lessons|examples)\.py$", r"\bdef _heard\(", r"def _audio("),
    (r"", r"\b(QuestionMix|only)\(([^()\n]*)\bheard=", r"\1(\2heard__KEEP="),
    (r"^src/avcap/judge/(metrics/)?(metrics|error_rates)\.py", r'\{"visual": "seen", "audio": "heard", "both": "both"\}', r'{"visual": "visual", "audio": "audio", "both": "both"}'),
    (r"report\.html$", r'visual: "seen", audio: "heard", both: "seen and heard"', r'visual: "visual", audio: "audio", both: "visual and audio"'),
    (r"tests/(train|curriculum)/test_(shared_prompt|packing)", r"ids = \{f\"\{name\}_ids\": case\[f\"\{name\}_ids\"\]\.tolist\(\) for name in \(\"prompt\", \"chosen\", \"rejected\", \"reference\"\)\}",
     'names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "target": "reference"}\n    ids = {f"{name}_ids": case[f"{recorded}_ids"].tolist() for name, recorded in names.items()}'),
    (r"tests/infer/test_answer", r"for scores, expected in zip\(found, wanted, strict=True\):\n        assert scores == pytest.approx\(expected,", "for scores, alone in zip(found, wanted, strict=True):\n        assert scores == pytest.approx(alone,"),
    # answers of a video: what the loss reads is a target
    (r"^src/avcap/stages/(prefer|dpo)\.py", r'"stage": "prefer"', r'"stage": "dpo"'),
    (r"^src/avcap/stages/gate|^src/avcap/stages/(parts/)?selection", r"sum\(number for _, number in found\)", r"sum(num for _, num in found)"),
    (r"^bench/", r'"picture" in method', r'"video only" in method'),
    (r"^bench/decode", r"avcap, picture only", r"avcap, video only"),
]

CALL_KEYWORDS = [
    ("LessonMix|ExampleMix", {"slots": "seconds", "seen": "visual", "heard": "audio"}),
    ("Standing|RoundMetrics|standing_of|round_metrics_of", {"number": "round_number", "collapse": "truncated"}),
    (r"[\w.]*\.measure|_measure|standing", {"number": "round_number"}),
]

# --- identifiers ------------------------------------------------------------------------------------------------------

# Names that stay, whoever uses them.
KEEP = {
    # of other libraries
    "Qwen2_5_VisionTransformerPretrainedModel", "Qwen3VLVisionModel", "SiglipVisionConfig", "SiglipVisionModel", "DPOConfig",
    "DPOTrainer", "precompute_ref_logps", "doc_to_visual", "gate_proj", "eye", "from_pretrained", "set_seed", "track",
    "silence_progress_bars", "disable_progress_bar", "SoundFont",
    # of the world: things that make a sound, words that are spoken, kinds of question
    "SoundAtom", "SoundKind", "SOUND_KINDS", "COUNTED_SOUNDS", "PLAIN_SOUNDS", "SOUND_WEIGHTS", "sounds", "speech", "SPEECH_S",
    "unseen_sounds", "second_sound_rate", "one_sound", "test_speech", "soundfont",
    # places of objects in the world
    "PLACES", "new_place", "place_tokens",
    # of models as they are released: what a file of theirs calls it
    "RELEASED_STEP", "released_targets", "releases", "release",
    "num_slots", "_slot_R", "slots", "slot",
    # what the pairs teach is a preference
    "preference_loss", "PreferenceConfig", "PreferencePair", "check_preference", "v1_preference", "prefer_letter",
    # the same letters, other words
    "strangeness",
}

EXACT = {
    # modality: in names of their own
    "Eyes": "VisionPerception", "Ears": "AudioPerception", "eyes": "vision", "ears": "audio",
    "ANSWERS_SEEN": "ANSWERS_VISUAL", "SEEN": "VISUAL", "HEARD": "AUDIO", "HEARD_LOCAL": "AUDIO_LOCAL", "SEEN_ONLY": "VISUAL_ONLY",
    "PictureReader": "VideoReader", "PictureBatches": "FrameBatches", "PICTURE_ATTRIBUTES": "VISUAL_ATTRIBUTES", "picture_targets": "visual_targets",
    "SoundAudit": "AudioAblation", "sound_audit": "audio_ablation", "audit_sound": "audit_audio", "encode_pictures": "encode_video_track",
    "picture_3": "visual_3", "picture_HW3": "image_HW3", "pictures": "videos", "sees": "has_video", "hears": "has_audio",
    "heard": "audio", "_heard": "_audio", "_seen": "_seen", "want_picture": "with_video", "want_sound": "with_audio",
    "hears_only_that_there_is_sound": "notices_only_that_there_is_audio",
    "deaf_checkpoint": "checkpoint_without_audio", "is_deaf": "has_no_audio", "num_heard": "num_audio_events",
    "speech_layer_norm": "audio_layer_norm", "heard_S": "read_S", "_describe_seen": "_describe_seen",
    "FIRST_SOUND_TYPE": "FIRST_AUDIO_TYPE", "sounds_by_second": "atoms_by_second", "_sound_words": "_atom_words", "other_pictures": "other_videos", "other_sounds": "other_audio",
    "test_the_first_of_two_sounds_in_a_second_is_the_one_named": "test_the_first_of_two_in_a_second_is_the_one_named", "test_other_sounds_are_out": "test_other_audio_is_out",
    "test_other_pictures_are_out": "test_other_videos_are_out", "render_sound": "render_audio",
    "_with_picture_and_sound": "_with_video_and_audio", "single_picture": "single_image",
    # official
    "Compat": "Official", "COMPATS": "OFFICIALS", "compat": "official", "published_dials": "official_fields", "published_clip_request": "official_clip_request",
    "published_decoding": "official_decoding", "published_features": "official_features", "published_prompt": "official_prompt",
    "published_ids": "official_ids", "published": "official", "PUBLISHED": "OFFICIAL", "read_published": "read_official", "plot_compat": "plot_official",
    "audit_compat": "audit_official", "compat_audit": "official_audit", "name_with_compat": "name_with_official", "check_compat": "check_official",
    "bench_compat": "bench_official",
    # examples
    "Lesson": "Example", "LessonBatch": "ExampleBatch", "LessonBatches": "ExampleBatches", "LessonMix": "ExampleMix", "RebirthLesson": "RebirthExample",
    "Teacher": "ExampleSampler", "TeachConfig": "FinetuneConfig", "CorpusTeachConfig": "CorpusFinetuneConfig", "teach": "finetune",
    "teach_corpus": "finetune_on_corpus", "practise": "second_phase", "PRACTICE": "SECOND_PHASE", "teachers": "samplers", "taught": "learned", "_taught": "_learned_captions",
    "LESSONS": "EXAMPLES", "lessons": "examples", "_lesson": "_example", "lesson": "example",
    "slot_steps": "second_steps", "slots_per_lesson": "seconds_per_example", "slot_prompt": "second_prompt", "slot_truth": "second_truth",
    "questions_per_lesson": "questions_per_example", "LOOKS": "LOOKS",
    # dpo
    "PreferConfig": "DpoConfig", "DpoConfig": "DpoFromFileConfig", "prefer": "dpo", "run_dpo": "run_dpo_from_file",
    # selection
    "Gate": "Selection", "gate": "selection", "Standing": "RoundMetrics", "STANDING": "ROUND_METRICS", "standing": "round_metrics", "standings": "all_metrics",
    "standing_of": "round_metrics_of", "read_standings": "read_round_metrics", "compare_standings": "compare_models", "strange": "rejection_reason",
    "collapse": "truncated", "collapse_rate": "truncated_rate", "max_more_collapse": "max_more_truncated",
    # regularizer, data, rows
    "Anchor": "WeightRegularizer", "AnchorConfig": "WeightRegularizerConfig", "anchor": "weight_regularizer",
    "Material": "RoundData", "material": "round_data", "_check_material": "_check_round_data",
    "foreign": "external_rows", "_foreign_sample": "_external_sample", "untrusted": "quoting", "UNTRUSTED": "QUOTED",
    "proxy": "reset_lora", "_embedded_json": "_inline_json", "shipped": "tiny", "shipped_models": "tiny_models", "ShippedModel": "TinyModel",
    # reference
    "ReferenceStore": "RefLogprobStore", "ReferencePolicy": "RefPolicy", "ReferenceLogprobs": "RefLogprobs", "reference_policy": "ref_policy",
    "reference_logprobs": "ref_logprobs", "reference_ids": "target_ids", "_store_reference": "_store_ref_logprobs", "reference_logps": "ref_logps",
    "reference_model": "ref_model", "reference_of": "reference_caption_of", "reference_events": "reference_caption_events", "of_reference": "of_reference_caption",
    "needs_reference": "needs_reference_caption", "no_reference": "no_reference_caption", "REFERENCE_FIELDS": "REFERENCE_CAPTION_FIELDS",
    "references": "reference_captions", "reference": "reference_caption", "MAX_REFERENCE_CHARS": "MAX_REFERENCE_CAPTION_CHARS",
    # feature tracks
    "Track": "FeatureTrack", "Tracks": "FeatureTracks", "TrackConfig": "FeatureTrackConfig", "tracks": "feature_tracks", "make_tracks": "make_feature_tracks",
    "load_tracks": "load_feature_tracks", "pair_tracks": "pair_feature_tracks", "tracks_dir": "feature_tracks_dir", "tracks_module": "feature_tracks_module",
    # counting
    "wanted": "expected", "is_wanted": "is_expected", "num_wanted": "num_needed", "wanted_samples": "needed_samples",
    "NO_ROOM": "NO_SPACE", "placing": "placement", "Placing": "DevicePlacement", "dial": "field_name", "dials": "fields",
    "MediaPlaces": "MediaPositions", "official_generate_places": "official_generate_positions", "train_places": "train_positions",
    "test_a_deaf_model": "test_a_model_that_ignores_audio", "test_a_plain_backbone_gets_ears": "test_a_plain_backbone_gets_an_audio_branch",
    "test_missing_speech_norm_is_seen": "test_missing_audio_norm_is_seen", "place_of": "index_of",
    "test_a_round_begins_with_policy_and_reference_the_same": "test_a_round_begins_with_policy_and_ref_policy_the_same",
    "test_gradients_reach_the_policy_and_not_the_reference": "test_gradients_reach_the_policy_and_not_the_ref_policy",
    "test_a_pair_without_reference_log_probs_is_an_error": "test_a_pair_without_ref_logprobs_is_an_error",
    "test_sft_is_the_cross_entropy_alone_and_needs_no_reference_policy": "test_sft_is_the_cross_entropy_alone_and_needs_no_ref_policy",
    "test_switched_off_the_model_is_the_reference_and_then_itself_again": "test_switched_off_the_model_is_the_ref_policy_and_then_itself_again",
    "test_the_reference_is_the_model_with_its_lora_off_and_without_dropout": "test_the_ref_policy_is_the_model_with_its_lora_off_and_without_dropout",
    "test_reference_events_that_are_not_given_are_extracted": "test_events_of_reference_captions_that_are_not_given_are_extracted",
}
# On the right there are names that also stand on the left: a second run must not change them again.
ONCE = ("prefer", "PreferConfig", "DpoConfig", "run_dpo")

PARTS = [
    (r".", {
        "sound": "audio", "picture": "video", "pictures": "videos", "ears": "audio", "eyes": "vision",
        "lesson": "example", "lessons": "examples", "teach": "finetune", "practise": "second_phase",
        "compat": "official", "published": "official", "standing": "round_metrics", "standings": "round_metrics",
        "strange": "rejected", "anchor": "weight_regularizer", "material": "round_data", "foreign": "external",
        "untrusted": "quoted", "embedded": "tiny", "shipped": "tiny", "collapse": "truncated", "wanted": "expected",
        "gate": "selection", "wants": "expects", "placing": "placement",
    }),
    (CURRICULUM, {"slot": "second", "slots": "seconds"}),
]

# Names that mean something else in some files. (path, table)
NAMES_AT = [
    (r"^tests/infer/test_shared_prompt_kv|infer/(shared_prompt|kv_cache)|bench/judge_calls|judge/chat|llm/", {"slots": "slots", "_slots": "_slots", "wanted": "expected"}),
    (CURRICULUM + r"|bench/", {"slots": "seconds", "_slots": "_seconds", "slot": "second"}),
    (r"media/(reader|codec|official|published|picture|video|sound|audio)\.py", {"tracks": "streams_read", "picture": "video", "pictures": "videos", "sound": "audio"}),
    (r"media/(picture|video)\.py", {"pictures": "frames"}),
    (r"(train|curriculum)/perception|tests/(train|curriculum)/test_perception|world/", {"sound_rate": "sound_rate"}),
    (r"tests/judge/test_dialogue", {"heard": "answered"}),
    (r"tests/model/test_mrope", {"heard": "audio_so_far"}),
    (r"tests/model/test_init_audio", {"seen": "vision", "heard": "audio"}),
    (r"tests/judge/test_metrics", {"seen": "visual", "heard": "audio"}),
    (r"tests/train/test_(lessons|examples)|tests/curriculum/test_(lessons|examples)", {"seen": "visual", "heard": "audio", "Clip": "Clip"}),
    (r"bench/(shipped|tiny)", {"heard": "audible", "SOUND_KINDS": "AUDIO_KINDS"}),
    (r"bench/loading", {"hears": "audio_bytes"}),
    (r"tests/test_cli_(compat|official)", {"picture": "plot"}),
    (r"tests/media|tests/support/media_files", {"picture": "image", "references": "links", "other_pictures": "other_images"}),
    (r"tests/conftest|tests/support/videos", {"sound": "block"}),
    (r"tests/model/test_qwen3_backbone", {"picture": "video", "blind": "without_video", "blind_1LD": "without_video_1LD"}),
    (r"tests/(support/)?parity|bench/(compat|official)|tests/model/test_parity", {
        "reference": "recorded_model", "REFERENCE_SCALE": "RECORDED_SCALE", "reference_case": "recorded_case", "official": "official",
        "published": "official_order"}),
    (r"tests/model/test_interleave", {"published": "official_order"}),
    (r"train/(shared_prompt|packing|losses|preference_loss|reference|ref_logprobs)\.py|stages/(gate|parts/selection|selection|prefer|dpo)\.py|tests/train|tests/stages|tests/model/test_qwen3|bench/dpo_step",
     {"reference": "target"}),
    (r"tests/train/test_losses", {"REFERENCE": "TARGET"}),
    (r"stages/(rounds|gate|selection|parts/selection|rebirth)\.py|cli/rounds\.py|web/plot\.py|tests/stages/test_(rounds|gate|selection|rebirth)|bench/(results|kill_rounds|rejection_sampling)",
     {"number": "round_number"}),
    (r"cli/events\.py", {"strange": "unknown"}),
    (r"web/plot\.py", {"standings": "all_metrics"}),
    (r"model/init_audio", {"eyes": "vision", "ears": "audio"}),
    (r"infer/world_check|tests/infer/test_world_check|bench/world_check", {"pictures": "video_statistics_of", "sounds": "audio_statistics_of"}),
    (r"bench/(world_check)", {"pictures": "images", "sounds": "waveforms"}),
    (r"(train|curriculum)/(tracks|feature_tracks|lessons|examples)\.py|tests/(train|curriculum)/", {"pictures": "video", "sounds_": "audio"}),
    (r"bench/plan", {"pictures": "images"}),
    (r"cli/(material|round_data)\.py", {"material": "round_data"}),
    (r"judge/vdc|tests/judge/test_vdc", {"official": "official"}),
    (r"cli/(track|tracking)|cli/__init__", {"track": "track"}),
    (r"train/(anchor|weight_regularizer)\.py", {"anchor": "start"}),
]

# In one function. (path, function, table)
SCOPED = [
    (r"test_prompt", "test_branches_share_the_media_and_nothing_else", {"place": "at"}),
    (r"infer/captioner\.py", "_answer", {"place": "index", "number": "decoding_index"}),
    (r"stages/rounds\.py", "_question_pairs", {"number": "num_questions"}),
    (r"stages/(gate|parts/selection|selection)\.py", "_perplexity", {"number": "num"}),
]

# --- strings ----------------------------------------------------------------------------------------------------------

LITERALS = {
    "no_picture": "no_video", "picture_only": "video_only", "sound_only": "audio_only", "--no-sound": "--no-audio", "--no-picture": "--no-video",
    "eyes": "vision", "ears": "audio", "teach": "finetune", "practise": "second_phase", "standing.json": "round_metrics.json",
    "reference.jsonl": "ref_logprobs.jsonl", "collapse": "truncated", "anchor": "weight_regularizer", "compat.md": "official.md", "compat.py": "official.py",
    "round-1/standing.json": "round-1/round_metrics.json", "stages/track.py": "stages/tracking.py", "picture.": "video.", "sound.": "audio.",
    "compat": "official", "audit-compat": "audit-official", "global seen": "global visual", "local heard": "local audio", "global heard": "global audio",
    "local seen": "local visual", "Sequence[Standing]": "Sequence[RoundMetrics]", "foreign.json": "external.json", "foreign.jsonl": "external.jsonl",
    "a picture": "video",
}
SEEN_HEARD = {"seen": "visual", "heard": "audio", " seen": " visual", " heard": " audio"}
LITERALS_AT = [
    # keys of recorded data
    (r"parity|bench/(compat|official)\.py|test_shared_prompt|test_packing", {"reference_logps": "reference_logps", "reference_ids": "reference_ids"}),
    (r"train/test_training_plus", {"reference": "target"}),
    (r"judge/(metrics/)?(metrics|error_rates|tables|compare|sound_audit|audio_ablation)\.py|tests/judge/test_(metrics|tables|compare|sound_audit|audio_ablation)\.py|tests/test_cli_evaluate|bench/results", SEEN_HEARD),
    (r"(lessons|examples|teach|finetune)\.py$|stages/rebirth", {"seen": "visual", "heard": "audio", "slots": "seconds"}),
    (r"(train|curriculum)/(shared_prompt|test_shared_prompt|test_packing|test_training_plus)", {"reference": "reference"}),
    (r"(train|stages)/(prefer|dpo)\.py", {"prefer": "dpo"}),
    (r"tests/stages/test_rounds|tests/stages", {"prefer": "dpo", "material": "round_data"}),
    (r"judge/(foreign|external_rows|pair_files)", {"reference": "reference"}),
    (r"^tests/test_layers", {"world/speech.py": "world/speech.py"}),
]
# inside of any string but prompts
STRING_RULES = [
    (r"", r"\bsound_(aligner|encoder|KPA|queries_UQ)\b", r"audio_\1"),
    (r"judge/test_tables|metrics/test_tables", r"\bseen  (?= )", "visual"),
    (r"judge/test_tables|metrics/test_tables", r"\bheard\b", "audio"),
    (r"judge/test_tables|metrics/test_tables", r"quad seen", "quad visual"),
    (r"(train|curriculum)/(feature_)?tracks\.py|(train|curriculum)/test_", r"\bpicture\.(?=\{)", "video."),
    (r"(train|curriculum)/(feature_)?tracks\.py|(train|curriculum)/test_", r"\bsound\.(?=\{)", "audio."),
    (r"stages/", r"(?<![\w-])tracks-(?=[{*])", "feature-tracks-"),
    (r"", r"\bteach\.(?=[a-z_]+)", "finetune."),
    (r"", r"\bpractise\.(?=[a-z_]+)", "second_phase."),
    (r"", r"\bprefer\.(?=(lora|optim|loss|full|epochs?|batch_size|replay|anchor|weight_regularizer|checkpoint_every|train_aligners)\b)", "dpo."),
    (r"", r"\breplay, or the anchor\b", "replay, or the weight regularizer"),
    (r"", r"\bfinetune\.tracks\.", "finetune.feature_tracks."),
    (r"", r"\bslot_steps\b", "second_steps"),
    (r"", r"(?<![\w])sound\.m4a\b", "audio.m4a"),
    (r"", r"\bshort_sound(?=\b|\.mp4)", "short_audio"),
    (r"", r"\blate_picture\.mkv", "late_video.mkv"),
    (r"", r"\b(prefer|dpo)\.anchor\b", r"dpo.weight_regularizer"),
    (r"", r"\banchor\.(kind|weight)\b", r"weight_regularizer.\1"),
    (r"", r"\bstanding\.json\b", "round_metrics.json"),
    (r"", r"\breference\.jsonl\b", "ref_logprobs.jsonl"),
    (r"", r"--no-sound\b", "--no-audio"),
    (r"", r"--no-picture\b", "--no-video"),
    (r"", r"\bcollapse_rate\b", "truncated_rate"),
    (r"", r"docs/compat\.md", "docs/official.md"),
    (r"", r"bench/compat\.py", "bench/official.py"),
    (r"", r"bench/shipped\.py", "bench/tiny.py"),
    (r"^src/(?!avcap/judge/(prompts|llm_judge|events|dream1k|vdc|testset_gpt|dialogue|protocols/))|^tests/(?!judge/)|^bench/|^tests/judge/test_(ingest|pairs|pair_files|calibrate|compare|metrics|bootstrap|quality|agreement|correction|cache|chat|cost|answers)", r"\bwanted\b", "expected"),
    (r"^src/avcap/judge/(dream1k|events|llm_judge|vdc|testset_gpt|dialogue)\.py|^tests/judge/", r"(?<=, )wanted\b(?! to)|(?<=; )wanted\b", "expected"),
]
TEXT_FILES = [
    (r"models/.*README\.md$|runs/ship", r"(?<=world )in sight and sound", "in video and audio"),
    (r"models/tiny-base/README\.md$", r"^# tiny-base: sees, hears and knows the grammar of", "# tiny-base: video, audio and the grammar of"),
    (r"docs/(compat|official)\.md$", r"^# As published, or as it should be", "# Official behaviour, and the correct one"),
    (r"docs/(compat|official)\.md$", r"^(\|.*)the published code \|", r"\1the official code |"),
    (r"models/.*README\.md$", r"missing: seen / heard / both", "missing: visual / audio / both"),
    (r"\.md$|\.sh$|Makefile|\.toml$|\.ci|\.py$|\.yml$", r"\bteach\.(?=[a-z_]+)", "finetune."),
    (r"\.md$|\.sh$", r"\bpractise\.(?=[a-z_]+)", "second_phase."),
    (r"\.md$|\.sh$", r"\bprefer\.(?=(lora|optim|loss|full|epochs?|batch_size|replay|anchor|checkpoint_every|train_aligners)\b)", "dpo."),
    (r"\.md$|\.sh$", r"\b(prefer|dpo)\.anchor\b", r"dpo.weight_regularizer"),
    (r"\.md$|\.sh$", r"\banchor\.(kind|weight)\b", r"weight_regularizer.\1"),
    (r"\.md$|\.sh$", r"standing\.json", "round_metrics.json"),
    (r"\.md$|\.sh$", r"reference\.jsonl", "ref_logprobs.jsonl"),
    (r"\.md$|\.sh$|\.toml$|Makefile", r"--no-sound\b", "--no-audio"),
    (r"\.md$|\.sh$|\.toml$|Makefile", r"--no-picture\b", "--no-video"),
    (r"\.md$|\.toml$|Makefile|\.sh$", r"compat\.(md|png|py)\b", r"official.\1"),
    (r"\.md$", r"OUT/\.\./tracks-HASH-SEED/        ", "OUT/../feature-tracks-HASH-SEED/"),
    (r"src/avcap/models/.*/avcap\.json$", r'"picture_only"', '"video_only"'),
    (r"src/avcap/models/.*/avcap\.json$", r'"sound_only"', '"audio_only"'),
    (r"src/avcap/models/.*/config\.json$", r'"speech_layer_norm"', '"audio_layer_norm"'),
    (r"\.md$", r"compat_plus\.png", "official_plus.png"),
    (r"\.md$|Makefile|\.sh$", r"bench/shipped\.py", "bench/tiny.py"),
    (r"\.md$|Makefile|\.sh$", r"make_picture\.py", "make_demo.py"),
    (r"\.md$", r"(?m)^(\|.*)missing: seen / heard / both", r"\1missing: visual / audio / both"),
    (r"\.md$", r"(?m)^## Was the sound used\?", "## Is the audio used?"),
    (r"\.md$", r"(?m)^## A sound branch for", "## An audio branch for"),
    (r"\.md$", r"(?m)^## Training of the shipped models", "## Training of the tiny models"),
    (r"docs/design\.md$", r"\bprefer\.py\b", "dpo.py"),
]
