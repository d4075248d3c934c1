"""Which words a media token is pulled towards, and that others are left alone."""

import pytest

from avcap.curriculum.alignment import FIRST_AUDIO_TYPE, alignment_losses, media_words, num_told_words
from avcap.curriculum.examples import pair_feature_tracks
from avcap.world.scene import Scene, SoundAtom, VisualAtom

SCENE = Scene(
    seed=0,
    difficulty="easy",
    domain="default",
    duration_s=6,
    visual=(
        VisualAtom(second=1, kind="appear", colour="red", shape="circle", place="top-left", size=1),
        VisualAtom(
            second=2, kind="move", colour="red", shape="circle", place="top-left", size=1, new_place="bottom-right"
        ),
    ),
    sounds=(
        SoundAtom(second=3, kind="counted", name="knock", count=2),
        SoundAtom(second=4, kind="say", words=("tiger", "apple")),
        SoundAtom(second=5, kind="plain", name="applause"),
    ),
)


def test_media_words_tell_what_each_token_shows():
    first, second = FIRST_AUDIO_TYPE, FIRST_AUDIO_TYPE + 1
    words = media_words(SCENE)
    assert {key: set(told) for key, told in words.items()} == {
        (1, 0): {"appears", "red", "circle", "top-left"},
        (2, 3): {"moves", "red", "circle", "bottom-right"},  # where it arrives
        (2, 0): {"top-left", "red", "circle"},  # what it left names itself
        (3, first): {"somebody", "twice"},
        (3, second): {"somebody", "twice"},
        (4, first): {"voice", "tiger"},
        (4, second): {"voice", "apple"},  # a word in each half second
        (5, first): {"people"},
        (5, second): {"people"},
    }


def test_all_media_words_are_words_of_the_tokenizer(tiny, feature_tracks):
    _, tokenizer = tiny
    scenes = [track.scene for found in (feature_tracks.video, feature_tracks.audio) for track in found[12]]
    for scene in (*scenes, SCENE):
        told = [word for words in media_words(scene).values() for word in words]
        assert told and tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(told)


def test_alignment_loss_pulls_told_tokens_only(tiny, feature_tracks):
    model, tokenizer = tiny
    clip = pair_feature_tracks(feature_tracks.video[12][0], feature_tracks.audio[12][0], start_s=0, end_s=6)
    (tokens,) = model.align_batch([clip.media])
    tokens.content_MD.retain_grad()
    loss = alignment_losses(model, [tokens], [clip.scene], tokenizer=tokenizer).mean()
    loss.backward()
    expected = media_words(clip.scene)
    places = list(zip(tokens.seconds_M.tolist(), tokens.types_M.tolist(), strict=True))
    is_pulled = tokens.content_MD.grad.abs().sum(-1) > 0
    assert is_pulled.tolist() == [place in expected for place in places]
    assert 0 < is_pulled.sum() < len(places)

    log_probs = [model.language_model.lm_head(row).log_softmax(-1) for row in tokens.content_MD.detach()]
    by_hand = [
        -log_probs[row][tokenizer.convert_tokens_to_ids(word)].item()
        for row, place in enumerate(places)
        for word in expected.get(place, ())
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    model.zero_grad(set_to_none=True)


def test_told_words_are_counted_without_computing_a_token(tiny, feature_tracks):
    model, tokenizer = tiny
    clip = pair_feature_tracks(feature_tracks.video[12][0], feature_tracks.audio[12][0], start_s=0, end_s=6)
    losses = alignment_losses(model, model.align_batch([clip.media]), [clip.scene], tokenizer=tokenizer)
    assert num_told_words(model, clip) == len(losses) > 0
