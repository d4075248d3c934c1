"""The embedded model: the salmonn2 family at a size that a CPU trains in minutes."""

from collections.abc import Sequence

from avcap.model.salmonn2.configuration import CHAT_TINY, Salmonn2Config

TINY_VISION = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 96,
    "patch_size": 12,
}
TINY_AUDIO = {
    "num_mel_bins": 80,
    "d_model": 96,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 384,
    "decoder_layers": 1,
    "max_source_positions": 50,  # chunks of one second: nothing is padded
}
TINY_QFORMER = {
    "hidden_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "cross_attention_frequency": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TINY_TEXT = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 384,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}


def tiny_config(*, vocab_size: int, time_token_ids: Sequence[int], num_mel_bins: int = 80) -> Salmonn2Config:
    """Vocabulary size and the token ids of seconds 0, 1, 2, ... -> config of the embedded model.

    8x8 patches are averaged to 2x2 cells before the projector, so a frame costs six tokens (two newlines) and a second
    of sound two. The options that the released model lacks are what a model of one million weights needs to learn.
    """
    return Salmonn2Config(
        vision_config=TINY_VISION,
        audio_config=TINY_AUDIO | {"num_mel_bins": num_mel_bins},
        qformer_config=TINY_QFORMER,
        text_config=TINY_TEXT | {"vocab_size": vocab_size},
        vision_layers_dropped=0,
        projector="linear",
        pool_mode="average",
        pool_stride=4,
        pool_position="before",
        frame_difference=True,
        audio_layer_norm=False,
        use_final_linear=False,
        segment_positions=False,
        time_text=False,
        connector_norm=True,
        time_vectors=True,
        time_token_ids=list(time_token_ids),
        type_vectors=True,
        chat=CHAT_TINY,
    )
