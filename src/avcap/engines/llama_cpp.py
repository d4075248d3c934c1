"""llama.cpp's server: input_video (since June 2026, ffmpeg beside it) and input_audio, each as bare base64. video_url
is no type that it knows, and it takes no audio out of a video."""

from avcap.engines.dialect import Body, Dialect, Sent, input_audio


def video(text: str, sent: Sent) -> Body:
    return {"type": "input_video", "input_video": {"data": text}}


LLAMA_CPP = Dialect(name="llama_cpp", title="llama.cpp", video=video, audio=input_audio)
